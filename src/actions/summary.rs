//! The job summary: GitHub-flavoured Markdown that cannot be turned against its reader.
//!
//! A summary is a phishing surface. Everything that came from outside is masked, then escaped for
//! HTML *and* Markdown, mentions and links included, or stands in a code span long enough for the
//! backticks it holds. The runner refuses a summary above 1 MiB, so ours has a budget: sections
//! are added whole, in order, and what did not fit is named.

use std::fmt::Write as _;

use crate::report::text::{Limits, lines, one_line, visible};
use crate::secret::Masker;

/// Largest summary in bytes; the runner's limit is 1 MiB for the step's whole file.
pub const SUMMARY_BYTES_MAX: usize = 900 * 1024;

/// Kept free for the sentence that says what was cut: ten names, of which every byte may have become
/// a reference with a word joiner.
const NOTICE_BYTES: usize = 10 * 1024;

/// Longest text of one table cell, in bytes.
const CELL: Limits = Limits {
    line_bytes_max: 1_000,
    total_bytes_max: 4_000,
};

/// A summary under construction.
#[derive(Debug)]
pub struct Summary {
    masker: Masker,
    sections: Vec<Section>,
}

/// One part with its heading; cut as a whole, block by block when it is too large alone.
#[derive(Debug)]
pub struct Section {
    masker: Masker,
    title: String,
    blocks: Vec<String>,
}

