//! `tidegate action`: what the composite action execs. Turns its inputs into an ordinary command
//! line, so that `action.yml` holds no logic, and hands the result back as step outputs.

use std::ffi::OsString;

use crate::report::{Event, Exit, Report, Reporter as _};
use crate::settings::{INPUT_ARGS, INPUT_COMMAND, INPUT_CONFIG, INPUT_ENV};
use crate::ui::Ui;
use crate::variables::Variables;

/// Longest `summary-json`; GitHub allows 1 MB for all outputs of a job together.
const SUMMARY_JSON_BYTES: usize = 256 * 1024;

/// Most lines of a refused command line that are repeated.
const CAUSES_MAX: usize = 6;

/// The command line the inputs ask for, program name included.
pub fn command_line(variables: &Variables) -> Result<Vec<OsString>, Report> {
    let split = |input: &str, text: &str| {
        shlex::split(text).ok_or_else(|| {
            Report::error(
                "action/quoting",
                format!("the input `{input}` has an unfinished quote"),
            )
            .fix("quote it as in a shell; nothing is expanded in it")
            .exit(Exit::Usage)
        })
    };
    let mut words = vec!["tidegate".to_owned()];
    let command = variables.non_empty(INPUT_COMMAND).unwrap_or_default();
    words.extend(match command.trim() {
        "" => vec!["up".to_owned()],
        command => split("command", command)?,
    });
    for (name, flag) in [(INPUT_CONFIG, "--config"), (INPUT_ENV, "--env")] {
        if let Some(value) = variables.non_empty(name) {
            // One word with `=`: a value that starts with a dash stays a value.
            words.push(format!("{flag}={value}"));
        }
    }
    if let Some(text) = variables.non_empty(INPUT_ARGS) {
        words.extend(split("args", text)?);
    }
    Ok(words.into_iter().map(OsString::from).collect())
}

/// A command line that is none: an annotation, as everything else that goes wrong in a step.
pub fn refusal(error: &clap::Error) -> Report {
    let text = error.render().to_string();
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let first = lines.next().unwrap_or_default();
    let report = Report::error(
        "action/arguments",
        format!(
            "the inputs `command` and `args` make no command line: {}",
            first.strip_prefix("error: ").unwrap_or(first)
        ),
    );
    lines
        .take(CAUSES_MAX)
        .fold(report, Report::because)
        .fix("correct `command` (such as `up` or `infra plan`) or `args` of the step")
        .exit(Exit::Usage)
}

/// The action as a command of the action.
pub fn nested() -> Report {
    Report::error(
        "action/arguments",
        "`action` is what the step runs already; it cannot be its `command`",
    )
    .fix("set `command` to what should be done, such as `up`")
    .exit(Exit::Usage)
}

/// Writes the step outputs `changed`, `failed` and `summary-json`. Later steps decide by them, so a
/// run whose outputs cannot be written has failed.
pub fn write_outputs(ui: &Ui, document: Option<serde_json::Value>, exit: Exit) -> Exit {
    let changed = document
        .as_ref()
        .and_then(|document| document["changed"].as_bool())
        .unwrap_or(false);
    // As with `--json`: what is in the document and is a secret stands there as `***`.
    let text = document.map_or_else(|| "{}".to_owned(), |document| ui.masked(&document));
    let text = if text.len() > SUMMARY_JSON_BYTES {
        serde_json::json!({
            "exit_code": exit as u8,
            "changed": changed,
            "failed": is_failure(exit),
            "cut": format!("the full document has {} bytes; the limit is {SUMMARY_JSON_BYTES}", text.len()),
        })
        .to_string()
    } else {
        text
    };
    let mut refused = None;
    for (name, value) in [
        ("changed", word(changed)),
        ("failed", word(is_failure(exit))),
        ("summary-json", text.as_str()),
    ] {
        if let Err(problem) = ui.output(name, value) {
            refused.get_or_insert(problem);
        }
    }
    let Some(problem) = refused else {
        return exit;
    };
    // One cause, said once.
    ui.say(Event::Problem(problem));
    if is_failure(exit) {
        return exit;
    }
    // Of two values the runner takes the later one. Where nothing can be written, nothing is lost.
    drop(ui.output("failed", word(true)));
    Exit::Failed
}

fn is_failure(exit: Exit) -> bool {
    !matches!(exit, Exit::Done | Exit::Changes)
}

fn word(flag: bool) -> &'static str {
    if flag { "true" } else { "false" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pairs: &[(&str, &str)]) -> Result<String, &'static str> {
        let variables: Variables = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        command_line(&variables)
            .map(|words| {
                words
                    .iter()
                    .map(|word| word.to_string_lossy().into_owned())
                    .collect::<Vec<_>>()
                    .join("|")
            })
            .map_err(|report| report.code)
    }

    #[test]
    fn inputs_become_words_and_nothing_is_expanded() {
        assert_eq!(line(&[]), Ok("tidegate|up".to_owned()));
        assert_eq!(
            line(&[
                (INPUT_COMMAND, "infra plan"),
                (INPUT_CONFIG, "a b.yaml"),
                (INPUT_ENV, "--yes"),
                (INPUT_ARGS, "--parallelism 4 '$(id)' \"; echo\""),
            ]),
            Ok(
                "tidegate|infra|plan|--config=a b.yaml|--env=--yes|--parallelism|4|$(id)|; echo"
                    .to_owned()
            )
        );
        assert_eq!(line(&[(INPUT_ARGS, "'open")]), Err("action/quoting"));
    }
}
