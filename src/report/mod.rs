//! Problems and events as values. Every failure has one shape, [`Report`]: what, where, because,
//! fix, and a stable code. Rendering is the faces' business, not ours.

pub mod text;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::resource::{ActionKind, Address};

/// A place in a text file. Lines and columns count from 1; columns count characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The file as the user would name it (relative to where they stand when possible).
    pub path: PathBuf,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// How many characters to underline; at least 1.
    pub width: u32,
    /// The text of that line without its line end, at most [`Span::EXCERPT_MAX`] characters. Of a
    /// longer line that has its place far along, it begins with `…` and
    /// [`Span::EXCERPT_BEFORE`] characters before the place.
    pub excerpt: String,
}

impl Span {
    /// Longest excerpt, in characters.
    pub const EXCERPT_MAX: usize = 200;
    /// Characters shown before a place that lies far along its line.
    pub const EXCERPT_BEFORE: usize = 40;

    /// True when the excerpt begins shortly before the place, not with the line.
    pub fn is_far_along(&self) -> bool {
        self.column as usize > Self::EXCERPT_MAX - Self::EXCERPT_BEFORE
    }

    /// The column of the place within the excerpt, from 1.
    pub fn column_in_excerpt(&self) -> usize {
        if self.is_far_along() {
            Self::EXCERPT_BEFORE + 2
        } else {
            self.column as usize
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Notice,
    /// Probably not what you want.
    Warning,
    /// It failed.
    Error,
}

/// Exit codes: public, never renumbered, documented in `docs/exit-codes.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// Something failed.
    Failed = 1,
    /// Wrong usage or wrong configuration; nothing was touched.
    Usage = 2,
    /// Changes or drift were found, and you asked to be told.
    Changes = 3,
    /// The deploy gate stayed closed.
    GateClosed = 4,
    /// The lock is held, or a saved plan no longer fits.
    Locked = 5,
    /// Applied in part; what was done is recorded.
    Partial = 6,
    /// Something could not be looked at, so nothing can be said about it.
    Unchecked = 7,
    /// A bug in Tidegate.
    Bug = 70,
    /// Stopped by a signal.
    Interrupted = 130,
}

impl Exit {
    /// What `infra plan --detailed-exitcode` ends with when there are changes. Scripts for other
    /// tools expect 2 there, so it shares its number with [`Exit::Usage`]; with that flag every
    /// error is [`Exit::Failed`], so that 2 means one thing.
    pub const PLANNED_CHANGES: Self = Self::Usage;
}

/// One problem, said once.
#[derive(Clone, Debug)]
pub struct Report {
    /// Stable code such as `config/unknown-key`; documented in `docs/errors.md`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What went wrong, one sentence, no final full stop.
    pub message: String,
    /// Where in a file, when there is one.
    pub at: Option<Span>,
    /// A short label under the span (`did you mean …?`); empty for none.
    pub label: String,
    /// Causes, outermost first.
    pub because: Vec<String>,
    /// What the reader can do, most useful first.
    pub fix: Vec<String>,
    /// The exit code this problem asks for when it ends the run.
    pub exit: Exit,
}

impl Report {
    /// An error with the given code and sentence.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            at: None,
            label: String::new(),
            because: Vec::new(),
            fix: Vec::new(),
            exit: Exit::Failed,
        }
    }

    /// A warning with the given code and sentence.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            exit: Exit::Done,
            ..Self::error(code, message)
        }
    }

    /// Adds the place.
    #[must_use]
    pub fn at(mut self, span: Span) -> Self {
        self.at = Some(span);
        self
    }

    /// Adds the place when there is one.
    #[must_use]
    pub fn at_maybe(mut self, span: Option<Span>) -> Self {
        self.at = span.or(self.at);
        self
    }

    /// Adds the label under the span.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Adds a cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.because.push(cause.into());
        self
    }

    /// Adds every cause of an error, outermost first.
    #[must_use]
    pub fn caused_by(mut self, error: &dyn std::error::Error) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let text = error.to_string();
            // Many an error says its own cause already.
            if !(self.because.last()).is_some_and(|last| last.ends_with(&text)) {
                self.because.push(text);
            }
            cause = error.source();
        }
        self
    }

    /// Adds something the reader can do.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix.push(fix.into());
        self
    }

    /// Sets the exit code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }
}

