//! The terminal face: finished things scroll away above, running actions are one live line each
//! at the bottom, redrawn in place. No spinner: elapsed seconds say that we are alive.

use std::time::Duration;

use unicode_width::UnicodeWidthChar as _;

use super::{Style, Tone, elapsed, line, plain};
use crate::report::Event;
use crate::resource::ActionKind;

/// At most so many live lines; the others are counted.
const LIVE_LINES_MAX: usize = 12;

/// An action that runs.
#[derive(Clone, Debug)]
struct Running {
    address: String,
    action: ActionKind,
    since: Duration,
}

/// The live lines of a run.
#[derive(Clone, Debug, Default)]
pub struct Live {
    running: Vec<Running>,
}

impl Live {
    /// Takes note of an event at a moment of the monotonic clock, and returns the text that
    /// scrolls away for it; empty when only the live lines change.
    pub fn take(&mut self, style: Style, event: &Event, now: Duration) -> String {
        match event {
            Event::ActionStarted {
                address, action, ..
            } => {
                self.running.push(Running {
                    address: address.as_str().to_owned(),
                    action: *action,
                    since: now,
                });
                return String::new();
            }
            Event::ActionFinished { address, .. } => {
                self.running
                    .retain(|running| running.address != address.as_str());
            }
            _ => {}
        }
        plain::render(style, event)
    }

    /// True while something runs.
    pub fn is_live(&self) -> bool {
        !self.running.is_empty()
    }

    /// Forgets what runs: the run is over.
    pub fn clear(&mut self) {
        self.running.clear();
    }

    /// The live lines, none wider than the terminal.
    pub fn lines(&self, style: Style, now: Duration) -> Vec<String> {
        let mut lines: Vec<String> = self
            .running
            .iter()
            .take(LIVE_LINES_MAX)
            .map(|running| {
                let took = now.saturating_sub(running.since);
                let suffix = if took.as_secs() == 0 {
                    " …".to_owned()
                } else {
                    let took = Duration::from_secs(took.as_secs());
                    format!(" … {}", elapsed(took).replace(".0s", "s"))
                };
                // Cut the name, never the seconds, and without colours inside the cut.
                let bare = Style {
                    is_coloured: false,
                    ..style
                };
                let frame = width(&line::started(bare, "", running.action, &suffix));
                let name = shorten(&running.address, style.width.saturating_sub(frame + 1));
                line::started(
                    style,
                    &name,
                    running.action,
                    &style.paint(Tone::Faint, &suffix),
                )
            })
            .collect();
        if self.running.len() > LIVE_LINES_MAX {
            let more = format!("    and {} more", self.running.len() - LIVE_LINES_MAX);
            lines.push(style.paint(Tone::Faint, &more).into_owned());
        }
        lines
    }
}

/// Columns a text takes.
pub(super) fn width(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

/// The text in at most `columns` columns, with `…` where it was cut.
pub(super) fn shorten(text: &str, columns: usize) -> String {
    let text = crate::report::text::one_line(text, crate::report::text::Limits::FIELD);
    if width(&text) <= columns {
        return text;
    }
    let mut out = String::new();
    let mut taken = 1;
    for character in text.chars() {
        taken += character.width().unwrap_or(0);
        if taken > columns {
            break;
        }
        out.push(character);
    }
    out.push('…');
    out
}

/// The bytes that take `lines` live lines off the screen, the cursor being below the last.
pub fn erase(lines: usize) -> String {
    if lines == 0 {
        return String::new();
    }
    format!("\u{1b}[{lines}A\r\u{1b}[J")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;
    use crate::resource::Address;

    #[test]
    fn running_actions_are_lines_until_they_finish() {
        let mut live = Live::default();
        let start = |name: &str| Event::ActionStarted {
            address: Address::new(name),
            action: ActionKind::Create,
            about: String::new(),
        };
        assert_eq!(live.take(Style::PLAIN, &start("db"), Duration::ZERO), "");
        live.take(Style::PLAIN, &start("web"), Duration::from_secs(2));
        assert_eq!(
            live.lines(Style::PLAIN, Duration::from_millis(2_500)),
            ["  + creating db … 2s", "  + creating web …"]
        );
        let finished = Event::ActionFinished {
            address: Address::new("db"),
            action: ActionKind::Create,
            outcome: Outcome::Success,
            elapsed: Duration::from_secs(2),
            message: String::new(),
            evidence: Vec::new(),
        };
        assert_eq!(
            live.take(Style::PLAIN, &finished, Duration::from_secs(3)),
            "  ✓ created db  2.0s\n"
        );
        assert_eq!(
            live.lines(Style::PLAIN, Duration::from_secs(63)),
            ["  + creating web … 1m 01s"]
        );
    }

    #[test]
    fn no_live_line_is_wider_than_the_terminal() {
        let mut live = Live::default();
        for n in 0..20 {
            live.take(
                Style::PLAIN,
                &Event::ActionStarted {
                    address: Address::new(format!("{n}-{}", "名前".repeat(60))),
                    action: ActionKind::Delete,
                    about: String::new(),
                },
                Duration::ZERO,
            );
        }
        let style = Style {
            is_coloured: false,
            width: 40,
        };
        let lines = live.lines(style, Duration::from_secs(75));
        assert_eq!(lines.len(), LIVE_LINES_MAX + 1);
        for line in lines {
            assert!(width(&line) < 40, "{line:?} is {} wide", width(&line));
        }
    }
}
