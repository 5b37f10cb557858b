//! The only writer. Every byte to standard output, standard error, the job summary and the step's
//! outputs goes through a [`Ui`], which masks secrets (a streaming filter over every stream),
//! keeps the runner from reading commands in anything but [`crate::actions::command`], and puts
//! mask commands on the stream before the values they hide.
//!
//! Data goes to standard output and nothing else does; words for people go to standard error. So do
//! mask commands, groups and annotations inside GitHub Actions: the runner reads commands on either
//! stream, and whoever takes a command's data (`> file`, `| jq`, `$(…)`) must not get plaintext with
//! it. A mask is written and flushed before its secret can be held by anybody.
//!
//! Deliberately absent: a way to get at the streams, and any output that can panic.

mod problems;
mod stream;

use std::fmt;
use std::io::{self, BufRead, IsTerminal as _, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use zeroize::Zeroizing;

use crate::actions::{Context, command, file, summary};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::face::actions::{Actions, Piece};
use crate::face::terminal::{self, Live};
use crate::face::{FaceKind, Style, Tone, plain};
use crate::random::{Random, hex_of};
use crate::report::text::{Limits, guard_json, lines, neutralise, one_line, visible};
use crate::report::{Event, Report, Reporter};
use crate::secret::Masker;
use crate::secret::mask::Announcer;
use problems::Told;
use stream::Stream;

/// How to speak; complete, decided once by the settings.
#[derive(Clone, Debug)]
pub struct UiOptions {
    /// Which face to wear.
    pub face: FaceKind,
    /// ANSI colours are welcome (never used inside Actions).
    pub colour: bool,
    /// Columns of the terminal.
    pub width: usize,
    /// The job we run in. When there is one, its rules for output hold whatever the face.
    pub actions: Option<Context>,
    /// Say problems only.
    pub quiet: bool,
    /// Say details too.
    pub verbose: bool,
    /// Someone can answer a question: standard input and standard error are terminals.
    pub interactive: bool,
    /// Standard output is a file: no runner reads it, and it gets data to the letter.
    pub stdout_is_file: bool,
}

/// The standard streams, replaceable in tests.
pub struct Writers {
    /// Data.
    pub stdout: Box<dyn Write + Send>,
    /// Words for people.
    pub stderr: Box<dyn Write + Send>,
    /// Answers.
    pub stdin: Box<dyn BufRead + Send>,
}

impl Writers {
    /// The process's own streams.
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is the one owner of the standard streams"
    )]
    pub fn system() -> Self {
        Self {
            stdout: Box::new(io::stdout()),
            stderr: Box::new(io::stderr()),
            stdin: Box::new(io::BufReader::new(io::stdin())),
        }
    }
}

impl fmt::Debug for Writers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writers")
    }
}

/// What the standard streams are connected to; the settings decide from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminals {
    /// Standard input is a terminal.
    pub stdin: bool,
    /// Standard output is a terminal.
    pub stdout: bool,
    /// Standard error is a terminal.
    pub stderr: bool,
    /// Columns of the terminal behind standard error.
    pub columns: Option<usize>,
}

impl Terminals {
    /// Looks at the process's streams.
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is the one owner of the standard streams"
    )]
    pub fn look() -> Self {
        let stderr = io::stderr();
        Self {
            stdin: io::stdin().is_terminal(),
            stdout: io::stdout().is_terminal(),
            stderr: stderr.is_terminal(),
            columns: rustix::termios::tcgetwinsize(&stderr)
                .ok()
                .map(|size| usize::from(size.ws_col))
                .filter(|columns| *columns > 0),
        }
    }
}

/// The only writer; cheap to clone.
#[derive(Clone)]
pub struct Ui {
    inner: Arc<Inner>,
}

struct Inner {
    options: UiOptions,
    stdin: Mutex<Box<dyn BufRead + Send>>,
    is_in_actions: bool,
    /// The runner may read standard output.
    is_data_guarded: bool,
    style: Style,
    masker: Masker,
    random: Arc<dyn Random>,
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
    state: Mutex<State>,
}

struct State {
    /// Standard output: data.
    out: Stream,
    /// Standard error: words for people, and for the runner.
    err: Stream,
    actions: Actions,
    live: Live,
    /// Live lines on the screen.
    drawn: usize,
    /// Something was said: a blank line may come before the next thing.
    has_spoken: bool,
    summary_bytes: usize,
    /// Problems of a run inside Actions that are not in the summary yet.
    told: Told,
}

impl fmt::Debug for Ui {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ui({:?})", self.inner.options.face)
    }
}

