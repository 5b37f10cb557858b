//! What a gate found, as values: for JSON, for summaries, for the exit code.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::report::{Exit, Report};

/// How a gate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateVerdict {
    /// Every target passed in time.
    Passed,
    /// At least one target used up its retries.
    Failed,
    /// The time was up before every target had passed.
    TimedOut,
    /// Stopped from outside.
    Interrupted,
}

impl GateVerdict {
    /// The word used in JSON and summaries.
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::TimedOut => "timed-out",
            Self::Interrupted => "interrupted",
        }
    }

    /// The exit code a gate asks for.
    pub fn exit(self) -> Exit {
        match self {
            Self::Passed => Exit::Done,
            Self::Failed | Self::TimedOut => Exit::GateClosed,
            Self::Interrupted => Exit::Interrupted,
        }
    }
}

/// What a gate found.
#[derive(Clone, Debug, Serialize)]
pub struct GateReport {
    /// The gate.
    pub name: String,
    /// How it ended.
    pub verdict: GateVerdict,
    /// How long it took.
    #[serde(rename = "elapsed_ms", serialize_with = "milliseconds")]
    pub elapsed: Duration,
    /// Every target, in the order of the config.
    pub targets: Vec<TargetReport>,
}

/// What a gate found about one target.
#[derive(Clone, Debug, Serialize)]
pub struct TargetReport {
    /// The target, as the config names it.
    pub target: String,
    /// The address that was asked, credentials hidden.
    pub url: String,
    /// True when it passed.
    pub passed: bool,
    /// Looks taken.
    pub attempts: u32,
    /// From the start of the gate to the decision.
    #[serde(rename = "elapsed_ms", serialize_with = "milliseconds")]
    pub elapsed: Duration,
    /// The last failed look; `None` when every look passed or none was taken.
    pub last: Option<Evidence>,
}

/// What one failed look saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// One stable word: `status`, `body`, `refused`, `tls`, …
    pub cause: &'static str,
    /// One sentence for people.
    pub message: String,
    /// What should have been seen; empty when no answer came.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expected: String,
    /// What was seen; empty when no answer came.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub seen: String,
    /// Status of the answer, when there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// First characters of the answer's body, secrets hidden. From outside: never trust it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Which look it was, from 1.
    pub attempt: u32,
    /// How many looks in a row, this one included, saw the same.
    pub repeated: u32,
    /// How long that look took.
    #[serde(rename = "took_ms", serialize_with = "milliseconds")]
    pub took: Duration,
}

impl Evidence {
    /// What the answer's body began with, as one line without control characters.
    pub fn excerpt(&self) -> Option<String> {
        let body = self.body.as_deref()?;
        let line = body
            .split(|letter: char| letter.is_whitespace() || letter.is_control())
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        (!line.is_empty()).then_some(line)
    }
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

impl GateReport {
    /// True when every target passed.
    pub fn is_open(&self) -> bool {
        self.verdict == GateVerdict::Passed
    }

    /// The problem to report when the gate stayed closed.
    pub fn problem(&self) -> Option<Report> {
        let waiting: Vec<&TargetReport> = self
            .targets
            .iter()
            .filter(|target| !target.passed)
            .collect();
        let count = format!("{} of {} targets", waiting.len(), self.targets.len());
        let report = match self.verdict {
            GateVerdict::Passed => return None,
            GateVerdict::Failed => Report::error(
                "verify/gate-closed",
                format!("gate `{}` stayed closed: {count} did not pass", self.name),
            ),
            GateVerdict::TimedOut => Report::error(
                "verify/gate-closed",
                format!(
                    "gate `{}` stayed closed: {count} did not pass within {:.0} s",
                    self.name,
                    self.elapsed.as_secs_f64()
                ),
            ),
            GateVerdict::Interrupted => Report::error(
                "verify/interrupted",
                format!(
                    "gate `{}` was interrupted while {count} had not passed",
                    self.name
                ),
            ),
        };
        let report = waiting.into_iter().fold(report, |report, target| {
            let report = report.because(match &target.last {
                Some(last) => format!(
                    "{}: {} (look {} of {})",
                    target.target, last.message, last.attempt, target.attempts
                ),
                None if target.attempts == 0 => {
                    format!("{}: there was no time to look at it", target.target)
                }
                None => format!("{}: not enough passes in a row yet", target.target),
            });
            match target.last.as_ref().and_then(Evidence::excerpt) {
                Some(excerpt) => report.because(format!("{} answered: {excerpt}", target.target)),
                None => report,
            }
        });
        let report = report.exit(self.verdict.exit());
        Some(match self.verdict {
            GateVerdict::Interrupted => report.fix("run the same command again"),
            _ => report.fix(
                "read the log of what was deployed; if it only needs longer, raise `timeout` or `max_retries`",
            ),
        })
    }
}
