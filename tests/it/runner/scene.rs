//! A writer on recorded streams, and events to put through it.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::actions::Context;
use tidegate::clock::ManualClock;
use tidegate::disk::SystemDisk;
use tidegate::face::FaceKind;
use tidegate::random::SeededRandom;
use tidegate::report::{Event, Outcome, Report, Reporter as _, SinkOutcome, Span};
use tidegate::resource::{ActionKind, Address};
use tidegate::secret::Masker;
use tidegate::ui::{Ui, UiOptions, Writers};

type Writes = Arc<Mutex<Vec<Vec<u8>>>>;

/// Records each write by itself.
struct Recorder(Writes);

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Failing(io::ErrorKind);

impl Write for Failing {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A [`Ui`] and everything it wrote.
pub(super) struct Scene {
    pub(super) ui: Ui,
    pub(super) masker: Masker,
    pub(super) clock: ManualClock,
    out: Writes,
    err: Writes,
    folder: tempfile::TempDir,
}

struct Setup {
    face: FaceKind,
    in_actions: bool,
    colour: bool,
    quiet: bool,
    stdout_is_file: bool,
    answers: Option<&'static str>,
    failure: Option<io::ErrorKind>,
    masker: Masker,
}

impl Setup {
    fn new(face: FaceKind, in_actions: bool) -> Self {
        Self {
            face,
            in_actions,
            colour: false,
            quiet: false,
            stdout_is_file: false,
            answers: None,
            failure: None,
            masker: Masker::default(),
        }
    }

    fn build(self) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let variables = [
            ("GITHUB_ACTIONS", "true".to_owned()),
            ("GITHUB_STEP_SUMMARY", path("summary")),
            ("GITHUB_OUTPUT", path("output")),
        ];
        let context = Context::from_variables(
            &variables
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        );
        let (out, err): (Writes, Writes) = Default::default();
        let writer = |writes: &Writes| -> Box<dyn Write + Send> {
            match self.failure {
                Some(kind) => Box::new(Failing(kind)),
                None => Box::new(Recorder(writes.clone())),
            }
        };
        let clock = ManualClock::new(time::OffsetDateTime::UNIX_EPOCH);
        let ui = Ui::with_writers(
            UiOptions {
                face: self.face,
                colour: self.colour,
                width: 80,
                actions: context.filter(|_| self.in_actions),
                quiet: self.quiet,
                verbose: true,
                interactive: self.answers.is_some(),
                stdout_is_file: self.stdout_is_file,
            },
            Writers {
                stdout: writer(&out),
                stderr: writer(&err),
                stdin: Box::new(self.answers.unwrap_or_default().as_bytes()),
            },
            self.masker.clone(),
            Arc::new(SeededRandom::new(5)),
            Arc::new(clock.clone()),
            Arc::new(SystemDisk),
        );
        Scene {
            ui,
            masker: self.masker,
            clock,
            out,
            err,
            folder,
        }
    }
}

impl Scene {
    pub(super) fn new(face: FaceKind, in_actions: bool) -> Self {
        Setup::new(face, in_actions).build()
    }

    pub(super) fn with_masker(face: FaceKind, in_actions: bool, masker: Masker) -> Self {
        Setup {
            masker,
            ..Setup::new(face, in_actions)
        }
        .build()
    }

    pub(super) fn failing(kind: io::ErrorKind) -> Self {
        Setup {
            failure: Some(kind),
            ..Setup::new(FaceKind::Plain, false)
        }
        .build()
    }

    pub(super) fn asking(answers: &'static str) -> Self {
        Setup {
            quiet: true,
            answers: Some(answers),
            ..Setup::new(FaceKind::Plain, false)
        }
        .build()
    }

    /// Inside Actions, and somebody keeps the data: `tidegate … > file`.
    pub(super) fn into_a_file() -> Self {
        Setup {
            stdout_is_file: true,
            ..Setup::new(FaceKind::Actions, true)
        }
        .build()
    }

    pub(super) fn looking(face: FaceKind, in_actions: bool) -> Self {
        Setup {
            colour: face == FaceKind::Terminal,
            ..Setup::new(face, in_actions)
        }
        .build()
    }

    pub(super) fn writes(&self) -> Vec<Vec<u8>> {
        let mut writes = self.err.lock().unwrap().clone();
        writes.extend(self.out.lock().unwrap().iter().cloned());
        writes
    }

    pub(super) fn stdout_bytes(&self) -> Vec<u8> {
        self.out.lock().unwrap().concat()
    }

    /// What the runner reads: it takes what waits on standard error first.
    pub(super) fn log_bytes(&self) -> Vec<u8> {
        self.writes().concat()
    }