impl Ui {
    /// A Ui on the process's own streams. It installs itself as the announcer of `masker`.
    pub fn new(
        options: UiOptions,
        masker: Masker,
        random: Arc<dyn Random>,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
    ) -> Self {
        Self::with_writers(options, Writers::system(), masker, random, clock, disk)
    }

    /// A Ui on the given streams.
    pub fn with_writers(
        options: UiOptions,
        writers: Writers,
        masker: Masker,
        random: Arc<dyn Random>,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
    ) -> Self {
        let is_in_actions = options.actions.is_some() || options.face == FaceKind::Actions;
        // Where we stand, as the repository names it; absolute when that is outside of it.
        let folder = options.actions.as_ref().and_then(|context| {
            let here = disk.canonical(Path::new(".")).ok()?;
            let root = disk.canonical(&context.workspace).ok()?;
            Some(match here.strip_prefix(&root) {
                Ok(inside) => inside.to_path_buf(),
                Err(_) => here,
            })
        });
        let folder = folder.unwrap_or_default();
        let is_data_guarded = is_in_actions && !options.stdout_is_file;
        let inner = Arc::new(Inner {
            is_in_actions,
            is_data_guarded,
            style: Style {
                is_coloured: options.colour && !is_in_actions,
                width: options.width.max(20),
            },
            random,
            clock,
            disk,
            state: Mutex::new(State {
                out: Stream::new(writers.stdout, &masker, is_data_guarded),
                err: Stream::new(writers.stderr, &masker, is_in_actions),
                actions: Actions::in_folder(folder),
                live: Live::default(),
                drawn: 0,
                has_spoken: false,
                summary_bytes: 0,
                told: Told::default(),
            }),
            masker,
            options,
            stdin: Mutex::new(writers.stdin),
        });
        inner.masker.set_announcer(Arc::new(Herald {
            ui: Arc::downgrade(&inner),
        }));
        Self { inner }
    }

    /// How text for people may look; for renderers of [`Event::Block`].
    pub fn style(&self) -> Style {
        self.inner.style
    }

    /// True inside GitHub Actions, where problems become annotations.
    pub fn is_in_actions(&self) -> bool {
        self.inner.is_in_actions
    }

