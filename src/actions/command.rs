//! The one encoder of workflow commands (`::name key=value,…::data`).
//!
//! A [`Command`] is the only kind of line that may reach the runner unguarded, and it can be made
//! only here. The runner undoes `%0D`, `%0A` and then `%25` in data, and `%3A`, `%2C` too in
//! properties; anything else would be read literally.

use crate::report::Severity;

/// One complete line for the runner, without its line feed.
#[derive(Clone, PartialEq, Eq)]
pub struct Command(String);

impl Command {
    /// The line.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Shows the name alone: the data of `add-mask` is a secret.
impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.0[2..].split([' ', ':']).next().unwrap_or_default();
        write!(f, "Command({name})")
    }
}

/// An annotation on a file or on the log. The title and the file are shown unmasked by the
/// service: [`super::annotation`] is the only maker, and puts nothing sensitive there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotation<'a> {
    /// A short heading; empty for none.
    pub title: &'a str,
    /// The file, as the repository names it; empty for none.
    pub file: &'a str,
    /// First line, from 1; 0 for none.
    pub line: u32,
    /// Last line, from 1; 0 for the same as `line`.
    pub end_line: u32,
    /// First column, from 1; 0 for none.
    pub column: u32,
    /// Last column, from 1; 0 for none.
    pub end_column: u32,
    /// What is said; line breaks are allowed.
    pub message: &'a str,
}

fn escape_data(data: &str) -> String {
    data.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn escape_property(value: &str) -> String {
    escape_data(value).replace(':', "%3A").replace(',', "%2C")
}

fn plain(name: &str, data: &str) -> Command {
    Command(format!("::{name}::{}", escape_data(data)))
}

/// Hides `value` in every later line of the job. The line itself holds the plaintext.
pub fn add_mask(value: &str) -> Command {
    plain("add-mask", value)
}

/// Starts a group; the runner ends the one before.
pub fn group(title: &str) -> Command {
    plain("group", title)
}

/// Ends the group.
pub fn end_group() -> Command {
    plain("endgroup", "")
}

/// A line shown only when step debugging is on.
pub fn debug(text: &str) -> Command {
    plain("debug", text)
}

/// Stops the runner from reading commands until [`resume_commands`] with the same token.
pub fn stop_commands(token: &str) -> Command {
    plain("stop-commands", token)
}

/// Lets the runner read commands again.
pub fn resume_commands(token: &str) -> Command {
    plain(token, "")
}

/// An annotation at a severity.
pub fn annotate(severity: Severity, annotation: &Annotation<'_>) -> Command {
    let name = match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Notice => "notice",
    };
    let number = |value: u32| {
        if value == 0 {
            String::new()
        } else {
            value.to_string()
        }
    };
    // The order in which the official toolkit writes them.
    let properties: Vec<String> = [
        ("title", annotation.title.to_owned()),
        ("file", annotation.file.to_owned()),
        ("line", number(annotation.line)),
        ("endLine", number(annotation.end_line)),
        ("col", number(annotation.column)),
        ("endColumn", number(annotation.end_column)),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(key, value)| format!("{key}={}", escape_property(&value)))
    .collect();
    let space = if properties.is_empty() { "" } else { " " };
    Command(format!(
        "::{name}{space}{}::{}",
        properties.join(","),
        escape_data(annotation.message)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_and_properties_are_escaped_as_the_runner_undoes_them() {
        assert_eq!(
            add_mask("50%\r\n::x").as_str(),
            "::add-mask::50%25%0D%0A::x"
        );
        assert_eq!(group("a, b: c").as_str(), "::group::a, b: c");
        assert_eq!(end_group().as_str(), "::endgroup::");
        assert_eq!(resume_commands("t0ken").as_str(), "::t0ken::");
        let annotation = Annotation {
            title: "a:b,c%d",
            file: "infra.yaml",
            line: 14,
            column: 5,
            end_column: 12,
            message: "100% of\nlines: 2, 3",
            ..Annotation::default()
        };
        assert_eq!(
            annotate(Severity::Error, &annotation).as_str(),
            "::error title=a%3Ab%2Cc%25d,file=infra.yaml,line=14,col=5,endColumn=12::100%25 of%0Alines: 2, 3"
        );
        assert_eq!(
            annotate(
                Severity::Warning,
                &Annotation {
                    message: "m",
                    ..Annotation::default()
                }
            )
            .as_str(),
            "::warning::m"
        );
    }

    #[test]
    fn a_mask_command_does_not_show_its_secret_in_debug_text() {
        assert_eq!(format!("{:?}", add_mask("hunter2")), "Command(add-mask)");
        assert_eq!(format!("{:?}", group("x")), "Command(group)");
    }
}
