//! From arguments to an exit code: the wiring of the whole program.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};

use super::{Desk, action, run, signals, version_line};
use crate::actions;
use crate::cancel;
use crate::cli::{Cli, Command, GlobalArgs};
use crate::clock::{Clock, SystemClock};
use crate::disk::{Disk, SystemDisk};
use crate::face::FaceKind;
use crate::process::SystemProcesses;
use crate::provider::local;
use crate::random::{Random, SystemRandom};
use crate::report::{Event, Exit, Report, Reporter as _};
use crate::secret::Masker;
use crate::settings::Settings;
use crate::ui::{Ui, UiOptions};

/// Runs the program.
pub fn start(arguments: &[OsString]) -> ExitCode {
    keep_descriptors();
    // Our own helpers in other processes: a supervisor and its shim. They need none of the rest.
    if let Some(code) = helper(arguments.get(1..).unwrap_or_default()) {
        return code;
    }
    let settings = Settings::from_process();
    // After the snapshot: what is hidden from others is hidden from our own /proc look-ups too.
    harden();
    if let [_, word] = arguments
        && is_version(word)
    {
        let (ui, _) = face(&settings, &GlobalArgs::default());
        ui.data(&version_line());
        return end(&ui, Exit::Done);
    }
    let asked = help_asked(arguments);
    let arguments = asked.as_deref().unwrap_or(arguments);
    let is_action = arguments.get(1).is_some_and(|word| word == "action");
    let parsed = if is_action {
        match action::command_line(&settings.variables) {
            Ok(line) => Cli::try_parse_from(line),
            Err(problem) => return refuse_step(&settings, problem),
        }
    } else {
        Cli::try_parse_from(arguments)
    };
    let cli = match parsed {
        Ok(cli) if is_action && matches!(cli.command, Command::Action) => {
            return refuse_step(&settings, action::nested());
        }
        Ok(cli) => cli,
        Err(error) if is_action && error.use_stderr() => {
            return refuse_step(&settings, action::refusal(&error));
        }
        Err(error) => return misuse(&settings, &error, arguments),
    };
    let (ui, masker) = face(&settings, &cli.global);
    if let Command::Completions { shell } = &cli.command {
        let mut script = Vec::new();
        clap_complete::generate(*shell, &mut offered(), "tidegate", &mut script);
        ui.data(&String::from_utf8_lossy(&script));
        return end(&ui, Exit::Done);
    }
    crate::ui::install_panic_hook(ui.clone());
    let built = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(error) => {
            ui.say(Event::Problem(Box::new(
                Report::error("bug/runtime", "the operating system refused an event loop")
                    .because(error.to_string())
                    .fix(
                        "allow more open files (`ulimit -n 1024`) or processes, then run it again",
                    ),
            )));
            return end(&ui, Exit::Failed);
        }
    };
    let (canceller, cancel) = cancel::pair();
    let in_actions = ui.is_in_actions();
    let hangup = !crate::process::ignores_hangup();
    let desk = Desk {
        settings,
        global: cli.global.clone(),
        ui: ui.clone(),
        masker,
        clock: Arc::new(SystemClock::new()),
        random: Arc::new(SystemRandom),
        disk: Arc::new(SystemDisk),
        processes: Arc::new(SystemProcesses::default()),
        cancel,
        document: Mutex::default(),
    };
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(async {
            tokio::select! {
                biased;
                // First, so that signals are caught before anything is touched. It ends with the
                // second signal: leave at once. What was done is recorded; the journal holds what
                // was going on.
                () = signals::watch(&canceller, in_actions, hangup) => Exit::Interrupted,
                // Before the work, which may be over at once when it hears of it.
                () = acknowledge(&desk) => Exit::Bug,
                exit = run(&desk, &cli) => exit,
                () = keep_time(&desk) => Exit::Bug,
            }
        })
    }));
    // A thread that waits for an answer at the terminal, or for a name server, must not hold us.
    runtime.shutdown_background();
    // The hook has said it; state is written with every step, so nothing waits to be flushed.
    let mut exit = ended.unwrap_or(Exit::Bug);
    if is_action {
        exit = action::write_outputs(&desk.ui, desk.document(), exit);
    }
    end(&ui, exit)
}

