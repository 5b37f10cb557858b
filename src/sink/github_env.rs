//! Variables for the later steps of the job, through the file named by `$GITHUB_ENV`.
//!
//! Every value is a heredoc with a fresh random delimiter, so that no value can add entries of
//! its own; names that would let a value run code in a later step are refused.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Put, Sink, SinkError, SinkTools, refuse_empty};
use crate::actions::file::{append_lines, entry};
use crate::disk::{EntryKind, SharedDisk};
use crate::random::Random;
use crate::report::{Report, Reporter};
use crate::secret::Secret;
use crate::variables::{forbidden_variable, is_variable_name};

/// Linux refuses to start a process whose environment holds a longer string, `NAME=` and the
/// closing zero byte included.
const ENVIRONMENT_STRING_BYTES_MAX: usize = 128 * 1024;

/// The runner's file of environment variables.
pub(super) struct GithubEnv {
    file: Option<PathBuf>,
    disk: SharedDisk,
    random: Arc<dyn Random>,
    reporter: Arc<dyn Reporter>,
}

impl std::fmt::Debug for GithubEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GithubEnv({:?})", self.file)
    }
}

impl GithubEnv {
    pub(super) fn open(tools: &SinkTools) -> Self {
        Self {
            file: tools.variables.non_empty("GITHUB_ENV").map(PathBuf::from),
            disk: Arc::clone(&tools.disk),
            random: Arc::clone(&tools.random),
            reporter: Arc::clone(&tools.reporter),
        }
    }

    fn file(&self) -> Result<&PathBuf, SinkError> {
        self.file.as_ref().ok_or_else(|| SinkError {
            message: "there is no `GITHUB_ENV` file: this is not a step of a GitHub Actions job"
                .to_owned(),
            fix: vec![
                "outside Actions use a `dotenv` sink".to_owned(),
                "to try it out, set `GITHUB_ENV` to the path of an empty file".to_owned(),
            ],
        })
    }
}

fn legal(name: &str) -> Result<(), SinkError> {
    if !is_variable_name(name) {
        return Err(SinkError::new(
            format!(
                "`{}` cannot be the name of an environment variable",
                name.escape_debug()
            ),
            "use letters, digits and `_`, not starting with a digit",
        ));
    }
    if let Some(why) = forbidden_variable(name) {
        return Err(SinkError::new(
            format!("`{name}` cannot be written to `GITHUB_ENV`: {why}"),
            "choose another name, and map it with `env:` in the step that needs it",
        ));
    }
    Ok(())
}

#[async_trait]
impl Sink for GithubEnv {
    fn destination(&self) -> String {
        "github_env $GITHUB_ENV".to_owned()
    }

    fn remembers(&self) -> bool {
        false
    }

    async fn check(&self, names: &[&str]) -> Result<(), SinkError> {
        for name in names {
            legal(name)?;
        }
        let file = self.file()?;
        let unusable = |why: String| {
            SinkError::new(
                format!("the `GITHUB_ENV` file cannot be written: {why}"),
                "run inside a step of the job whose later steps need the value",
            )
        };
        match self.disk.entry(file) {
            Ok(Some(EntryKind::Directory)) => {
                return Err(unusable(format!("`{}` is a directory", file.display())));
            }
            Ok(_) => {}
            Err(error) => return Err(unusable(error.to_string())),
        }
        // Appending nothing changes nothing, and asks for the same permissions.
        self.disk
            .append(file, b"", 0o600, false)
            .map_err(|error| unusable(error.to_string()))
    }

    async fn put(&self, name: &str, value: &Secret) -> Result<Put, SinkError> {
        legal(name)?;
        refuse_empty(name, value)?;
        let file = self.file()?;
        if name.len() + value.len_bytes() + 2 > ENVIRONMENT_STRING_BYTES_MAX {
            self.reporter.say(crate::report::Event::Problem(Box::new(
                Report::warning(
                    "sink/variable-too-long",
                    format!(
                        "`{name}` is {} bytes long: on Linux no later step of this job can start a \
                         process with it in its environment (limit 128 KiB)",
                        value.len_bytes()
                    ),
                )
                .fix("hand it over in a file: use a `dotenv` sink"),
            )));
        }
        let text = entry(name, value.expose(), &*self.random).map_err(|error| {
            SinkError::new(
                error.to_string(),
                "encode it (base64) before it becomes a secret",
            )
        })?;
        append_lines(&*self.disk, file, text.as_bytes())
            .map_err(|error| SinkError::new(error.to_string(), "check the runner's disk"))?;
        Ok(Put::Written)
    }

    /// Nothing to remove: the runner forgets the variable when the job ends.
    async fn remove(&self, _name: &str) -> Result<(), SinkError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;
    use crate::random::SeededRandom;

