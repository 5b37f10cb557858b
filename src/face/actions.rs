//! The Actions face: sections are groups, problems are annotations on the line that is wrong, and
//! foreign text is wrapped so that the runner reads no command in it. Nothing ever rewrites a
//! line: the runner would show each carriage return as a new one.

use super::{Style, line, problem};
use crate::actions::annotation::Quota;
use crate::actions::command::{self, Command};
use crate::report::text::{Limits, one_line};
use crate::report::{Event, Severity};
use crate::secret::Masker;

/// One thing to write, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A command, written as it is.
    Command(Command),
    /// Ordinary lines, guarded and masked when written; each ends with a line feed.
    Text(String),
}

/// What the face remembers between events.
#[derive(Debug, Default)]
pub struct Actions {
    is_group_open: bool,
    quota: Quota,
}

impl Actions {
    /// The pieces of an event. `token` is a fresh random one for stop-commands.
    pub fn take(
        &mut self,
        style: Style,
        event: &Event,
        masker: &Masker,
        token: impl FnOnce() -> String,
    ) -> Vec<Piece> {
        let mut pieces = Vec::new();
        match event {
            Event::Section { title } => {
                self.end_group(&mut pieces);
                let title = one_line(&masker.mask(title), Limits::FIELD);
                pieces.push(Piece::Command(command::group(&title)));
                self.is_group_open = true;
            }
            Event::Result { .. } => {
                // The end of the story is for everyone, also for whoever unfolds nothing.
                self.end_group(&mut pieces);
                pieces.push(Piece::Text(line::event(style, event)));
            }
            Event::Problem(report) => {
                // A group folds away when the step ends; an error must stay in sight.
                if report.severity == Severity::Error {
                    self.end_group(&mut pieces);
                }
                match self.quota.annotate(report, masker) {
                    // The annotation shows the sentence; what it cannot show follows.
                    Some(annotation) => {
                        pieces.push(Piece::Command(annotation));
                        pieces.push(Piece::Text(problem::place(style, report)));
                    }
                    None => pieces.push(Piece::Text(problem::render(style, report))),
                }
            }
            Event::Relayed { source, text } => {
                let token = token();
                pieces.push(Piece::Command(command::stop_commands(&token)));
                pieces.push(Piece::Text(line::relayed(style, source, text)));
                pieces.push(Piece::Command(command::resume_commands(&token)));
            }
            other => pieces.push(Piece::Text(line::event(style, other))),
        }
        pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
        pieces
    }

    /// What the end of the run still owes: the open group, the annotations that were folded.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        self.end_group(&mut pieces);
        pieces.extend(self.quota.rest().into_iter().map(Piece::Command));
        pieces
    }

    fn end_group(&mut self, pieces: &mut Vec<Piece>) {
        if std::mem::take(&mut self.is_group_open) {
            pieces.push(Piece::Command(command::end_group()));
        }
    }
}