    /// Writes data to standard output, masked. A missing final line feed is added. Where the runner
    /// may read it, no line of it is a command; JSON still says the same.
    pub fn data(&self, text: &str) {
        let mut text = if self.inner.is_data_guarded {
            let text = self.inner.masker.mask(text);
            let harmless = neutralise(&text, Limits::OWN);
            let is_json = || serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            if harmless != text.trim_end_matches('\n') && is_json() {
                guard_json(&text).into_owned()
            } else {
                harmless
            }
        } else {
            text.to_owned()
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        self.inner
            .lock()
            .above_live(&self.inner, |state| state.out.text(&text));
    }

    /// Writes a JSON document to standard output, indented, masked, and still valid JSON.
    pub fn json(&self, value: &serde_json::Value) {
        let mut text = masked_json(value, &self.inner.masker, indented);
        if self.inner.is_data_guarded {
            text = guard_json(&text).into_owned();
        }
        text.push('\n');
        self.inner
            .lock()
            .above_live(&self.inner, |state| state.out.unmasked(&text));
    }

    /// Writes text that holds the secret called `label` to standard output in the clear: the one
    /// way around the filter, for `--show-sensitive` alone. Inside Actions the masks of `plaintexts`
    /// are written once more, on this same stream, so that the runner hides them in the log in
    /// whatever order it reads; a file gets the data alone.
    pub fn reveal(&self, label: &str, text: &str, plaintexts: &[&str]) {
        self.say(Event::Problem(Box::new(Report::warning(
            "output/shown-in-clear",
            format!("`{label}` is shown in the clear, as --show-sensitive asks"),
        ))));
        let mut text = Zeroizing::new(text.to_owned());
        if !text.ends_with('\n') {
            text.push('\n');
        }
        self.inner.lock().above_live(&self.inner, |state| {
            if self.inner.is_data_guarded {
                for plaintext in plaintexts {
                    for mask in self.inner.masker.masks_of(plaintext) {
                        state.out.command(&command::add_mask(&mask));
                    }
                }
            }
            state.out.unmasked(&text);
        });
    }

    /// A detail for whoever looks for trouble: shown with `--verbose`, and inside Actions when
    /// step debugging is on.
    pub fn debug(&self, text: &str) {
        let text = one_line(&self.inner.masker.mask(text), Limits::RELAYED);
        let mut state = self.inner.lock();
        if self.inner.is_in_actions {
            state.err.command(&command::debug(&text));
        } else if self.inner.options.verbose {
            let line = format!("{}\n", self.inner.style.paint(Tone::Faint, &text));
            state.above_live(&self.inner, |state| state.err.text(&line));
        }
    }

    /// Asks at the terminal and returns the answer without its line end; `None` when nobody can
    /// answer, or the input ended.
    ///
    /// # Errors
    /// Standard input cannot be read.
    pub fn prompt(&self, question: &str) -> io::Result<Option<String>> {
        if !self.inner.options.interactive || self.inner.is_in_actions {
            return Ok(None);
        }
        let question = neutralise(&self.inner.masker.mask(question), Limits::FIELD);
        {
            let mut state = self.inner.lock();
            state.erase();
            state.has_spoken = true;
            state.err.text(&format!("{question} "));
        }
        // Whoever waits for an answer must not keep others from speaking.
        let mut answer = String::new();
        let read = self
            .inner
            .stdin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .read_line(&mut answer)?;
        if read == 0 {
            self.inner.lock().err.text("\n");
            return Ok(None);
        }
        Ok(Some(answer.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// Appends Markdown to the job summary, masked. Outside Actions this does nothing. A summary
    /// that cannot be written is a warning, never the end of a run.
    pub fn summary(&self, markdown: &str) {
        let Some(path) = self
            .inner
            .options
            .actions
            .as_ref()
            .and_then(|context| context.summary_file.as_deref())
        else {
            return;
        };
        let mut text = String::new();
        for line in lines(&self.inner.masker.mask(markdown)) {
            text.push_str(&visible(line));
            text.push('\n');
        }
        // A blank line, so that two summaries do not run into each other.
        text.push('\n');
        let mut state = self.inner.lock();
        if state.summary_bytes + text.len() > summary::SUMMARY_BYTES_MAX + 64 * 1024 {
            "\n> [!NOTE]\n> The rest of this summary was left out: GitHub shows 1 MiB per step. The log has everything.\n"
                .clone_into(&mut text);
        }
        match file::append_lines(&*self.inner.disk, path, text.as_bytes()) {
            Ok(()) => state.summary_bytes += text.len(),
            Err(error) => {
                drop(state);
                self.say(Event::Problem(Box::new(
                    Report::warning("actions/summary", "the job summary could not be written")
                        .caused_by(&error),
                )));
            }
        }
    }

    /// A document on one line, with `***` where a secret stands in it.
    pub fn masked(&self, document: &serde_json::Value) -> String {
        masked_json(document, &self.inner.masker, |value| value.to_string())
    }

    /// Sets an output of the step. Outside Actions this does nothing.
    ///
    /// # Errors
    /// A value that holds a secret (`actions/secret-output`: the runner would drop a job output
    /// made of it, and pass it on in the clear inside the job), a bad name, a value that is too
    /// large, or a failed write.
    pub fn output(&self, name: &str, value: &str) -> Result<(), Box<Report>> {
        let Some(path) = self
            .inner
            .options
            .actions
            .as_ref()
            .and_then(|context| context.output_file.as_deref())
        else {
            return Ok(());
        };
        if self.inner.masker.is_sensitive(value) {
            let report = Report::error(
                "actions/secret-output",
                format!("the output `{name}` would hold a secret"),
            )
            .because("step outputs are not masked inside the job, and the runner drops job outputs that hold a secret")
            .fix("hand secrets over through a `github_secret` sink");
            return Err(Box::new(report));
        }
        let random = &*self.inner.random;
        file::append_output(&*self.inner.disk, path, name, value, random)
            .map_err(|error| Box::new(error.report()))
    }

    /// Time went by: the seconds of the live lines move, a log says what still runs. Call it about
    /// once a second.
    pub fn tick(&self) {
        let mut state = self.inner.lock();
        if self.inner.options.face == FaceKind::Actions {
            let now = self.inner.clock.monotonic();
            for piece in state.actions.tick(self.inner.style, now) {
                state.piece(&piece);
            }
        } else if self.inner.is_live() && state.live.is_live() {
            state.above_live(&self.inner, |_| {});
        }
    }

    /// The problems, in the job summary: where the run wrote no page of its own, or more went wrong
    /// than the runner shows annotations for.
    fn summarise_problems(&self) {
        let told = {
            let mut state = self.inner.lock();
            let is_needed =
                state.actions.has_folded() || (state.summary_bytes == 0 && state.told.has_errors());
            if !is_needed || state.told.count() == 0 {
                return;
            }
            std::mem::take(&mut state.told)
        };
        self.summary(&told.page(&self.inner.masker));
    }

    /// Ends the output: the live lines go, groups are closed, what the filters hold is let go, and
    /// the job summary says what went wrong. More may be written afterwards (a panic message); then
    /// call it again.
    ///
    /// # Errors
    /// Something could not be written, other than because the reader went away.
    pub fn finish(&self) -> io::Result<()> {
        self.summarise_problems();
        let mut state = self.inner.lock();
        state.live.clear();
        state.erase();
        if self.inner.is_in_actions {
            for piece in state.actions.finish() {
                state.piece(&piece);
            }
        }
        let out = state.out.finish();
        let err = state.err.finish();
        out.and(err)
    }
}

impl Reporter for Ui {
    fn say(&self, event: Event) {
        let is_problem = matches!(event, Event::Problem(_));
        if self.inner.options.quiet && !is_problem {
            return;
        }
        // Before anything is escaped or cut: a secret with its control characters shown, or with
        // its end cut off, would no longer be recognised.
        let event = mask_event(event, &self.inner.masker);
        let style = self.inner.style;
        let mut state = self.inner.lock();
        if self.inner.options.face == FaceKind::Actions {
            let token = || hex_of::<16>(&*self.inner.random);
            let masker = &self.inner.masker;
            if let Event::Problem(report) = &event {
                state.told.take(report);
            }
            let now = self.inner.clock.monotonic();
            let pieces = state.actions.take(style, &event, masker, now, token);
            for piece in pieces {
                state.piece(&piece);
            }
        } else if self.inner.is_live() {
            let now = self.inner.clock.monotonic();
            let text = state.live.take(style, &event, now);
            let text = state.opening(&text).to_owned();
            state.above_live(&self.inner, |state| state.err.text(&text));
        } else {
            let text = plain::render(style, &event);
            let text = state.opening(&text).to_owned();
            state.err.text(&text);
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_live(&self) -> bool {
        self.options.face == FaceKind::Terminal && !self.is_in_actions
    }
}

impl State {
    fn piece(&mut self, piece: &Piece) {
        match piece {
            Piece::Command(command) => self.err.command(command),
            Piece::Text(text) => self.err.text(text),
        }
    }

    /// The text without its leading blank line when it is the first thing said.
    fn opening<'a>(&mut self, text: &'a str) -> &'a str {
        if std::mem::replace(&mut self.has_spoken, true) {
            text
        } else {
            text.strip_prefix('\n').unwrap_or(text)
        }
    }

    fn erase(&mut self) {
        let sequence = terminal::erase(std::mem::take(&mut self.drawn));
        if !sequence.is_empty() {
            self.err.control(&sequence);
        }
    }

    /// Writes something above the live lines.
    fn above_live(&mut self, inner: &Inner, write: impl FnOnce(&mut Self)) {
        self.erase();
        write(self);
        if inner.is_live() {
            let lines = self.live.lines(inner.style, inner.clock.monotonic());
            if !lines.is_empty() {
                let text = inner.masker.mask(&format!("{}\n", lines.join("\n")));
                self.err.unmasked(&text);
                self.drawn = lines.len();
            }
        }
    }
}

/// Announces masks to the runner; holds the Ui weakly, because the Ui holds the masker.
struct Herald {
    ui: Weak<Inner>,
}

impl Announcer for Herald {
    fn announce(&self, masks: &[Zeroizing<String>]) {
        let Some(inner) = self.ui.upgrade() else {
            return;
        };
        if inner.is_in_actions {
            let mut state = inner.lock();
            for mask in masks {
                state.err.command(&command::add_mask(mask));
            }
        }
    }

    fn warn(&self, report: Report) {
        if let Some(inner) = self.ui.upgrade() {
            Ui { inner }.say(Event::Problem(Box::new(report)));
        }
    }
}

/// The event with every text in it masked.
fn mask_event(mut event: Event, masker: &Masker) -> Event {
    let mask = |text: &mut String| *text = masker.mask(text);
    let mask_address = |address: &mut crate::resource::Address| {
        *address = crate::resource::Address::new(masker.mask(address.as_str()));
    };
    match &mut event {
        Event::Section { title } => mask(title),
        Event::Result { text } | Event::Note { text } | Event::Block { text } => mask(text),
        Event::Relayed { source, text } => {
            mask(source);
            mask(text);
        }
        Event::ActionStarted { address, about, .. } => {
            mask_address(address);
            mask(about);
        }
        Event::ActionFinished {
            address,
            message,
            evidence,
            ..
        } => {
            mask_address(address);
            mask(message);
            evidence.iter_mut().for_each(mask);
        }
        Event::SinkFinished {
            destination,
            name,
            message,
            ..
        } => {
            mask(destination);
            mask(name);
            mask(message);
        }
        Event::ProbeObserved { target, seen, .. } => {
            mask(target);
            mask(seen);
        }
        Event::Problem(report) => {
            mask(&mut report.message);
            mask(&mut report.label);
            report.because.iter_mut().for_each(mask);
            report.fix.iter_mut().for_each(mask);
            if let Some(span) = &mut report.at {
                mask(&mut span.excerpt);
                let path = span.path.to_string_lossy();
                if masker.is_sensitive(&path) {
                    span.path = masker.mask(&path).into();
                }
            }
        }
    }
    event
}

fn indented(value: &serde_json::Value) -> String {
    format!("{value:#}")
}

/// JSON with secrets replaced inside strings, keys and numbers, so that it stays JSON.
fn masked_json(
    value: &serde_json::Value,
    masker: &Masker,
    write: fn(&serde_json::Value) -> String,
) -> String {
    let text = write(&masker.mask_json(value));
    // A secret with quotes and commas in it could still stand across several strings.
    let masked = masker.mask(&text);
    if masked == text || serde_json::from_str::<serde::de::IgnoredAny>(&masked).is_ok() {
        return masked;
    }
    "\"***\"".to_owned()
}

/// From now on a panic is one masked message and advice, not a stack of foreign text. A payload
/// is shown only when the panic was ours; what a library says may hold anything.
pub fn install_panic_hook(ui: Ui) {
    std::panic::set_hook(Box::new(move |info| {
        let place = info
            .location()
            .map(|location| (location.file().to_owned(), location.line()));
        let payload = info
            .payload()
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| info.payload().downcast_ref::<String>().cloned());
        let report = panic_report(place, payload);
        // The panic may have come from inside the writer: then only fixed words are safe.
        if ui.inner.state.try_lock().is_err() {
            #[expect(
                clippy::disallowed_methods,
                reason = "this module is the one owner of the standard streams"
            )]
            let mut stderr = io::stderr();
            drop(stderr.write_all(b"error[tidegate/bug]: Tidegate stopped on a bug of its own\n"));
            return;
        }
        ui.say(Event::Problem(Box::new(report)));
        drop(ui.finish());
    }));
}

/// The message of a panic at `place`.
fn panic_report(place: Option<(String, u32)>, payload: Option<String>) -> Report {
    let mut report = Report::error("tidegate/bug", "Tidegate stopped on a bug of its own")
        .exit(crate::report::Exit::Bug);
    if let Some((file, line)) = place {
        let is_ours = !std::path::Path::new(&file).is_absolute() && file.starts_with("src/");
        report = match payload.filter(|_| is_ours) {
            Some(text) => report.because(format!("{text} ({file}:{line})")),
            None => {
                let name = file.rsplit(['/', '\\']).next().unwrap_or_default();
                report.because(format!("a library failed in {name}:{line}"))
            }
        };
    }
    report
        .fix("run the same command again: what was done is recorded, and nothing is done twice")
        .fix("if it happens again, please report it with the line above (exit code 70)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn masked_json_stays_json() {
        let masker = Masker::default();
        for secret in ["hunter2-hunter2", "12345678", "a\",\n  \"b", "quote\"quote"] {
            masker.admit("s", secret.into());
        }
        for value in [
            json!({"hunter2-hunter2": ["x hunter2-hunter2 y", 12345678, 1.5, null, true]}),
            json!(["a", "b"]),
            json!({"quote\"quote": "a\",\n  \"b"}),
            json!("plain"),
        ] {
            let text = masked_json(&value, &masker, indented);
            let back: serde_json::Value = serde_json::from_str(&text).expect("still JSON");
            for secret in ["hunter2", "12345678", "quote"] {
                assert!(!back.to_string().contains(secret), "{text}");
            }
        }
        assert_eq!(
            masked_json(&json!({"n": 12345678}), &masker, indented),
            "{\n  \"n\": \"***\"\n}"
        );
    }

    #[test]
    fn a_foreign_panic_keeps_its_payload_to_itself() {
        let foreign = panic_report(
            Some(("/home/x/.cargo/registry/lib-1.0/src/parse.rs".into(), 7)),
            Some("bad token hunter2".into()),
        );
        assert_eq!(foreign.because, ["a library failed in parse.rs:7"]);
        let ours = panic_report(
            Some(("src/plan/graph.rs".into(), 9)),
            Some("no root".into()),
        );
        assert_eq!(ours.because, ["no root (src/plan/graph.rs:9)"]);
    }
}
