//! An executable model of how the GitHub runner reads a step: lines, both command grammars,
//! masks with their derived forms, stop-commands, annotation limits, key/value files.
//!
//! Where the real runner's comparisons ignore characters nobody sees, the model ignores *more*
//! than it does: a line the model takes for ordinary is ordinary for the runner, too.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Commands the runner knows, and two it reacts to in form 1.
const NAMES: [&str; 18] = [
    "add-mask",
    "debug",
    "notice",
    "warning",
    "error",
    "group",
    "endgroup",
    "echo",
    "stop-commands",
    "add-matcher",
    "remove-matcher",
    "set-output",
    "save-state",
    "set-env",
    "add-path",
    "internal-set-repo-path",
    "start-action",
    "end-action",
];

/// Annotations kept per step and level.
const ANNOTATIONS_MAX: usize = 10;

/// A summary above this is refused.
pub(crate) const SUMMARY_BYTES_MAX: usize = 1024 * 1024;

/// A command the runner obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) name: String,
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) data: String,
}

/// A step's output being read.
#[derive(Default)]
pub(crate) struct Runner {
    pub(crate) commands: Vec<Command>,
    /// The log, masked as the runner would.
    pub(crate) log: Vec<String>,
    pub(crate) masks: Vec<String>,
    pub(crate) annotations: BTreeMap<String, usize>,
    stopped_by: Option<String>,
    pub(crate) failures: Vec<String>,
}

/// Lines end at LF, CRLF and a lone CR.
pub(crate) fn lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    if lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// Characters a comparison may not see. More than any version of the runner ignores.
fn is_ignorable(character: char) -> bool {
    character.is_control()
        || matches!(u32::from(character),
            0xAD | 0x34F | 0x61C | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x180B..=0x180F
            | 0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x206F | 0x3164 | 0xFE00..=0xFE0F
            | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFB | 0x1BCA0..=0x1BCA3 | 0x1D173..=0x1D17A
            | 0xE0000..=0xE0FFF)
}

fn unescape(text: &str, pairs: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (from, to) in pairs {
        text = text.replace(from, to);
    }
    text.replace("%25", "%")
}

fn properties(text: &str, separator: char, pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    text.split(separator)
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, value)| !key.is_empty() && !value.is_empty())
        .map(|(key, value)| (key.to_lowercase(), unescape(value, pairs)))
        .collect()
}

/// `::name key=value,…::data` at the start of the line.
fn form_2(line: &str) -> Option<Command> {
    let rest = line.trim_start().strip_prefix("::")?;
    let (header, data) = rest.split_once("::")?;
    let (name, list) = header.split_once(' ').unwrap_or((header, ""));
    let data_pairs = [("%0D", "\r"), ("%0A", "\n")];
    let property_pairs = [("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ",")];
    Some(Command {
        name: name.to_lowercase(),
        properties: properties(list, ',', &property_pairs),
        data: unescape(data, &data_pairs),
    })
}

/// `##[name key=value;…]data` anywhere in the line.
fn form_1(line: &str) -> Option<Command> {
    let rest = &line[line.find("##[")? + 3..];
    let (header, data) = rest.split_once(']')?;
    let (name, list) = header.split_once(' ').unwrap_or((header, ""));
    let pairs = [("%3B", ";"), ("%0D", "\r"), ("%0A", "\n"), ("%5D", "]")];
    Some(Command {
        name: name.to_lowercase(),
        properties: properties(list, ';', &pairs),
        data: unescape(data, &pairs),
    })
}

/// The command in a line as the runner finds it, or as it might when it overlooks characters.
fn parse(line: &str, extra_name: Option<&str>) -> Option<Command> {
    let seen: String = line.chars().filter(|c| !is_ignorable(*c)).collect();
    [line, seen.as_str()]
        .into_iter()
        .flat_map(|line| [form_2(line), form_1(line)])
        .flatten()
        .find(|command| {
            NAMES.contains(&command.name.as_str())
                || extra_name.is_some_and(|name| name.eq_ignore_ascii_case(&command.name))
        })
}

/// What one registered value makes the runner look for.
fn derived(value: &str) -> Vec<String> {
    let json = serde_json::to_string(value).unwrap();
    let uri: String = value
        .bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect();
    let xml = value
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&apos;");
    let mut all = vec![
        value.to_owned(),
        STANDARD.encode(value),
        value.replace('"', "\\\""),
        value.replace('\'', "''"),
        json[1..json.len() - 1].to_owned(),
        uri,
        xml,
    ];
    for skipped in 1..=2 {
        if value.len() > skipped {
            all.push(STANDARD.encode(&value.as_bytes()[skipped..]));
        }
    }
    all.retain(|form| !form.is_empty());
    all
}

impl Runner {
    /// Reads a whole stream.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let mut runner = Self::default();
        for line in lines(bytes) {
            runner.line(&line);
        }
        runner
    }

    fn line(&mut self, line: &str) {
        if let Some(token) = self.stopped_by.clone() {
            match parse(line, Some(&token)) {
                Some(command) if command.name == token => self.stopped_by = None,
                _ => self.print(line),
            }
            return;
        }
        let Some(command) = parse(line, None) else {
            self.print(line);
            return;
        };
        match command.name.as_str() {
            "add-mask" => self.add_mask(&command.data),
            "stop-commands" => {
                let token = command.data.to_lowercase();
                if token.is_empty() || NAMES.contains(&token.as_str()) || token == "pause-logging" {
                    self.failures.push(format!("stop token {token:?}"));
                } else {
                    self.stopped_by = Some(token);
                }
            }
            "error" | "warning" | "notice" => {
                *self.annotations.entry(command.name.clone()).or_default() += 1;
                for part in command.data.split('\n') {
                    self.print(&format!("{}: {part}", command.name));
                }
            }
            _ => {}
        }
        self.commands.push(command);
    }

    fn add_mask(&mut self, value: &str) {
        if value.trim().is_empty() {
            self.failures.push("an empty mask".to_owned());
            return;
        }
        let lines = value
            .split(['\r', '\n'])
            .map(str::trim)
            .filter(|line| !line.is_empty());
        for value in std::iter::once(value).chain(lines) {
            self.masks.extend(derived(value));
        }
    }

    fn print(&mut self, line: &str) {
        let masked = self.masked(line);
        self.log.push(masked);
    }

    /// Overlapping and touching hits become one `***`.
    fn masked(&self, line: &str) -> String {
        let mut hidden = vec![false; line.len()];
        for mask in &self.masks {
            for (at, _) in line.match_indices(mask.as_str()) {
                hidden[at..at + mask.len()].fill(true);
            }
        }
        let mut out = String::new();
        let mut was_hidden = false;
        for (at, character) in line.char_indices() {
            match (hidden[at], was_hidden) {
                (false, _) => out.push(character),
                (true, false) => out.push_str("***"),
                (true, true) => {}
            }
            was_hidden = hidden[at];
        }
        out
    }

    /// The commands obeyed, by name.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.commands.iter().map(|c| c.name.as_str()).collect()
    }

    /// Levels with more annotations than the runner keeps.
    pub(crate) fn overflowing(&self) -> Vec<&String> {
        self.annotations
            .iter()
            .filter(|(_, count)| **count > ANNOTATIONS_MAX)
            .map(|(level, _)| level)
            .collect()
    }

    /// True while commands are stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped_by.is_some()
    }
}

