//! Problems as annotations. The service shows an annotation's title and file as they are, without
//! masking, so the title is our own stable code and the file is dropped when it looks sensitive.
//! The runner keeps ten annotations of each level per step: we send nine, and fold the rest into
//! the tenth.

use std::path::{Component, Path, PathBuf};

use super::command::{self, Annotation, Command};
use crate::report::text::{Limits, neutralise};
use crate::report::{Report, Severity};
use crate::secret::Masker;

/// Annotations of one level sent before the rest is folded.
pub const ANNOTATIONS_MAX: u32 = 9;

/// The runner cuts a message here; we cut earlier, between characters, and say so.
const MESSAGE_BYTES_MAX: usize = 4_000;

/// Counts what was sent in one step.
#[derive(Debug, Default)]
pub struct Quota {
    sent: [u32; 3],
    folded: [u32; 3],
    folder: PathBuf,
}

fn index(severity: Severity) -> usize {
    match severity {
        Severity::Error => 0,
        Severity::Warning => 1,
        Severity::Notice => 2,
    }
}

impl Quota {
    /// For a run that was started in `folder`: as the repository names it, or absolute.
    pub fn in_folder(folder: PathBuf) -> Self {
        Self {
            folder,
            ..Self::default()
        }
    }

    /// The annotation for a report, or `None` when its level is used up.
    pub fn annotate(&mut self, report: &Report, masker: &Masker) -> Option<Command> {
        let level = index(report.severity);
        if self.sent[level] >= ANNOTATIONS_MAX {
            self.folded[level] += 1;
            return None;
        }
        self.sent[level] += 1;
        Some(command(report, &self.folder, masker))
    }

    /// True when a level was used up.
    pub fn has_folded(&self) -> bool {
        self.folded.iter().any(|folded| *folded > 0)
    }

    /// One line per level that had more than [`ANNOTATIONS_MAX`]; empty otherwise.
    pub fn rest(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        for (severity, one, many) in [
            (Severity::Error, "error", "errors"),
            (Severity::Warning, "warning", "warnings"),
            (Severity::Notice, "notice", "notices"),
        ] {
            let folded = std::mem::take(&mut self.folded[index(severity)]);
            if folded > 0 {
                let noun = if folded == 1 { one } else { many };
                let message = format!("and {folded} more {noun}; see the log and the job summary");
                commands.push(command::annotate(
                    severity,
                    &Annotation {
                        message: &message,
                        ..Annotation::default()
                    },
                ));
            }
        }
        commands
    }
}

/// A report as one annotation: the sentence, the causes, the fixes.
fn command(report: &Report, folder: &Path, masker: &Masker) -> Command {
    let mut message = report.message.clone();
    if !report.label.is_empty() {
        message.push_str(" (");
        message.push_str(&report.label);
        message.push(')');
    }
    for cause in &report.because {
        message.push_str("\nbecause: ");
        message.push_str(cause);
    }
    for fix in &report.fix {
        message.push_str("\nfix: ");
        message.push_str(fix);
    }
    let message = neutralise(
        &masker.mask(&message),
        Limits {
            line_bytes_max: MESSAGE_BYTES_MAX / 2,
            total_bytes_max: MESSAGE_BYTES_MAX - 64,
        },
    );
    let file = report
        .at
        .as_ref()
        .map(|span| from_root(folder, &span.path))
        .filter(|file| is_plain_file(file) && !masker.is_sensitive(file))
        .unwrap_or_default();
    let place = report.at.as_ref().filter(|_| !file.is_empty());
    command::annotate(
        report.severity,
        &Annotation {
            title: report.code,
            file: &file,
            line: place.map_or(0, |span| span.line),
            end_line: 0,
            column: place.map_or(0, |span| span.column),
            // The runner counts to the last column, not past it.
            end_column: place.map_or(0, |span| span.column + span.width.max(1) - 1),
            message: &message,
        },
    )
}

/// A path as the repository names it. The runner takes a relative one as it is, whatever folder the
/// step was started in.
fn from_root(folder: &Path, path: &Path) -> String {
    let mut whole = PathBuf::new();
    for part in folder.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if whole.file_name().is_some() => {
                whole.pop();
            }
            part => whole.push(part),
        }
    }
    whole.to_string_lossy().into_owned()
}

/// A path with nothing in it that a log viewer could be fooled by.
fn is_plain_file(file: &str) -> bool {
    file.len() <= 500
        && crate::report::text::visible(file) == file
        && !file.contains(crate::report::text::is_line_break)
        && !file.contains("##[")
        && !file.contains("::")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Span;

    fn at(path: &str) -> Span {
        Span {
            path: path.into(),
            line: 14,
            column: 5,
            width: 7,
            excerpt: "    replica: 2".into(),
        }
    }

    #[test]
    fn a_report_points_at_its_line() {
        let report = Report::error("config/unknown-key", "no setting `replica`")
            .at(at("deploy.yml"))
            .label("did you mean `replicas`?")
            .because("it is unknown")
            .fix("rename it");
        assert_eq!(
            command(&report, Path::new(""), &Masker::default()).as_str(),
            "::error title=config/unknown-key,file=deploy.yml,line=14,col=5,endColumn=11::\
             no setting `replica` (did you mean `replicas`?)%0Abecause: it is unknown%0Afix: rename it"
        );
    }

    #[test]
    fn a_step_in_a_folder_names_files_from_the_root() {
        for (folder, path, expected) in [
            ("", "infra.yaml", "infra.yaml"),
            ("", "./a/../infra.yaml", "infra.yaml"),
            ("deploy", "infra.yaml", "deploy/infra.yaml"),
            ("deploy/x", "../../common/db.yaml", "common/db.yaml"),
            ("deploy", "/elsewhere/infra.yaml", "/elsewhere/infra.yaml"),
            ("/outside", "infra.yaml", "/outside/infra.yaml"),
            ("", "../infra.yaml", "../infra.yaml"),
        ] {
            assert_eq!(from_root(Path::new(folder), Path::new(path)), expected);
        }
    }

    #[test]
    fn nothing_sensitive_or_odd_gets_into_the_properties() {
        let masker = Masker::default();
        masker.admit("s", "hunter2-hunter2".into());
        for path in [
            "conf/hunter2-hunter2.yml",
            "a\nb.yml",
            "a::b",
            "x##[error]y",
            "\u{202e}lmy",
        ] {
            let report = Report::error("a/b", "hunter2-hunter2 is wrong").at(at(path));
            assert_eq!(
                command(&report, Path::new(""), &masker).as_str(),
                "::error title=a/b::*** is wrong",
                "{path:?}"
            );
        }
    }

    #[test]
    fn at_most_nine_of_a_level_are_sent_and_the_rest_is_counted() {
        let mut quota = Quota::default();
        let report = Report::error("a/b", "x");
        let sent = (0..14)
            .filter(|_| quota.annotate(&report, &Masker::default()).is_some())
            .count();
        assert_eq!(sent, 9);
        assert!(
            quota
                .annotate(&Report::warning("a/b", "x"), &Masker::default())
                .is_some()
        );
        let rest = quota.rest();
        assert_eq!(rest.len(), 1);
        assert_eq!(
            rest[0].as_str(),
            "::error::and 5 more errors; see the log and the job summary"
        );
        assert!(quota.rest().is_empty(), "said once");
    }
}