    pub(super) fn stderr(&self) -> String {
        String::from_utf8(self.err.lock().unwrap().concat()).unwrap()
    }

    /// Both streams without the one kind of line that must hold plaintext.
    pub(super) fn without_masks(&self) -> String {
        let text = String::from_utf8(self.log_bytes()).unwrap();
        let kept: Vec<&str> = text
            .split('\n')
            .filter(|line| !line.starts_with("::add-mask::"))
            .collect();
        kept.join("\n")
    }

    pub(super) fn summary_text(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("summary")).unwrap_or_default()
    }

    pub(super) fn output_text(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("output")).unwrap_or_default()
    }
}

/// One event of every kind, every text field filled from `next`.
pub(super) fn every_event(next: &mut dyn FnMut() -> String) -> Vec<Event> {
    let address = |text: String| Address::new(text);
    let name = next();
    let mut events = vec![
        Event::Section { title: next() },
        Event::Note { text: next() },
        Event::Block { text: next() },
        Event::Result { text: next() },
        Event::Relayed {
            source: next(),
            text: next(),
        },
        Event::ActionStarted {
            address: address(name.clone()),
            action: ActionKind::Create,
            about: next(),
        },
        Event::Section { title: next() },
        Event::ActionFinished {
            address: address(name),
            action: ActionKind::Create,
            outcome: Outcome::Error,
            elapsed: Duration::from_secs(3),
            message: next(),
            evidence: vec![next(), next()],
        },
        Event::SinkFinished {
            destination: next(),
            name: next(),
            outcome: SinkOutcome::Failed,
            message: next(),
        },
        Event::ProbeObserved {
            target: next(),
            attempt: 2,
            passed: false,
            seen: next(),
            elapsed: Duration::from_secs(1),
        },
    ];
    for report in [Report::error("a/b", next()), Report::warning("c/d", next())] {
        let path = next().replace('\0', "");
        events.push(Event::Problem(Box::new(
            report
                .at(Span {
                    path: path.into(),
                    line: 3,
                    column: 2,
                    width: 5,
                    excerpt: next(),
                })
                .label(next())
                .because(next())
                .fix(next()),
        )));
    }
    events
}

/// The commands the Actions face means to give for [`every_event`], by name.
pub(super) fn commands_of(events: &[Event]) -> Vec<&'static str> {
    fn close(names: &mut Vec<&'static str>, is_open: &mut bool) {
        if std::mem::take(is_open) {
            names.push("endgroup");
        }
    }
    let mut names = Vec::new();
    let (mut is_open, mut is_announced, mut is_running) = (false, false, false);
    for event in events {
        match event {
            Event::Section { .. } => {
                close(&mut names, &mut is_open);
                is_announced = true;
                continue;
            }
            Event::ActionStarted { .. } => {
                is_running = true;
                continue;
            }
            Event::ActionFinished { evidence, .. } => {
                close(&mut names, &mut is_open);
                is_announced = false;
                is_running = false;
                names.push("group");
                names.extend(evidence.iter().map(|_| "stop-commands"));
                names.push("endgroup");
                continue;
            }
            Event::Problem(report) if report.severity == tidegate::report::Severity::Error => {
                close(&mut names, &mut is_open);
                is_announced = false;
            }
            _ => {}
        }
        if matches!(event, Event::Result { .. }) {
            close(&mut names, &mut is_open);
            is_announced = false;
        } else if is_announced && !is_running {
            is_announced = false;
            is_open = true;
            names.push("group");
        }
        match event {
            Event::Relayed { .. } => names.push("stop-commands"),
            Event::Problem(report) => names.push(match report.severity {
                tidegate::report::Severity::Error => "error",
                tidegate::report::Severity::Warning => "warning",
                tidegate::report::Severity::Notice => "notice",
            }),
            _ => {}
        }
    }
    close(&mut names, &mut is_open);
    names
}

/// Takes out what the terminal face writes to redraw its live lines, byte for byte.
pub(super) fn without_our_own_sequences(text: &str) -> String {
    let mut out = text.to_owned();
    for lines in 1..=13 {
        out = out.replace(&tidegate::face::terminal::erase(lines), "");
    }
    out
}

