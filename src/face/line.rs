//! What one event looks like as lines, shared by all faces. Each line is complete and safe; the
//! faces decide what goes around it.

use std::fmt::Write as _;

use super::{Style, Tone, elapsed};
use crate::report::text::{Limits, lines, neutralise, one_line, own_block};
use crate::report::{Event, Outcome, SinkOutcome};
use crate::resource::ActionKind;

/// The past form of an action.
fn done(action: ActionKind) -> &'static str {
    match action {
        ActionKind::Create => "created",
        ActionKind::Update => "updated",
        ActionKind::Replace => "replaced",
        ActionKind::Delete => "deleted",
        ActionKind::NoOp => "unchanged",
    }
}

/// What is going on right now.
fn doing(action: ActionKind) -> &'static str {
    match action {
        ActionKind::Create => "creating",
        ActionKind::Update => "updating",
        ActionKind::Replace => "replacing",
        ActionKind::Delete => "deleting",
        ActionKind::NoOp => "checking",
    }
}

/// The tone of an action.
pub fn action_tone(action: ActionKind) -> Tone {
    match action {
        ActionKind::Create => Tone::Good,
        ActionKind::Update | ActionKind::Replace => Tone::Change,
        ActionKind::Delete => Tone::Bad,
        ActionKind::NoOp => Tone::Faint,
    }
}

fn field(text: &str) -> String {
    one_line(text, Limits::FIELD)
}

/// `  + creating web …`
pub fn started(style: Style, address: &str, action: ActionKind, suffix: &str) -> String {
    format!(
        "  {} {} {}{suffix}",
        style.paint(action_tone(action), action.symbol()),
        doing(action),
        style.paint(Tone::Strong, &field(address)),
    )
}

/// An indented explanation below a line; every line of `text` is kept.
fn below(style: Style, text: &str) -> String {
    let text = neutralise(text, Limits::FIELD);
    let mut out = String::new();
    for line in lines(&text).filter(|line| !line.trim().is_empty()) {
        let _infallible = writeln!(out, "      {}", style.paint(Tone::Faint, line));
    }
    out
}

/// The lines of an event, each ending with a line feed; empty for events a face draws itself
/// (sections and problems).
pub fn event(style: Style, event: &Event) -> String {
    match event {
        Event::Section { .. } | Event::Problem(_) => String::new(),
        Event::Note { text } => ended(neutralise(text, Limits::OWN)),
        Event::Result { text } | Event::Block { text } => ended(own_block(text, style.is_coloured)),
        Event::Relayed { source, text } => relayed(style, source, text),
        Event::ActionStarted {
            address, action, ..
        } => started(style, address.as_str(), *action, " …\n"),
        Event::ActionFinished {
            address,
            action,
            outcome,
            elapsed: took,
            message,
            ..
        } => {
            let name = field(address.as_str());
            let name = style.paint(Tone::Strong, &name);
            let took = elapsed(*took);
            let (tone, mark, words) = match outcome {
                Outcome::Success => (Tone::Good, "✓", format!("{} {name}", done(*action))),
                Outcome::Error
                | Outcome::DeleteFailed
                | Outcome::Compensated
                | Outcome::CompensationFailed => {
                    (Tone::Bad, "✗", format!("{} {name} failed", doing(*action)))
                }
                Outcome::Skipped => (Tone::Faint, "·", format!("skipped {name}")),
            };
            let time = match outcome {
                Outcome::Skipped => String::new(),
                _ => format!("  {}", style.paint(Tone::Faint, &took)),
            };
            format!(
                "  {} {words}{time}\n{}",
                style.paint(tone, mark),
                below(style, message)
            )
        }
        Event::SinkFinished {
            destination,
            name,
            outcome,
            message,
        } => {
            let (tone, mark) = match outcome {
                SinkOutcome::Written | SinkOutcome::Removed => (Tone::Good, "✓"),
                SinkOutcome::Unchanged => (Tone::Faint, "="),
                SinkOutcome::Failed => (Tone::Bad, "✗"),
                SinkOutcome::Skipped => (Tone::Faint, "·"),
            };
            format!(
                "  {} {} → {}  {}\n{}",
                style.paint(tone, mark),
                style.paint(Tone::Strong, &field(name)),
                field(destination),
                style.paint(Tone::Faint, outcome.word()),
                below(style, message)
            )
        }
        Event::ProbeObserved {
            target,
            attempt,
            passed,
            seen,
            elapsed: since,
        } => {
            let (tone, mark) = match passed {
                true => (Tone::Good, "✓"),
                false => (Tone::Change, "·"),
            };
            let when = match attempt {
                0 | 1 => elapsed(*since),
                _ => format!("attempt {attempt}, {}", elapsed(*since)),
            };
            let when = format!("({when})");
            format!(
                "  {} {}  {}  {}\n",
                style.paint(tone, mark),
                style.paint(Tone::Strong, &field(target)),
                field(seen),
                style.paint(Tone::Faint, &when)
            )
        }
    }
}

fn ended(mut text: String) -> String {
    text.push('\n');
    text
}

/// Foreign text, each line behind a bar that names where it came from.
pub fn relayed(style: Style, source: &str, text: &str) -> String {
    let source = one_line(source, Limits::FIELD);
    let bar = format!("  {source} │");
    let bar = style.paint(Tone::Faint, &bar);
    let text = neutralise(text.trim_end_matches(['\n', '\r']), Limits::RELAYED);
    let mut out = String::new();
    for line in text.split('\n') {
        let _infallible = writeln!(out, "{bar} {line}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Address;
    use std::time::Duration;

    #[test]
    fn events_read_as_one_calm_line_each() {
        let finished = |outcome, message: &str| Event::ActionFinished {
            address: Address::new("web"),
            action: ActionKind::Create,
            outcome,
            elapsed: Duration::from_millis(1_240),
            message: message.into(),
            evidence: Vec::new(),
        };
        for (given, expected) in [
            (finished(Outcome::Success, ""), "  ✓ created web  1.2s\n"),
            (
                finished(Outcome::Error, "port 80 is taken\nby nginx"),
                "  ✗ creating web failed  1.2s\n      port 80 is taken\n      by nginx\n",
            ),
            (
                finished(Outcome::Skipped, "db failed"),
                "  · skipped web\n      db failed\n",
            ),
            (
                Event::SinkFinished {
                    destination: "dotenv .env".into(),
                    name: "DATABASE_URL".into(),
                    outcome: SinkOutcome::Written,
                    message: String::new(),
                },
                "  ✓ DATABASE_URL → dotenv .env  written\n",
            ),
            (
                Event::ProbeObserved {
                    target: "http://127.0.0.1:8080/healthz".into(),
                    attempt: 3,
                    passed: false,
                    seen: "503 Service Unavailable".into(),
                    elapsed: Duration::from_millis(900),
                },
                "  · http://127.0.0.1:8080/healthz  503 Service Unavailable  (attempt 3, 900ms)\n",
            ),
            (
                Event::Relayed {
                    source: "cloud".into(),
                    text: "one\r::error::two\n".into(),
                },
                "  cloud │ one\n  cloud │ \\::error::two\n",
            ),
        ] {
            assert_eq!(event(Style::PLAIN, &given), expected);
        }
    }
}