/// True for the question scripts ask before every run. It has nothing to parse and nothing to wait
/// for, so neither the command line's grammar nor an event loop is made for it.
fn is_version(word: &OsStr) -> bool {
    ["version", "--version", "-V"]
        .iter()
        .any(|way| word == *way)
}

/// The two roles this executable plays below itself: a service's supervisor, and the shim that
/// ties a service to it. Neither is for people, so neither is in the help.
fn helper(arguments: &[OsString]) -> Option<ExitCode> {
    let (command, rest) = arguments.split_first()?;
    match command.to_str()? {
        crate::process::RUN_COMMAND => Some(crate::process::run_shim(rest)),
        local::SUPERVISE_COMMAND => Some(local::supervise(
            rest,
            &SystemDisk,
            &SystemClock::new(),
            &SystemProcesses::default(),
            &Masker::default(),
        )),
        _ => None,
    }
}

/// Lets go of what the filters hold. Output that could not be written makes a good run a failed
/// one: whoever asked for it did not get it.
fn end(ui: &Ui, exit: Exit) -> ExitCode {
    let finished = ui.finish();
    if let Err(error) = &finished {
        // What cannot be said on one stream can perhaps be said on the other.
        ui.say(Event::Problem(Box::new(
            Report::error("cli/output", "the output could not be written")
                .because(error.to_string())
                .fix("make room, or let the output go elsewhere; what was done is done"),
        )));
        drop(ui.finish());
    }
    let exit = match (finished, exit) {
        (Err(_), Exit::Done | Exit::Changes) => Exit::Failed,
        (_, exit) => exit,
    };
    ExitCode::from(exit as u8)
}

/// What whoever started us had open stays between the two of us: no plugin may read it, and no service
/// holds a lock of its for as long as it runs.
fn keep_descriptors() {
    const FIRST_BEYOND_STREAMS: i32 = 3;
    close_fds::CloseFdsBuilder::new().cloexecfrom(FIRST_BEYOND_STREAMS);
}

/// No core dump and no other process of the same user may read what we hold in memory. Best
/// effort: root still can (see SECURITY.md).
fn harden() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, Resource, Rlimit, setrlimit};
        let _best_effort = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
        let _best_effort = setrlimit(
            Resource::Core,
            Rlimit {
                current: Some(0),
                maximum: Some(0),
            },
        );
    }
}

/// Keeps the seconds of live lines moving; never ends.
async fn keep_time(desk: &Desk) {
    loop {
        desk.clock.sleep(Duration::from_secs(1)).await;
        desk.ui.tick();
    }
}

/// Says at once that a signal was seen: what follows may take a moment. Never ends.
async fn acknowledge(desk: &Desk) {
    desk.cancel.cancelled().await;
    desk.ui.say(Event::Note {
        text:
            "Signal seen: nothing new is begun, what is going on has a few seconds. A second one \
               leaves at once."
                .to_owned(),
    });
    std::future::pending().await
}

fn face(settings: &Settings, global: &GlobalArgs) -> (Ui, Masker) {
    let masker = Masker::default();
    let context = actions::Context::from_variables(&settings.variables);
    let kind = if context.is_some() {
        FaceKind::Actions
    } else if settings.stderr_is_terminal
        && !global.quiet
        && settings.variables.get("TERM") != Some("dumb")
    {
        FaceKind::Terminal
    } else {
        FaceKind::Plain
    };
    let ui = Ui::new(
        UiOptions {
            face: kind,
            colour: settings.colour(global.color, settings.stderr_is_terminal),
            width: settings.width,
            actions: context,
            quiet: global.quiet,
            verbose: false,
            interactive: settings.stdin_is_terminal && settings.stderr_is_terminal,
            stdout_is_file: settings.stdout_is_file,
        },
        masker.clone(),
        Arc::new(SystemRandom) as Arc<dyn Random>,
        Arc::new(SystemClock::new()) as Arc<dyn Clock>,
        Arc::new(SystemDisk) as Arc<dyn Disk>,
    );
    (ui, masker)
}