/// A run as people meet it.
pub(super) fn sample_run(scene: &Scene) {
    let ui = &scene.ui;
    scene
        .masker
        .admit("orders-db.password", "hunter2-hunter2".into());
    let started = |name: &str, action| Event::ActionStarted {
        address: Address::new(name),
        action,
        about: "infra.database by `local`".into(),
    };
    let finished = |name: &str, action, outcome, ms, message: &str| Event::ActionFinished {
        address: Address::new(name),
        action,
        outcome,
        elapsed: Duration::from_millis(ms),
        message: message.into(),
        evidence: Vec::new(),
    };
    ui.say(Event::Section {
        title: "Plan".into(),
    });
    ui.say(Event::Block {
        text: format!(
            "{}\nPlan: 2 to create, 1 to update, 0 to replace, 1 to destroy.",
            tidegate::face::table::render(
                &[],
                &[
                    vec!["  +".into(), "orders-db".into(), "infra.database".into()],
                    vec![
                        "  +".into(),
                        "orders-web".into(),
                        "infra.container_service".into()
                    ],
                    vec!["  ~".into(), "assets".into(), "infra.storage".into()],
                    vec!["  -".into(), "old-cache".into(), "infra.storage".into()],
                ],
            )
        ),
    });
    ui.say(Event::Section {
        title: "Apply".into(),
    });
    ui.say(started("orders-db", ActionKind::Create));
    ui.say(started("assets", ActionKind::Update));
    scene.clock.advance(Duration::from_millis(2_300));
    ui.tick();
    ui.say(finished(
        "assets",
        ActionKind::Update,
        Outcome::Success,
        2_300,
        "",
    ));
    ui.say(finished(
        "orders-db",
        ActionKind::Create,
        Outcome::Success,
        2_310,
        "",
    ));
    ui.say(started("orders-web", ActionKind::Create));
    ui.say(Event::Relayed {
        source: "orders-web".into(),
        text: "listening on 127.0.0.1:8080\n::error::not for the runner\nusing hunter2-hunter2\n"
            .into(),
    });
    ui.say(finished(
        "orders-web",
        ActionKind::Create,
        Outcome::Success,
        640,
        "",
    ));
    ui.say(finished(
        "old-cache",
        ActionKind::Delete,
        Outcome::DeleteFailed,
        87_000,
        "the directory is not empty\nfound 3 files that are not ours",
    ));
    ui.say(Event::Section {
        title: "Sinks".into(),
    });
    for (destination, name, outcome, message) in [
        ("dotenv .env", "DATABASE_URL", SinkOutcome::Written, ""),
        (
            "github_secret acme/app",
            "DB_PASSWORD",
            SinkOutcome::Unchanged,
            "",
        ),
        (
            "github_secret acme/app",
            "API_KEY",
            SinkOutcome::Failed,
            "403: the token may not write secrets",
        ),
    ] {
        ui.say(Event::SinkFinished {
            destination: destination.into(),
            name: name.into(),
            outcome,
            message: message.into(),
        });
    }
    ui.say(Event::Section {
        title: "Gate".into(),
    });
    for (attempt, passed, seen) in [
        (1, false, "connection refused"),
        (3, true, "200 OK, version 1.4.2"),
    ] {
        ui.say(Event::ProbeObserved {
            target: "http://127.0.0.1:8080/healthz".into(),
            attempt,
            passed,
            seen: seen.into(),
            elapsed: Duration::from_millis(u64::from(attempt) * 310),
        });
    }
    ui.say(Event::Problem(Box::new(
        Report::error(
            "config/unknown-key",
            "resource `web` has no setting `replica`",
        )
        .at(Span {
            path: "infra.yaml".into(),
            line: 14,
            column: 5,
            width: 7,
            excerpt: "    replica: 2".into(),
        })
        .label("did you mean `replicas`?")
        .because("only the settings in the schema are read")
        .fix("rename the key, or run `tidegate config schema` for the full list"),
    )));
    ui.data("DATABASE_URL=postgres://app:hunter2-hunter2@localhost/orders");
    let mut summary = tidegate::actions::Summary::new(&scene.masker);
    use tidegate::actions::summary::Piece::{Code, Strong, Text};
    summary
        .section("Tidegate: applied in part")
        .paragraph(&[
            Strong("3 of 4"),
            Text(" actions done. Next: "),
            Code("tidegate up --env dev"),
        ])
        .table(
            &["", "Resource", "Type", "Result"],
            &[
                vec![
                    vec![Text("✓")],
                    vec![Code("orders-db")],
                    vec![Code("infra.database")],
                    vec![Text("created")],
                ],
                vec![
                    vec![Text("✗")],
                    vec![Code("old-cache")],
                    vec![Code("infra.storage")],
                    vec![Text("deleting failed")],
                ],
            ],
        )
        .details(
            &[Text("Log of "), Code("orders-web")],
            "text",
            "listening\nusing hunter2-hunter2",
        );
    ui.summary(&summary.render());
    ui.finish().unwrap();
}