/// Reads a key/value file as the runner does on Linux: only LF ends a line.
pub(crate) fn entries(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut entries = Vec::new();
    let mut lines = text
        .strip_prefix('\u{feff}')
        .unwrap_or(text)
        .split('\n')
        .peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let (equals, heredoc) = (line.find('='), line.find("<<"));
        match (equals, heredoc) {
            (Some(at), other) if other.is_none_or(|other| at < other) => {
                entries.push((line[..at].to_owned(), line[at + 1..].to_owned()));
            }
            (_, Some(at)) => {
                let (name, delimiter) = (&line[..at], &line[at + 2..]);
                if name.is_empty() || delimiter.is_empty() {
                    return Err(format!("bad heredoc {line:?}"));
                }
                let mut value = Vec::new();
                loop {
                    match lines.next() {
                        Some(line) if line == delimiter => break,
                        Some(line) => value.push(line),
                        None => return Err(format!("delimiter of `{name}` not found")),
                    }
                }
                entries.push((name.to_owned(), value.join("\n")));
            }
            _ => return Err(format!("neither form: {line:?}")),
        }
    }
    match entries.iter().find(|(name, _)| name.is_empty()) {
        Some(_) => Err("an empty name".to_owned()),
        None => Ok(entries),
    }
}

#[test]
fn the_model_reads_commands_as_documented() {
    for (line, expected) in [
        ("::error::x", Some("error")),
        ("  \u{3000}::ERROR file=a::x", Some("error")),
        ("\u{200b}::error::x", Some("error")),
        ("x ::error::y", None),
        ("::unknown::x", None),
        ("::error:x", None),
        ("a ##[error]b", Some("error")),
        ("a ##[error b", None),
        ("#\u{ad}#[group]b", Some("group")),
        ("##\\[group]b", None),
    ] {
        let found = parse(line, None).map(|command| command.name);
        assert_eq!(found.as_deref(), expected, "{line:?}");
    }
    let command = parse("::error title=a%3Ab,line=3, col=4::x%250A%0Ay::z", None).unwrap();
    assert_eq!(command.data, "x%0A\ny::z");
    assert_eq!(command.properties["title"], "a:b");
    assert!(
        !command.properties.contains_key("col"),
        "blanks belong to the key"
    );
    assert_eq!(lines(b"a\rb\r\nc\nd"), ["a", "b", "c", "d"]);
}

#[test]
fn the_model_masks_and_stops_as_documented() {
    let runner = Runner::read(
        b"abcde\n::add-mask::abcde\nabcde abcdeabcde YWJjZGU= YWJjZGUK\n\
          ::stop-commands::tok123\n::error::no\n::tok123::\n::error::yes\n",
    );
    assert_eq!(
        runner.log,
        ["abcde", "*** *** *** YWJjZGUK", "::error::no", "error: yes"]
    );
    assert_eq!(runner.names(), ["add-mask", "stop-commands", "error"]);
    let runner = Runner::read(b"::add-mask::{%0A  key%0A}\nthe key {}\n");
    assert_eq!(runner.log, ["the *** ***"]);
}

#[test]
fn the_model_reads_key_value_files_as_documented() {
    assert_eq!(
        entries("A=b<<c\n\nB<<E\nx\n\nE\nC =y\n").unwrap(),
        [
            ("A".to_owned(), "b<<c".to_owned()),
            ("B".to_owned(), "x\n".to_owned()),
            ("C ".to_owned(), "y".to_owned())
        ]
    );
    for bad in [
        "A<<E\nx\n",
        "nonsense\n",
        "=x\n",
        "<<E\nE\n",
        "A<<E\r\nx\r\nE\n",
    ] {
        assert!(entries(bad).is_err(), "{bad:?}");
    }
}
