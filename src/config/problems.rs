//! Everything found wrong in one run, in the order a reader meets it.

use std::cell::Cell;
use std::collections::{BTreeSet, HashSet};

use zeroize::Zeroizing;

use super::Unfamiliar;
use super::hide::Hidden;
use super::source::{Mark, Sources};
use crate::report::{Exit, Report, Severity, Span};
use crate::secret::Masker;

/// Names compared per run to find a nearest one. Beyond that a hint helps nobody, and the search
/// would make the time grow with the square of the file.
const COMPARISONS_MAX: usize = 500_000;

/// Errors listed; the others are counted.
const ERRORS_MAX: usize = 500;

/// The collector. It owns the sources, so that a problem can be placed when it is found.
#[derive(Debug)]
pub(super) struct Problems {
    /// The texts.
    pub(super) sources: Sources,
    found: Vec<(Option<Mark>, Report)>,
    /// Where errors stand.
    errors_at: BTreeSet<(u16, u32)>,
    comparisons_left: Cell<usize>,
    /// Warnings about types that somebody may know.
    unfamiliar: Vec<(Mark, Unfamiliar)>,
    /// Secrets written out in the files, each with its key.
    written_out: Vec<(String, Zeroizing<String>)>,
}

impl Default for Problems {
    fn default() -> Self {
        Self {
            sources: Sources::default(),
            found: Vec::new(),
            errors_at: BTreeSet::new(),
            comparisons_left: Cell::new(COMPARISONS_MAX),
            unfamiliar: Vec::new(),
            written_out: Vec::new(),
        }
    }
}

impl Problems {
    /// Keeps what was found in a file out of every excerpt.
    pub(super) fn hide(&mut self, hidden: Hidden) {
        self.sources.hide(&hidden.places);
        self.written_out.extend(hidden.written_out);
    }

    /// Tells the masker of every secret that is written out. For files that are refused: of others,
    /// whoever resolves them does.
    pub(super) fn admit_written_out(&mut self, masker: &Masker) {
        for (key, text) in self.written_out.drain(..) {
            masker.admit(&key, text.as_str().to_owned());
        }
    }

    /// Adds an error at a place.
    pub(super) fn error(&mut self, at: Mark, report: Report) {
        self.errors_at.insert((at.source, at.start));
        self.found.push((Some(at), report.exit(Exit::Usage)));
    }

    /// Adds a warning at a place.
    pub(super) fn warning(&mut self, at: Mark, report: Report) {
        self.found.push((Some(at), report));
    }

    /// Adds an error that has no place in a file.
    pub(super) fn unplaced(&mut self, report: Report) {
        self.found.push((None, report.exit(Exit::Usage)));
    }

    /// Adds a problem that knows its place.
    pub(super) fn placed(&mut self, report: Report) {
        self.found.push((None, report));
    }

    /// True when an error stands inside a range of a file.
    pub(super) fn has_error_within(&self, range: Mark) -> bool {
        let start = (range.source, range.start);
        let end = (range.source, range.end.max(range.start + 1));
        self.errors_at.range(start..end).next().is_some()
    }

    /// Adds a warning about a type, once for each place.
    pub(super) fn unfamiliar(&mut self, at: Mark, kind: &str, report: Report) {
        if self.unfamiliar.iter().all(|(known, _)| *known != at) {
            let report = report.at(self.sources.span(at));
            let kind = kind.to_owned();
            self.unfamiliar.push((at, Unfamiliar { kind, report }));
        }
    }

    /// The warnings about types, in file order.
    pub(super) fn take_unfamiliar(&mut self) -> Vec<Unfamiliar> {
        self.unfamiliar
            .sort_by_key(|(mark, _)| (mark.source, mark.start));
        self.unfamiliar.drain(..).map(|(_, one)| one).collect()
    }

    /// True when an error was found.
    pub(super) fn has_errors(&self) -> bool {
        self.found
            .iter()
            .any(|(_, report)| report.severity == Severity::Error)
    }

    /// How many problems there are now.
    pub(super) fn count(&self) -> usize {
        self.found.len()
    }

    /// Drops problems found after `before` that say what an earlier one says, word for word and
    /// at the same place.
    pub(super) fn forget_repeats(&mut self, before: usize) {
        let later = self.found.split_off(before.min(self.found.len()));
        let mut said: HashSet<(Option<Mark>, &'static str, String)> = self
            .found
            .iter()
            .map(|(at, report)| (*at, report.code, report.message.clone()))
            .collect();
        for (at, report) in later {
            if said.insert((at, report.code, report.message.clone())) {
                self.found.push((at, report));
            }
        }
    }

    /// The place as people read it.
    pub(super) fn span(&self, at: Mark) -> Span {
        self.sources.span(at)
    }

    /// The nearest of `candidates` to a misspelt `name`, if one is near.
    pub(super) fn nearest<'c>(
        &self,
        name: &str,
        candidates: impl IntoIterator<Item = &'c str>,
    ) -> Option<&'c str> {
        if self.comparisons_left.get() == 0 {
            return None;
        }
        nearest(
            name,
            candidates.into_iter().inspect(|_| {
                let left = self.comparisons_left.get().saturating_sub(1);
                self.comparisons_left.set(left);
            }),
        )
    }

    /// Errors and warnings, each in file order.
    pub(super) fn finish(mut self) -> (Vec<Report>, Vec<Report>) {
        self.found
            .sort_by_key(|(mark, _)| mark.map(|mark| (mark.source, mark.start)));
        let mut errors = Vec::new();
        let mut warnings = Vec::new();
        let mut left_out = 0;
        for (mark, mut report) in self.found {
            if report.severity == Severity::Error && errors.len() == ERRORS_MAX {
                left_out += 1;
                continue;
            }
            if let Some(mark) = mark {
                // What must not be shown is known only when the whole file was looked through.
                report.at = Some(self.sources.span(mark));
            }
            match report.severity {
                Severity::Error => errors.push(report),
                Severity::Warning | Severity::Notice => warnings.push(report),
            }
        }
        if left_out > 0 {
            errors.push(
                Report::error(
                    "config/more-problems",
                    format!("and {left_out} more problems, which are not listed"),
                )
                .fix("correct some of these first: many may have one cause")
                .exit(Exit::Usage),
            );
        }
        (errors, warnings)
    }
}

/// The nearest of `candidates` to a misspelt `name`, if one is near.
fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let folded = fold(name);
    let length = folded.chars().count();
    let allowed = (length / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| *candidate != name)
        .filter_map(|candidate| {
            let other = fold(candidate);
            if other.chars().count().abs_diff(length) > allowed {
                return None;
            }
            let distance = strsim::damerau_levenshtein(&folded, &other);
            (distance <= allowed && distance < length).then_some((distance, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Spelling that does not count: case, `_`, `-`.
fn fold(name: &str) -> String {
    name.chars()
        .filter(|character| !matches!(character, '_' | '-'))
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn nearest_names() {
        let names = ["dependsOn", "protected", "config", "name", "type"];
        for (typed, expected) in [
            ("depends_on", Some("dependsOn")),
            ("protect", Some("protected")),
            ("confg", Some("config")),
            ("typ", Some("type")),
            ("replicas", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, names), expected, "{typed}");
        }
    }
}
