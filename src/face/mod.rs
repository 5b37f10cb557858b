//! The faces: events and problems as text, for a terminal, for a plain log, for GitHub Actions.
//!
//! Renderers are pure functions that return text; [`crate::ui`] masks and writes it. Text that
//! came from outside is made harmless here, field by field, before it meets our own colours.

pub mod actions;
pub mod line;
pub mod plain;
pub mod plan;
pub mod problem;
pub mod table;
pub mod terminal;

use std::borrow::Cow;
use std::time::Duration;

/// Which face a run wears; chosen once, from the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaceKind {
    /// Standard error is a terminal: running actions are live lines at the bottom.
    Terminal,
    /// One line per event, never rewritten.
    Plain,
    /// Inside GitHub Actions: groups, annotations, one stream.
    Actions,
}

/// What a piece of text means; colour only repeats what the words and symbols already say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// It went well, or is being created.
    Good,
    /// It failed, or is being deleted.
    Bad,
    /// It changes, or deserves a look.
    Change,
    /// Headings.
    Strong,
    /// Details that may be skipped.
    Faint,
    /// Places and rules in problems.
    Place,
}

/// How text may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// ANSI colours are welcome.
    pub is_coloured: bool,
    /// Columns of the terminal; at least 20.
    pub width: usize,
}

impl Style {
    /// No colour, 100 columns: logs and tests.
    pub const PLAIN: Self = Self {
        is_coloured: false,
        width: 100,
    };

    /// The text in a tone.
    pub fn paint<'a>(&self, tone: Tone, text: &'a str) -> Cow<'a, str> {
        if !self.is_coloured || text.is_empty() {
            return Cow::Borrowed(text);
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Change => "33",
            Tone::Strong => "1",
            Tone::Faint => "2",
            Tone::Place => "34",
        };
        Cow::Owned(format!("\u{1b}[{code}m{text}\u{1b}[0m"))
    }
}

/// A duration as people say it: `40ms`, `2.4s`, `3m 07s`, `1h 02m`.
pub fn elapsed(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{}.{}s", seconds, duration.subsec_millis() / 100),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `1 resource`, `2 resources`.
pub fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        for (ms, expected) in [
            (0, "0ms"),
            (940, "940ms"),
            (1_000, "1.0s"),
            (59_999, "59.9s"),
            (187_000, "3m 07s"),
            (3_725_000, "1h 02m"),
        ] {
            assert_eq!(elapsed(Duration::from_millis(ms)), expected);
        }
        assert_eq!(count(1, "resource"), "1 resource");
        assert_eq!(count(0, "resource"), "0 resources");
    }

    #[test]
    fn colour_is_only_added_when_welcome() {
        assert_eq!(Style::PLAIN.paint(Tone::Bad, "x"), "x");
        let style = Style {
            is_coloured: true,
            ..Style::PLAIN
        };
        assert_eq!(style.paint(Tone::Bad, "x"), "\u{1b}[31mx\u{1b}[0m");
        assert_eq!(style.paint(Tone::Bad, ""), "");
    }
}
