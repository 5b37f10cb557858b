//! A [`Report`] as text:
//!
//! ```text
//! error[config/unknown-key]: resource `web` has no setting `replica`
//!   --> deploy.yml:14:5
//!    |
//! 14 |     replica: 2
//!    |     ^^^^^^^ did you mean `replicas`?
//!    = because: …
//!    = fix: rename the key
//! ```
//!
//! Drawn by hand: the excerpt is always one line, and the `= because` and `= fix` tail is ours.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar as _;

use super::{Style, Tone};
use crate::report::text::{Limits, neutralise, one_line, visible};
use crate::report::{Report, Severity, Span};

fn heading(severity: Severity) -> (&'static str, Tone) {
    match severity {
        Severity::Error => ("error", Tone::Bad),
        Severity::Warning => ("warning", Tone::Change),
        Severity::Notice => ("note", Tone::Place),
    }
}

/// The whole problem; ends with a line feed.
pub fn render(style: Style, report: &Report) -> String {
    let (word, tone) = heading(report.severity);
    let head = format!("{word}[{}]", report.code);
    let mut out = format!("{}: ", style.paint(tone, &head));
    let message = neutralise(&report.message, Limits::FIELD);
    let mut lines = message.split('\n');
    out.push_str(&style.paint(Tone::Strong, lines.next().unwrap_or_default()));
    out.push('\n');
    for line in lines {
        let _infallible = writeln!(out, "  {line}");
    }
    if let Some(span) = &report.at {
        excerpt(&mut out, style, span, &report.label, tone);
    }
    let gutter = gutter(report);
    for (key, texts) in [("because", &report.because), ("fix", &report.fix)] {
        for text in texts {
            tail(&mut out, style, gutter, key, text);
        }
    }
    out
}

/// Where it is, drawn, without the sentence and without the tail; empty when it is nowhere.
pub fn place(style: Style, report: &Report) -> String {
    let mut out = String::new();
    if let Some(span) = &report.at {
        let (_, tone) = heading(report.severity);
        excerpt(&mut out, style, span, &report.label, tone);
    }
    out
}

/// Width of the line numbers.
fn gutter(report: &Report) -> usize {
    report
        .at
        .as_ref()
        .map_or(1, |span| span.line.to_string().len())
}

fn excerpt(out: &mut String, style: Style, span: &Span, label: &str, tone: Tone) {
    let number = span.line.to_string();
    let blank = " ".repeat(number.len());
    let bar = style.paint(Tone::Place, "|");
    let place = one_line(&span.to_string(), Limits::FIELD);
    let _infallible = writeln!(out, "{blank}{} {place}", style.paint(Tone::Place, "-->"));
    if span.excerpt.trim().is_empty() {
        return;
    }
    // Tabs would shift the carets; what cannot be seen is shown, and shifts them visibly.
    let mut shown = String::new();
    let mut before = 0;
    let mut under = 0;
    let first = span.column_in_excerpt().saturating_sub(1);
    let last = first + (span.width as usize).max(1);
    for (index, character) in span.excerpt.chars().enumerate() {
        let text = match character {
            '\t' => "    ".to_owned(),
            other => visible(other.encode_utf8(&mut [0; 4])).into_owned(),
        };
        let columns: usize = text.chars().filter_map(|c| c.width()).sum();
        if index < first {
            before += columns;
        } else if index < last {
            under += columns;
        }
        shown.push_str(&text);
    }
    let shown = one_line(&shown, Limits::FIELD);
    let carets = style.paint(tone, &"^".repeat(under.max(1))).into_owned();
    let label = one_line(label, Limits::FIELD);
    let label = match label.is_empty() {
        true => String::new(),
        false => format!(" {}", style.paint(tone, &label)),
    };
    let _infallible = writeln!(out, "{blank} {bar}");
    let _infallible = writeln!(
        out,
        "{} {bar} {}",
        style.paint(Tone::Place, &number),
        shown.trim_end()
    );
    let _infallible = writeln!(out, "{blank} {bar} {}{carets}{label}", " ".repeat(before));
}

fn tail(out: &mut String, style: Style, gutter: usize, key: &str, text: &str) {
    let indent = " ".repeat(gutter + 1);
    let text = neutralise(text, Limits::FIELD);
    let mut lines = text.split('\n');
    let tone = if key == "fix" {
        Tone::Good
    } else {
        Tone::Faint
    };
    let key_text = format!("{key}:");
    let _infallible = writeln!(
        out,
        "{indent}{} {} {}",
        style.paint(Tone::Place, "="),
        style.paint(tone, &key_text),
        lines.next().unwrap_or_default()
    );
    let below = " ".repeat(gutter + 1 + 2 + key_text.len() + 1);
    for line in lines {
        let _infallible = writeln!(out, "{below}{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(line: u32, column: u32, width: u32, excerpt: &str) -> Span {
        Span {
            path: "deploy.yml".into(),
            line,
            column,
            width,
            excerpt: excerpt.into(),
        }
    }

    #[test]
    fn a_problem_has_the_documented_shape() {
        let report = Report::error(
            "config/unknown-key",
            "resource `web` has no setting `replica`",
        )
        .at(span(14, 5, 7, "    replica: 2"))
        .label("did you mean `replicas`?")
        .because("only known settings are read")
        .fix("rename the key,\nor remove it");
        assert_eq!(
            render(Style::PLAIN, &report),
            "\
error[config/unknown-key]: resource `web` has no setting `replica`
  --> deploy.yml:14:5
   |
14 |     replica: 2
   |     ^^^^^^^ did you mean `replicas`?
   = because: only known settings are read
   = fix: rename the key,
          or remove it
"
        );
    }

    #[test]
    fn carets_stand_under_wide_characters_and_tabs() {
        let report = Report::warning("a/b", "m").at(span(3, 4, 2, "\t名:前x y"));
        assert_eq!(
            render(Style::PLAIN, &report),
            "warning[a/b]: m\n --> deploy.yml:3:4\n  |\n3 |     名:前x y\n  |        ^^^\n"
        );
    }

    #[test]
    fn a_problem_without_a_place_is_short() {
        let report = Report::error("state/locked", "the state is locked").fix("wait");
        assert_eq!(
            render(Style::PLAIN, &report),
            "error[state/locked]: the state is locked\n  = fix: wait\n"
        );
        assert_eq!(place(Style::PLAIN, &report), "");
    }

    #[test]
    fn hostile_text_stays_harmless_in_every_field() {
        let hostile = "x\r::error::y\u{1b}[2J##[group]";
        let report = Report::error("a/b", hostile)
            .at(span(1, 1, 1, hostile))
            .label(hostile)
            .because(hostile)
            .fix(hostile);
        for line in render(Style::PLAIN, &report).lines() {
            assert!(!line.trim_start().starts_with("::"), "{line:?}");
            assert!(!line.contains("##["), "{line:?}");
            assert!(!line.contains(['\u{1b}', '\r']), "{line:?}");
        }
    }
}
