//! The Actions face: sections are groups, every action has a group of its own, problems are
//! annotations on the line that is wrong, and foreign text is wrapped so that the runner reads no
//! command in it. Nothing ever rewrites a line: the runner would show each carriage return as a
//! new one.
//!
//! The runner cannot nest groups, and actions run beside each other. So what is known of a running
//! action is kept until it ends and written in one go; one that takes long says so meanwhile, and
//! one that failed says why below its group, where nothing is folded away.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::{Style, elapsed, line, problem};
use crate::actions::annotation::Quota;
use crate::actions::command::{self, Command};
use crate::report::text::{Limits, one_line};
use crate::report::{Event, Outcome, Severity};
use crate::resource::ActionKind;
use crate::secret::Masker;

/// How long an action runs before the log says that it still does; then twice as long, and so on.
const PATIENCE: Duration = Duration::from_secs(30);

/// One thing to write, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A command, written as it is.
    Command(Command),
    /// Ordinary lines, guarded and masked when written; each ends with a line feed.
    Text(String),
}

/// What the group that is open holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Group {
    /// None is open.
    #[default]
    None,
    /// A section of the run.
    Section,
    /// What one source said while actions ran.
    Relayed(String),
}

/// An action that runs.
#[derive(Debug)]
struct Running {
    action: ActionKind,
    about: String,
    since: Duration,
    /// When the log says next that it still runs.
    remind_at: Duration,
}

/// What the face remembers between events: of an action no more than its name and a line.
#[derive(Debug, Default)]
pub struct Actions {
    group: Group,
    /// A section that was announced, and nothing was said in it yet.
    heading: Option<String>,
    running: BTreeMap<String, Running>,
    quota: Quota,
}

impl Actions {
    /// For a run that was started in `folder`: as the repository names it, or absolute.
    pub fn in_folder(folder: PathBuf) -> Self {
        Self {
            quota: Quota::in_folder(folder),
            ..Self::default()
        }
    }

    /// The pieces of an event at a moment of the monotonic clock. `token` gives a fresh random one
    /// for stop-commands.
    pub fn take(
        &mut self,
        style: Style,
        event: &Event,
        masker: &Masker,
        now: Duration,
        mut token: impl FnMut() -> String,
    ) -> Vec<Piece> {
        let mut pieces = Vec::new();
        match event {
            Event::Section { title } => {
                self.end_group(&mut pieces);
                self.heading = Some(one_line(&masker.mask(title), Limits::FIELD));
            }
            Event::ActionStarted {
                address,
                action,
                about,
            } => {
                let running = Running {
                    action: *action,
                    about: one_line(about, Limits::FIELD),
                    since: now,
                    remind_at: now + PATIENCE,
                };
                self.running.insert(address.as_str().to_owned(), running);
            }
            Event::ActionFinished {
                address, outcome, ..
            } => {
                self.leave_groups(&mut pieces);
                let running = self.running.remove(address.as_str());
                if *outcome == Outcome::Skipped && running.is_none() {
                    // It has no story to unfold.
                    pieces.push(Piece::Text(line::event(style, event)));
                } else {
                    finished(&mut pieces, style, event, running, &mut token);
                }
            }
            Event::Result { .. } => {
                // The end of the story is for everyone, also for whoever unfolds nothing.
                self.leave_groups(&mut pieces);
                pieces.push(Piece::Text(line::event(style, event)));
            }
            Event::Problem(report) => {
                // A group folds away when the step ends; an error must stay in sight.
                if report.severity == Severity::Error {
                    self.leave_groups(&mut pieces);
                } else {
                    self.enter_section(&mut pieces);
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
                if self.running.is_empty() {
                    self.enter_section(&mut pieces);
                } else {
                    self.enter_relayed(&mut pieces, &one_line(source, Limits::FIELD));
                }
                relayed(&mut pieces, &mut token, line::relayed(style, source, text));
            }
            other => {
                if self.running.is_empty() {
                    self.enter_section(&mut pieces);
                } else {
                    self.leave_groups(&mut pieces);
                }
                pieces.push(Piece::Text(line::event(style, other)));
            }
        }
        pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
        pieces
    }

    /// What is to be said because time went by: actions that run for long.
    pub fn tick(&mut self, style: Style, now: Duration) -> Vec<Piece> {
        let mut text = String::new();
        for (address, running) in &mut self.running {
            if now < running.remind_at {
                continue;
            }
            let took = now.saturating_sub(running.since);
            running.remind_at = now + took;
            let suffix = format!(" … {}\n", elapsed(took));
            text.push_str(&line::started(style, address, running.action, &suffix));
        }
        let mut pieces = Vec::new();
        if !text.is_empty() {
            self.leave_groups(&mut pieces);
            pieces.push(Piece::Text(text));
        }
        pieces
    }

    /// What the end of the run still owes: the open group, the annotations that were folded.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        self.end_group(&mut pieces);
        pieces.extend(self.quota.rest().into_iter().map(Piece::Command));
        pieces
    }