/// A piece of a table cell, a list item or a paragraph.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// Prose, escaped.
    Text(&'a str),
    /// A name or a value, in a code span.
    Code(&'a str),
    /// Prose in bold, escaped.
    Strong(&'a str),
}

impl Summary {
    /// An empty summary. `masker` knows what must not be shown.
    pub fn new(masker: &Masker) -> Self {
        Self {
            masker: masker.clone(),
            sections: Vec::new(),
        }
    }

    /// Adds a section; an empty title makes one without a heading.
    pub fn section(&mut self, title: &str) -> &mut Section {
        self.sections.push(Section {
            masker: self.masker.clone(),
            title: title.to_owned(),
            blocks: Vec::new(),
        });
        let last = self.sections.len() - 1;
        &mut self.sections[last]
    }

    /// The Markdown, at most [`SUMMARY_BYTES_MAX`] bytes, ending with a line feed.
    pub fn render(&self) -> String {
        self.render_within(SUMMARY_BYTES_MAX)
    }

    /// The same, for a place with another limit.
    pub fn render_within(&self, bytes_max: usize) -> String {
        let budget = bytes_max.saturating_sub(NOTICE_BYTES);
        let mut out = String::new();
        let mut cut: Vec<String> = Vec::new();
        for section in &self.sections {
            let heading = section.heading();
            let whole: usize = section.blocks.iter().map(|block| block.len() + 2).sum();
            if out.len() + heading.len() + whole <= budget {
                out.push_str(&heading);
                for block in &section.blocks {
                    out.push_str(block);
                    out.push_str("\n\n");
                }
                continue;
            }
            // Too large: its first blocks, if the heading and at least one of them fit.
            let mut kept = 0;
            let mut length = out.len() + heading.len();
            for block in &section.blocks {
                length += block.len() + 2;
                if length > budget {
                    break;
                }
                kept += 1;
            }
            let left = section.blocks.len() - kept;
            if kept > 0 {
                out.push_str(&heading);
                for block in &section.blocks[..kept] {
                    out.push_str(block);
                    out.push_str("\n\n");
                }
            }
            let name = if section.title.is_empty() {
                "an untitled section"
            } else {
                &section.title
            };
            cut.push(format!(
                "{} ({left} of {} parts)",
                escape(&one_line(&self.masker.mask(name), CELL_NAME)),
                section.blocks.len()
            ));
        }
        if !cut.is_empty() {
            let more = cut.len().saturating_sub(10);
            cut.truncate(10);
            let _infallible = write!(
                out,
                "> [!NOTE]\n> Cut to stay below GitHub's limit: {}",
                cut.join(", ")
            );
            if more > 0 {
                let _infallible = write!(out, " and {more} more sections");
            }
            out.push_str(". The log has everything.\n\n");
        }
        while out.ends_with("\n\n") {
            out.pop();
        }
        debug_assert!(out.len() <= bytes_max, "the notice fits what is kept free");
        out
    }
}

const CELL_NAME: Limits = Limits {
    line_bytes_max: 60,
    total_bytes_max: 60,
};

impl Section {
    fn heading(&self) -> String {
        if self.title.is_empty() {
            return String::new();
        }
        format!("### {}\n\n", self.text(&self.title))
    }

    fn text(&self, text: &str) -> String {
        escape(&one_line(&self.masker.mask(text), CELL))
    }

    fn pieces(&self, pieces: &[Piece<'_>], in_table: bool) -> String {
        pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => self.text(text),
                Piece::Strong(text) if text.trim().is_empty() => String::new(),
                Piece::Strong(text) => format!("<strong>{}</strong>", self.text(text)),
                Piece::Code(text) => code_span(&one_line(&self.masker.mask(text), CELL), in_table),
            })
            .collect()
    }

    /// A paragraph.
    pub fn paragraph(&mut self, pieces: &[Piece<'_>]) -> &mut Self {
        let block = self.pieces(pieces, false);
        self.blocks.push(block);
        self
    }

    /// A list, one item per element.
    pub fn list(&mut self, items: &[Vec<Piece<'_>>]) -> &mut Self {
        for items in items.chunks(ROWS_PER_BLOCK) {
            let lines: Vec<String> = items
                .iter()
                .map(|item| format!("- {}", self.pieces(item, false)))
                .collect();
            self.blocks.push(lines.join("\n"));
        }
        self
    }

    /// A table. Every row has as many cells as there are headers; missing ones are empty, and a
    /// column with nothing in it is left out.
    pub fn table(&mut self, headers: &[&str], rows: &[Vec<Vec<Piece<'_>>>]) -> &mut Self {
        let columns: Vec<usize> = (0..headers.len())
            .filter(|column| rows.iter().any(|row| !is_blank(row.get(*column))))
            .collect();
        if columns.is_empty() {
            return self;
        }
        let cells: Vec<String> = columns
            .iter()
            .filter_map(|column| headers.get(*column))
            .map(|header| self.text(header))
            .collect();
        let head = format!(
            "| {} |\n|{}",
            cells.join(" | "),
            " --- |".repeat(columns.len())
        );
        for chunk in rows.chunks(ROWS_PER_BLOCK) {
            let mut block = head.clone();
            for row in chunk {
                block.push_str("\n|");
                for column in &columns {
                    let cell = row
                        .get(*column)
                        .map_or_else(String::new, |cell| self.pieces(cell, true));
                    let _infallible = write!(block, " {cell} |");
                }
            }
            self.blocks.push(block);
        }
        self
    }

    /// Text in a fence that nothing in it can close. `language` is ours (`diff`, `text`, `json`).
    pub fn code(&mut self, language: &str, text: &str) -> &mut Self {
        let block = fence(language, &self.masker.mask(text));
        self.blocks.push(block);
        self
    }

    /// A fold with a code block inside.
    pub fn details(&mut self, title: &[Piece<'_>], language: &str, text: &str) -> &mut Self {
        let block = format!(
            "<details><summary>{}</summary>\n\n{}\n\n</details>",
            // Markdown is not read inside `<summary>`.
            title
                .iter()
                .map(|piece| {
                    let (Piece::Text(text) | Piece::Code(text) | Piece::Strong(text)) = piece;
                    let text = self.text(text);
                    match piece {
                        Piece::Text(_) => text,
                        Piece::Code(_) => format!("<code>{text}</code>"),
                        Piece::Strong(_) => format!("<strong>{text}</strong>"),
                    }
                })
                .collect::<String>(),
            fence(language, &self.masker.mask(text))
        );
        self.blocks.push(block);
        self
    }
}

/// Rows of a table or list that are kept or cut together.
const ROWS_PER_BLOCK: usize = 500;

/// True for a cell that shows nothing.
fn is_blank(cell: Option<&Vec<Piece<'_>>>) -> bool {
    cell.is_none_or(|pieces| {
        pieces.iter().all(|piece| {
            let (Piece::Text(text) | Piece::Code(text) | Piece::Strong(text)) = piece;
            text.trim().is_empty()
        })
    })
}

/// Text as prose that Markdown, HTML and GitHub's own filters leave alone. Punctuation becomes a
/// character reference, which can open nothing; a word joiner keeps `@name` and `#12` from being
/// turned into mentions and links after Markdown is done.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '@' => out.push_str("&#64;&#8288;"),
            '#' => out.push_str("&#35;&#8288;"),
            // Harmless anywhere inside a line; left readable for whoever reads the raw text.
            ' ' | ',' | ';' | '/' | '%' | '?' | '"' => out.push(character),
            _ if character.is_ascii_punctuation() => {
                let _infallible = write!(out, "&#{};", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out
}

/// The longest run of backticks.
fn backticks(text: &str) -> usize {
    text.split(|character| character != '`')
        .map(str::len)
        .max()
        .unwrap_or(0)
}

/// A code span sized to its content. Inside a table a pipe must be escaped even there.
fn code_span(text: &str, in_table: bool) -> String {
    if text.trim().is_empty() {
        return String::new();
    }
    if in_table && text.contains('|') {
        // A backslash before the pipe would be taken with it; character references cannot be.
        return format!("<code>{}</code>", escape(text));
    }
    let ticks = "`".repeat(backticks(text) + 1);
    let pad = if text.starts_with(['`', ' ']) || text.ends_with(['`', ' ']) {
        " "
    } else {
        ""
    };
    format!("{ticks}{pad}{text}{pad}{ticks}")
}

fn fence(language: &str, text: &str) -> String {
    let ticks = "`".repeat(backticks(text).max(2) + 1);
    let mut out = format!("{ticks}{language}\n");
    for line in lines(text) {
        out.push_str(&visible(line));
        out.push('\n');
    }
    out.push_str(&ticks);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_opens_nothing() {
        let masker = Masker::default();
        let hostile = "<img src=x> [a](http://evil) **b** `c` | @team #1 www.evil.example\n# h";
        let mut summary = Summary::new(&masker);
        summary
            .section("Plan")
            .paragraph(&[Piece::Text(hostile)])
            .table(&["name"], &[vec![vec![Piece::Code(hostile)]]]);
        let text = summary.render();
        let body = text
            .replace("### Plan", "")
            .replace("| name |\n| --- |\n|", "");
        for forbidden in [
            "<img", "](", "**", "://", "@team", "www.", "#1 ", "\n#", "`c`",
        ] {
            assert!(!body.contains(forbidden), "{forbidden:?} in\n{text}");
        }
    }

    #[test]
    fn code_spans_and_fences_outgrow_their_backticks() {
        assert_eq!(code_span("plain", true), "`plain`");
        assert_eq!(code_span("a `` b", false), "```a `` b```");
        assert_eq!(code_span("`a`", false), "`` `a` ``");
        assert_eq!(code_span("a|b", true), "<code>a&#124;b</code>");
        assert_eq!(code_span("  ", false), "");
        assert_eq!(fence("text", "a\n````\nb"), "`````text\na\n````\nb\n`````");
        assert_eq!(fence("diff", ""), "```diff\n```");
    }

    #[test]
    fn secrets_are_masked_before_they_are_escaped() {
        let masker = Masker::default();
        masker.admit("s", "p_ss*w|rd-1".into());
        let mut summary = Summary::new(&masker);
        summary
            .section("p_ss*w|rd-1")
            .paragraph(&[Piece::Text("is p_ss*w|rd-1"), Piece::Code("p_ss*w|rd-1")])
            .code("text", "p_ss*w|rd-1")
            .details(&[Piece::Code("p_ss*w|rd-1")], "text", "x");
        assert!(!summary.render().contains("ss"), "{}", summary.render());
    }

    #[test]
    fn what_does_not_fit_is_cut_whole_and_named() {
        let masker = Masker::default();
        let mut summary = Summary::new(&masker);
        summary.section("First").paragraph(&[Piece::Text("kept")]);
        summary
            .section("Big")
            .code("text", &"x".repeat(20_000))
            .code("text", "small");
        summary
            .section("Last")
            .paragraph(&[Piece::Text("kept too")]);
        let text = summary.render_within(16_000);
        assert!(text.len() <= 16_000);
        assert!(text.contains("kept\n") && text.contains("kept too"));
        assert!(text.contains("limit: Big (2 of 2 parts)"), "{text}");
        assert!(!text.contains("xxxx"));
        assert_eq!(text.matches("```").count() % 2, 0, "fences are closed");
    }

    #[test]
    fn the_names_of_what_was_cut_fit_and_are_masked() {
        let masker = Masker::default();
        masker.admit("s", "p_ss*w|rd-1".into());
        let mut summary = Summary::new(&masker);
        let big = summary.section("Big");
        for _ in 0..200 {
            big.code("text", &"x".repeat(100));
        }
        let titles = ["p_ss*w|rd-1".to_owned()].into_iter();
        for title in titles.chain((0..10).map(|_| "@#".repeat(40))) {
            summary.section(&title).code("text", &"x".repeat(1_000));
        }
        let text = summary.render_within(16_000);
        assert!(text.len() <= 16_000, "{}", text.len());
        assert!(text.contains("and 2 more sections"), "{text}");
        assert!(!text.contains("ss"), "{text}");
    }
}
