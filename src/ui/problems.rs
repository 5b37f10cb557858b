//! What went wrong, kept for the job summary: the runner shows few annotations, and a run that was
//! refused writes no other page.

use crate::actions::Summary;
use crate::actions::summary::Piece;
use crate::report::text::{Limits, one_line};
use crate::report::{Report, Severity};
use crate::secret::Masker;

/// So many are kept word for word; the others are counted.
const KEPT_MAX: usize = 200;

/// The problems of a run, as far as they are kept.
#[derive(Debug, Default)]
pub(super) struct Told {
    rows: Vec<[String; 4]>,
    more: usize,
    /// An error was among them.
    has_errors: bool,
}

impl Told {
    /// Takes note of a problem, masked already.
    pub(super) fn take(&mut self, report: &Report) {
        self.has_errors |= report.severity == Severity::Error;
        if self.rows.len() == KEPT_MAX {
            self.more += 1;
            return;
        }
        let field = |text: &str| one_line(text, Limits::FIELD);
        let mut message = field(&report.message);
        if !report.label.is_empty() {
            message.push_str(&format!(" ({})", field(&report.label)));
        }
        self.rows.push([
            report.code.to_owned(),
            report
                .at
                .as_ref()
                .map_or_else(String::new, |at| field(&at.to_string())),
            message,
            report
                .fix
                .first()
                .map_or_else(String::new, |fix| field(fix)),
        ]);
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.rows.len() + self.more
    }

    /// True when a run that wrote no page has to say what was wrong.
    pub(super) fn has_errors(&self) -> bool {
        self.has_errors
    }

    /// The page.
    pub(super) fn page(&self, masker: &Masker) -> String {
        let cells: Vec<Vec<Vec<Piece<'_>>>> = self
            .rows
            .iter()
            .map(|[code, at, message, fix]| {
                vec![
                    vec![Piece::Code(code)],
                    vec![Piece::Code(at)],
                    vec![Piece::Text(message)],
                    vec![Piece::Text(fix)],
                ]
            })
            .collect();
        let mut summary = Summary::new(masker);
        let section = summary.section("Problems");
        section.table(&["code", "place", "problem", "fix"], &cells);
        if self.more > 0 {
            let rest = format!("and {} more; the log has every one", self.more);
            section.paragraph(&[Piece::Text(&rest)]);
        }
        summary.render()
    }
}
