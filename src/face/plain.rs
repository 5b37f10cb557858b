//! The plain face: one line per event, in order, never rewritten. For files, pipes and `TERM=dumb`.

use super::{Style, Tone, line, problem};
use crate::report::Event;
use crate::report::text::{Limits, one_line};

/// The text of an event. Sections, results and problems have a blank line before them, which the writer
/// leaves out at the very beginning.
pub fn render(style: Style, event: &Event) -> String {
    match event {
        Event::Section { title } => {
            let title = one_line(title, Limits::FIELD);
            format!("\n{}\n", style.paint(Tone::Strong, &title))
        }
        Event::Result { .. } => format!(
            "\n{}\n{}",
            style.paint(Tone::Strong, "Result"),
            line::event(style, event)
        ),
        Event::Problem(report) => format!("\n{}", problem::render(style, report)),
        Event::ActionFinished {
            address, evidence, ..
        } => {
            let told = evidence
                .iter()
                .map(|piece| line::relayed(style, address.as_str(), piece));
            std::iter::once(line::event(style, event))
                .chain(told)
                .collect()
        }
        other => line::event(style, other),
    }
}