/// How one resource's action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done and recorded.
    Success,
    /// Not done (or done in part; the record says so).
    Error,
    /// The delete failed; the record is kept.
    DeleteFailed,
    /// Not done; what this very action had made is removed again.
    Compensated,
    /// Not done; what this very action had made could not be removed and is left for the next run.
    CompensationFailed,
    /// Not started, because something it needs failed or the run was stopped.
    Skipped,
}

impl Outcome {
    /// True when it was started and did not succeed.
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Success | Self::Skipped)
    }

    /// The word used in JSON and summaries.
    pub fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::DeleteFailed => "delete-failed",
            Self::Compensated => "compensated",
            Self::CompensationFailed => "compensation-failed",
            Self::Skipped => "skipped",
        }
    }
}

/// How a write to a sink ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkOutcome {
    /// Written.
    Written,
    /// Taken out of the destination again.
    Removed,
    /// The destination already holds this value.
    Unchanged,
    /// Failed; the policy of the sink decides what that means for the run.
    Failed,
    /// Not tried.
    Skipped,
}

impl SinkOutcome {
    /// The word used in JSON and summaries.
    pub fn word(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Removed => "removed",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// Something that happened. Faces turn events into text; tests look at the events themselves.
#[derive(Clone, Debug)]
pub enum Event {
    /// A new part of the run (`Apply`, `Sinks`, `Gate`); a group inside Actions.
    Section {
        /// Its heading.
        title: String,
    },
    /// How the whole run ended; stays in sight when parts of the run are folded away.
    Result {
        /// The text; may have several lines.
        text: String,
    },
    /// A line for people.
    Note {
        /// The line.
        text: String,
    },
    /// A problem, at any severity.
    Problem(Box<Report>),
    /// Ready-made text for people, such as a rendered plan; may have several lines.
    Block {
        /// The text.
        text: String,
    },
    /// Text from outside (a provider's log, a server's answer), shown quoted and harmless.
    Relayed {
        /// Where it came from.
        source: String,
        /// What it said.
        text: String,
    },
    /// An action begins.
    ActionStarted {
        /// The resource.
        address: Address,
        /// What is done to it.
        action: ActionKind,
        /// What it is and who does it, in a few words; may be empty.
        about: String,
    },
    /// An action ended.
    ActionFinished {
        /// The resource.
        address: Address,
        /// What was done to it.
        action: ActionKind,
        /// How it ended.
        outcome: Outcome,
        /// How long it took.
        elapsed: Duration,
        /// The error or the reason for skipping; empty on success.
        message: String,
        /// What the provider found out about a failure, a piece each.
        evidence: Vec<String>,
    },
    /// A sink was written (or not).
    SinkFinished {
        /// `<type>` and destination, such as `dotenv .env`.
        destination: String,
        /// The name written there.
        name: String,
        /// How it ended.
        outcome: SinkOutcome,
        /// The error; empty on success.
        message: String,
    },
    /// The gate looked at one target.
    ProbeObserved {
        /// The target, as the config names it.
        target: String,
        /// Which look this was, from 1.
        attempt: u32,
        /// True when the target passed.
        passed: bool,
        /// What was seen, one line, cut to size.
        seen: String,
        /// Since the gate started.
        elapsed: Duration,
    },
}

/// Where events go. Handed down to runners so that they can speak without knowing terminals.
pub trait Reporter: Send + Sync {
    /// Says it.
    fn say(&self, event: Event);

    /// Says a line for people.
    fn note(&self, text: String) {
        self.say(Event::Note { text });
    }
}