/// The command line without what is not for people.
fn offered() -> clap::Command {
    let all = Cli::command();
    clap::Command::new("tidegate")
        .args(all.get_arguments().cloned())
        .subcommands(
            all.get_subcommands()
                .filter(|command| !command.is_hide_set())
                .cloned(),
        )
        .disable_help_subcommand(true)
        .version(env!("CARGO_PKG_VERSION"))
}

/// `help infra plan`, as many programs take it, in the words that ours has for it.
fn help_asked(arguments: &[OsString]) -> Option<Vec<OsString>> {
    let (program, rest) = arguments.split_first()?;
    let (_, command) = rest.split_first().filter(|(word, _)| *word == "help")?;
    let mut line = vec![program.clone()];
    line.extend(command.iter().cloned());
    line.push("--help".into());
    Some(line)
}

/// What is said of a flag that no command has: the nearest one of the command that was typed. The
/// library's own advice is to pass it as a value, which for a slip of the fingers makes a file of it.
fn misspelt_flag(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let (ErrorKind::UnknownArgument, Some(ContextValue::String(typed))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    else {
        return None;
    };
    let typed = typed.strip_prefix("--")?;
    let mut command = Cli::command();
    command.build();
    let mut command = &command;
    for word in arguments.iter().skip(1) {
        if let Some(inner) = word.to_str().and_then(|word| command.find_subcommand(word)) {
            command = inner;
        }
    }
    command
        .get_arguments()
        .filter_map(|argument| argument.get_long())
        .map(|long| (strsim::damerau_levenshtein(typed, long), long))
        .filter(|(distance, long)| *distance <= (long.len() / 3).max(1))
        .min()
        .map(|(_, long)| format!("--{long}"))
}

/// The whole name of a command that was typed without its first word, and the way to ask for help.
fn elsewhere(error: &clap::Error) -> Option<&'static str> {
    use clap::error::{ContextKind, ContextValue};
    match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) => match word.as_str() {
            "plan" => Some("tidegate infra plan"),
            "apply" => Some("tidegate infra apply"),
            "destroy" => Some("tidegate infra destroy"),
            "outputs" => Some("tidegate infra outputs"),
            "status" => Some("tidegate infra status"),
            "verify" => Some("tidegate deploy verify"),
            "validate" => Some("tidegate config validate"),
            _ => None,
        },
        _ => None,
    }
}

/// A step whose inputs make no command: said, and told to the steps after it.
fn refuse_step(settings: &Settings, problem: Report) -> ExitCode {
    let (ui, _) = face(settings, &GlobalArgs::default());
    let exit = problem.exit;
    let document = serde_json::json!({
        "command": "action",
        "exit_code": exit as u8,
        "failed": true,
        "problems": [super::problem_json(&problem)],
    });
    ui.say(Event::Problem(Box::new(problem)));
    let exit = action::write_outputs(&ui, Some(document), exit);
    end(&ui, exit)
}

/// Help and version are data; a wrong command line is an error with exit code 2.
fn misuse(settings: &Settings, error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    use clap::error::ErrorKind;
    let (ui, _) = face(settings, &GlobalArgs::default());
    let mut text = error.render().to_string();
    if error.kind() == ErrorKind::UnknownArgument {
        let kept = text.lines().filter(|line| !line.contains("tip: to pass "));
        text = kept.map(|line| format!("{line}\n")).collect();
    }
    let better = elsewhere(error).map(str::to_owned);
    if let Some(better) = better.or_else(|| misspelt_flag(error, arguments)) {
        text.push_str(&format!("\nDid you mean `{better}`?\n"));
    }
    let exit = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            ui.data(&text);
            Exit::Done
        }
        _ => {
            ui.say(Event::Block { text });
            Exit::Usage
        }
    };
    end(&ui, exit)
}