    /// True when more went wrong than there are annotations for.
    pub fn has_folded(&self) -> bool {
        self.quota.has_folded()
    }

    /// Opens the group of a section that was announced.
    fn enter_section(&mut self, pieces: &mut Vec<Piece>) {
        if let Some(title) = self.heading.take() {
            pieces.push(Piece::Command(command::group(&title)));
            self.group = Group::Section;
        }
    }

    /// What one source says while actions run, whose it is cannot be told: a group for each run of
    /// its lines.
    fn enter_relayed(&mut self, pieces: &mut Vec<Piece>, source: &str) {
        if matches!(&self.group, Group::Relayed(open) if open == source) {
            return;
        }
        self.leave_groups(pieces);
        pieces.push(Piece::Command(command::group(&format!("{source} says"))));
        self.group = Group::Relayed(source.to_owned());
    }

    /// From here on nothing is folded. A section nothing was said in keeps its heading.
    fn leave_groups(&mut self, pieces: &mut Vec<Piece>) {
        self.end_group(pieces);
        if let Some(title) = self.heading.take() {
            pieces.push(Piece::Text(format!("{title}\n")));
        }
    }

    fn end_group(&mut self, pieces: &mut Vec<Piece>) {
        if std::mem::take(&mut self.group) != Group::None {
            pieces.push(Piece::Command(command::end_group()));
        }
    }
}

/// The group of an action that ended; below it, in sight, why it failed.
fn finished(
    pieces: &mut Vec<Piece>,
    style: Style,
    event: &Event,
    running: Option<Running>,
    token: &mut impl FnMut() -> String,
) {
    let Event::ActionFinished {
        address,
        outcome,
        evidence,
        ..
    } = event
    else {
        return;
    };
    let text = line::event(style, event);
    let title = text.lines().next().unwrap_or_default().trim_start();
    pieces.push(Piece::Command(command::group(title)));
    if let Some(running) = running {
        let suffix = match running.about.as_str() {
            "" => "\n".to_owned(),
            about => format!(": {about}\n"),
        };
        let start = line::started(style, address.as_str(), running.action, &suffix);
        pieces.push(Piece::Text(start));
    }
    for piece in evidence {
        let text = line::relayed(style, address.as_str(), piece);
        relayed(pieces, token, text);
    }
    if *outcome == Outcome::Success {
        pieces.push(Piece::Text(text));
        pieces.push(Piece::Command(command::end_group()));
    } else {
        pieces.push(Piece::Command(command::end_group()));
        pieces.push(Piece::Text(text));
    }
}