    /// The runner's reader, from its rules: LF ends a line, the first of `=` and `<<` decides the
    /// shape, a heredoc ends at a line that equals its delimiter.
    fn runner_reads(text: &str) -> Result<Vec<(String, String)>, String> {
        let mut entries = Vec::new();
        let mut lines = text.split_inclusive('\n');
        while let Some(line) = lines.next() {
            let line = line.strip_suffix('\n').unwrap_or(line);
            if line.is_empty() {
                continue;
            }
            let equals = line.find('=').unwrap_or(usize::MAX);
            let heredoc = line.find("<<").unwrap_or(usize::MAX);
            if equals < heredoc {
                entries.push((line[..equals].to_owned(), line[equals + 1..].to_owned()));
                continue;
            }
            if heredoc == usize::MAX {
                return Err(format!("invalid line {line:?}"));
            }
            let (name, delimiter) = (&line[..heredoc], &line[heredoc + 2..]);
            if name.is_empty() || delimiter.is_empty() {
                return Err("empty name or delimiter".to_owned());
            }
            let mut value: Vec<&str> = Vec::new();
            loop {
                let line = lines.next().ok_or("no matching delimiter")?;
                if line.strip_suffix('\n').unwrap_or(line) == delimiter {
                    break;
                }
                value.push(line);
            }
            let value = value.concat();
            entries.push((
                name.to_owned(),
                value.strip_suffix('\n').unwrap_or(&value).to_owned(),
            ));
        }
        Ok(entries)
    }

    proptest! {
        #[test]
        fn the_runner_reads_exactly_what_was_written(
            entries in prop::collection::vec(("[A-Za-z_][A-Za-z0-9_]{0,12}", hostile()), 1..6)
        ) {
            let random = SeededRandom::new(7);
            let text: String = entries
                .iter()
                .map(|(name, value)| entry(name, value, &random).expect("legal").to_string())
                .collect();
            prop_assert_eq!(runner_reads(&text), Ok(entries));
        }
    }

    /// Values made of what the format gives a meaning to.
    fn hostile() -> impl Strategy<Value = String> {
        prop::collection::vec(
            prop_oneof![
                Just("\n".to_owned()),
                Just("\r".to_owned()),
                Just("\r\n".to_owned()),
                Just("PATH=/evil".to_owned()),
                Just("X<<EOF".to_owned()),
                Just("EOF".to_owned()),
                Just("tidegate_".to_owned()),
                Just("=".to_owned()),
                Just("<<".to_owned()),
                Just(" ".to_owned()),
                Just("\u{2028}".to_owned()),
                "\\PC{0,8}",
            ],
            1..12,
        )
        .prop_map(|pieces| pieces.concat())
        .prop_filter("sinks refuse empty values", |value| !value.is_empty())
    }

    #[derive(Debug)]
    struct Scripted(Mutex<VecDeque<u8>>);

    impl Random for Scripted {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0.lock().unwrap().pop_front().unwrap());
        }
    }

    #[test]
    fn a_value_that_holds_the_delimiter_gets_another_one() {
        let first = format!("tidegate_{}", "00".repeat(16));
        let value = format!("a\n{first}\nPATH=/evil");
        let random = Scripted(Mutex::new(VecDeque::from([0, 1])));
        let text = entry("A", &value, &random).expect("legal");
        assert_eq!(runner_reads(&text), Ok(vec![("A".to_owned(), value)]));
        assert!(!text.starts_with(&format!("A<<{first}\n")));
    }

    #[test]
    fn names_that_run_code_or_belong_to_the_runner_are_refused() {
        for bad in [
            "PATH",
            "path",
            "NODE_OPTIONS",
            "Node_Options",
            "LD_PRELOAD",
            "ld_library_path",
            "DYLD_INSERT_LIBRARIES",
            "BASH_ENV",
            "ENV",
            "GITHUB_TOKEN",
            "github_env",
            "RUNNER_TEMP",
            "ACTIONS_RUNTIME_TOKEN",
            "CI",
            "SHELLOPTS",
            "IFS",
            "GIT_CONFIG_COUNT",
            "INPUT_X",
            "",
            "1A",
            "A-B",
            "A B",
            "A=B",
            "A<<B",
            "A\nB",
            "Ä",
        ] {
            assert!(legal(bad).is_err(), "{bad:?}");
        }
        for good in [
            "DATABASE_URL",
            "_",
            "PATHS",
            "MY_PATH",
            "CI_KEY",
            "BUILD_LD_FLAGS",
        ] {
            assert!(legal(good).is_ok(), "{good}");
        }
    }
}
