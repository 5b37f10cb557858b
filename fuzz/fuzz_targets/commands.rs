//! Any text in what the runner reads: a command says exactly what was meant, an entry of its files
//! is that one entry, and nothing gets out of its place in a summary.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use tidegate::actions::command::{self, Annotation, Command};
use tidegate::actions::file;
use tidegate::actions::summary::{Piece, Summary};
use tidegate::random::SeededRandom;
use tidegate::report::Severity;
use tidegate::secret::Masker;

/// A command as the runner takes it apart: name, properties, data.
fn take_apart(command: &Command) -> (String, BTreeMap<String, String>, String) {
    let line = command.as_str();
    assert!(!line.contains(['\n', '\r']), "{line:?}");
    let rest = line.strip_prefix("::").unwrap();
    let (head, data) = rest.split_once("::").unwrap();
    let (name, properties) = head.split_once(' ').unwrap_or((head, ""));
    let data = data
        .replace("%0D", "\r")
        .replace("%0A", "\n")
        .replace("%25", "%");
    let properties = properties
        .trim()
        .split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap();
            let value = value.replace("%0D", "\r").replace("%0A", "\n");
            let value = value
                .replace("%3A", ":")
                .replace("%2C", ",")
                .replace("%25", "%");
            (key.to_owned(), value)
        });
    (name.to_owned(), properties.collect(), data)
}

/// A file of entries as the runner reads it.
fn entries(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut lines = text.split_inclusive('\n');
    while let Some(line) = lines.next() {
        let line = line.strip_suffix('\n').unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let (key, delimiter) = line.split_once("<<").unwrap();
        assert!(!key.contains('='));
        let mut value = String::new();
        loop {
            let line = lines.next().unwrap();
            if line.strip_suffix('\n').unwrap_or(line) == delimiter {
                break;
            }
            value.push_str(line);
        }
        value.pop();
        found.push((key.to_owned(), value));
    }
    found
}

/// Prose that can open nothing: what is left of its punctuation is harmless.
fn is_prose(text: &str) -> bool {
    text.chars()
        .all(|character| !character.is_ascii_punctuation() || " ,;/%?\"&#".contains(character))
}

fuzz_target!(|input: (&str, &str, &str, u32)| {
    let (one, two, three, number) = input;
    for made in [
        command::add_mask(one),
        command::group(one),
        command::debug(one),
    ] {
        assert_eq!(take_apart(&made).2, one);
    }
    let annotation = Annotation {
        title: one,
        file: two,
        line: number,
        message: three,
        ..Annotation::default()
    };
    let (name, properties, data) = take_apart(&command::annotate(Severity::Warning, &annotation));
    assert_eq!((name.as_str(), data.as_str()), ("warning", three));
    let property = |key: &str| properties.get(key).map_or("", String::as_str);
    // The runner trims what stands around all properties.
    assert_eq!(
        (property("title").trim(), property("file").trim()),
        (one.trim(), two.trim())
    );
    assert!(
        properties
            .keys()
            .all(|key| ["title", "file", "line"].contains(&key.as_str()))
    );

    let random = SeededRandom::new(1);
    let first = file::entry("first", one, &random);
    let second = file::entry(two, three, &random);
    if let (Ok(first), Ok(second)) = (first, second) {
        let both =
            [("first", one), (two, three)].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(entries(&format!("{}{}", *first, *second)), both);
    }

    let mut summary = Summary::new(&Masker::default());
    summary.section("").paragraph(&[Piece::Text(one)]);
    assert!(is_prose(&summary.render()), "{:?}", summary.render());
    let mut summary = Summary::new(&Masker::default());
    let row = vec![
        vec![Piece::Text(one)],
        vec![Piece::Code(two)],
        vec![Piece::Strong(three)],
    ];
    summary
        .section("")
        .table(&["a", "b", "c"], &[row.clone(), row]);
    let text = summary.render();
    let mut widths: Vec<usize> = text
        .trim_end_matches('\n')
        .split('\n')
        .map(|line| line.matches('|').count())
        .collect();
    widths.dedup();
    assert!(
        widths.len() <= 1 && (text.trim().is_empty() || text.lines().count() == 4),
        "{text:?}"
    );
    let mut summary = Summary::new(&Masker::default());
    summary.section("").code("text", one);
    let text = summary.render();
    let lines: Vec<&str> = text.trim_end_matches('\n').split('\n').collect();
    let (Some(head), Some(end)) = (lines.first(), lines.last()) else {
        panic!("{text:?}");
    };
    assert_eq!(head.strip_suffix("text"), Some(*end));
    for line in &lines[1..lines.len() - 1] {
        assert!(!line.trim_start().starts_with(end), "{text:?}");
        assert!(
            !line.contains(['\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}']),
            "{text:?}"
        );
    }
    let mut summary = Summary::new(&Masker::default());
    summary
        .section(one)
        .list(&[vec![Piece::Code(two)]])
        .details(&[Piece::Text(three)], "text", two);
    for _ in 0..10 {
        summary.section(two).code("text", three);
    }
    let small = 12_000 + usize::try_from(number % 4_096).unwrap();
    assert!(summary.render_within(small).len() <= small);
});