/// Foreign lines, with the runner told to read no command in them.
fn relayed(pieces: &mut Vec<Piece>, token: &mut impl FnMut() -> String, text: String) {
    let token = token();
    pieces.push(Piece::Command(command::stop_commands(&token)));
    pieces.push(Piece::Text(text));
    pieces.push(Piece::Command(command::resume_commands(&token)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;
    use crate::resource::Address;

    /// The log of a run, as lines.
    #[derive(Default)]
    struct Log {
        face: Actions,
        lines: Vec<String>,
    }

    impl Log {
        fn write(&mut self, pieces: Vec<Piece>) {
            for piece in pieces {
                match piece {
                    Piece::Command(command) => self.lines.push(command.as_str().to_owned()),
                    Piece::Text(text) => self.lines.extend(text.lines().map(str::to_owned)),
                }
            }
        }

        fn say(&mut self, seconds: u64, event: &Event) {
            let (masker, now) = (Masker::default(), Duration::from_secs(seconds));
            let token = || "t0ken".to_owned();
            let pieces = self.face.take(Style::PLAIN, event, &masker, now, token);
            self.write(pieces);
        }

        fn start(&mut self, seconds: u64, name: &str) {
            let event = Event::ActionStarted {
                address: Address::new(name),
                action: ActionKind::Create,
                about: "infra.storage by `here`".to_owned(),
            };
            self.say(seconds, &event);
        }

        fn end(&mut self, seconds: u64, name: &str, outcome: Outcome, evidence: &[&str]) {
            let event = Event::ActionFinished {
                address: Address::new(name),
                action: ActionKind::Create,
                outcome,
                elapsed: Duration::from_secs(1),
                message: match outcome {
                    Outcome::Success => String::new(),
                    _ => "no room".to_owned(),
                },
                evidence: evidence.iter().map(|&text| text.to_owned()).collect(),
            };
            self.say(seconds, &event);
        }

        /// The lines that are seen with every group folded.
        fn in_sight(&self) -> Vec<&str> {
            let mut depth = 0;
            let mut seen = Vec::new();
            for line in &self.lines {
                if line.starts_with("::group::") {
                    assert_eq!(depth, 0, "groups cannot nest: {:#?}", self.lines);
                    depth = 1;
                } else if line == "::endgroup::" {
                    assert_eq!(depth, 1, "one group, one end: {:#?}", self.lines);
                    depth = 0;
                } else if depth == 0 {
                    seen.push(line.as_str());
                }
            }
            assert_eq!(depth, 0, "{:#?}", self.lines);
            seen
        }
    }

    fn section(title: &str) -> Event {
        Event::Section {
            title: title.to_owned(),
        }
    }

    #[test]
    fn every_action_has_a_group_and_a_failure_is_in_sight() {
        let mut log = Log::default();
        log.say(0, &section("Apply"));
        log.start(0, "a");
        log.start(0, "b");
        log.end(1, "b", Outcome::Error, &["disk: full\n::error::not ours"]);
        log.end(1, "a", Outcome::Success, &[]);
        log.end(1, "c", Outcome::Skipped, &[]);
        let expected = [
            "Apply",
            "::group::✗ creating b failed  1.0s",
            "  + creating b: infra.storage by `here`",
            "::stop-commands::t0ken",
            "  b │ disk: full",
            "  b │ \\::error::not ours",
            "::t0ken::",
            "::endgroup::",
            "  ✗ creating b failed  1.0s",
            "      no room",
            "::group::✓ created a  1.0s",
            "  + creating a: infra.storage by `here`",
            "  ✓ created a  1.0s",
            "::endgroup::",
            "  · skipped c",
            "      no room",
        ];
        assert_eq!(log.lines, expected);
        assert_eq!(
            log.in_sight(),
            [
                "Apply",
                "  ✗ creating b failed  1.0s",
                "      no room",
                "  · skipped c",
                "      no room",
            ]
        );
    }

    #[test]
    fn two_hundred_actions_are_two_hundred_groups_and_nothing_is_kept_of_them() {
        let mut log = Log::default();
        log.say(0, &section("Apply"));
        for number in 0..200_usize {
            log.start(0, &number.to_string());
            if let Some(earlier) = number.checked_sub(9) {
                log.end(1, &earlier.to_string(), Outcome::Success, &[]);
            }
            assert!(log.face.running.len() <= 10);
        }
        for number in 191..200 {
            log.end(1, &number.to_string(), Outcome::Success, &[]);
        }
        log.say(1, &section("Gate"));
        log.say(1, &Event::Note { text: "x".into() });
        let rest = log.face.finish();
        log.write(rest);
        let groups = log
            .lines
            .iter()
            .filter(|line| line.starts_with("::group::"));
        assert_eq!(groups.count(), 201);
        assert_eq!(log.in_sight(), ["Apply"]);
        assert!(log.face.running.is_empty());
    }

    #[test]
    fn what_takes_long_says_so_and_ever_less_often() {
        let mut log = Log::default();
        log.say(0, &section("Apply"));
        log.start(0, "db");
        for second in 0..=480 {
            let pieces = log.face.tick(Style::PLAIN, Duration::from_secs(second));
            log.write(pieces);
        }
        assert_eq!(
            log.in_sight(),
            [
                "Apply",
                "  + creating db … 30.0s",
                "  + creating db … 1m 00s",
                "  + creating db … 2m 00s",
                "  + creating db … 4m 00s",
                "  + creating db … 8m 00s",
            ]
        );
        log.end(481, "db", Outcome::Success, &[]);
        assert!(
            log.face
                .tick(Style::PLAIN, Duration::from_secs(9_999))
                .is_empty()
        );
    }

    #[test]
    fn what_a_plugin_says_meanwhile_is_folded_and_a_note_is_not() {
        let mut log = Log::default();
        let plugin = |text: &str| Event::Relayed {
            source: "plugin cloud".to_owned(),
            text: text.to_owned(),
        };
        log.say(0, &section("Apply"));
        log.start(0, "a");
        log.say(0, &plugin("one"));
        log.say(0, &plugin("two"));
        log.say(
            0,
            &Event::Note {
                text: "seen".into(),
            },
        );
        log.say(0, &plugin("three"));
        let warning = Report::warning("a/b", "careful");
        log.say(0, &Event::Problem(Box::new(warning)));
        log.end(1, "a", Outcome::Success, &[]);
        assert_eq!(log.in_sight(), ["Apply", "seen"]);
        let groups: Vec<&String> = log
            .lines
            .iter()
            .filter(|line| line.starts_with("::group::"))
            .collect();
        assert_eq!(
            groups,
            [
                "::group::plugin cloud says",
                "::group::plugin cloud says",
                "::group::✓ created a  1.0s",
            ]
        );
    }
}
