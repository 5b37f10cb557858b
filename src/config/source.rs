//! The texts a config is made of, and places in them. A place is twelve bytes while we work; lines,
//! columns and excerpts are computed only for what is shown or kept.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::report::Span;

/// More bytes than an excerpt ever shows of a line.
const EXCERPT_BYTES_MAX: usize = 4 * (Span::EXCERPT_MAX + Span::EXCERPT_BEFORE);

/// What an excerpt shows of what it must not show.
const HIDDEN: &str = "***";

/// A range of bytes in one of the [`Sources`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Mark {
    /// Which source.
    pub(super) source: u16,
    /// First byte.
    pub(super) start: u32,
    /// One past the last byte.
    pub(super) end: u32,
}

/// One file.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    text: Rc<str>,
    line_starts: Vec<u32>,
    /// Ranges that no excerpt shows, in order and apart.
    hidden: Vec<(u32, u32)>,
    /// The place whose column was counted last: start of its line, byte, characters before it. Places
    /// are mostly asked for in order, and a file may be one long line.
    counted: Cell<(usize, usize, usize)>,
}

/// Every file of one config, in the order they were read.
#[derive(Debug, Default)]
pub(super) struct Sources(Vec<Source>);

impl Sources {
    /// Adds a file and answers its number.
    pub(super) fn add(&mut self, path: &Path, text: String) -> u16 {
        let line_starts = line_starts(&text);
        self.0.push(Source {
            path: path.to_path_buf(),
            text: text.into(),
            line_starts,
            hidden: Vec::new(),
            counted: Cell::default(),
        });
        u16::try_from(self.0.len() - 1).unwrap_or(u16::MAX)
    }

    /// The text of a file.
    pub(super) fn text(&self, source: u16) -> &str {
        self.0
            .get(usize::from(source))
            .map_or("", |source| &*source.text)
    }

    /// The text of a file, shared.
    pub(super) fn shared_text(&self, source: u16) -> Rc<str> {
        self.0
            .get(usize::from(source))
            .map_or_else(|| Rc::from(""), |source| Rc::clone(&source.text))
    }

    /// Keeps places out of every excerpt from now on.
    pub(super) fn hide(&mut self, places: &[Mark]) {
        for place in places {
            if let Some(source) = self.0.get_mut(usize::from(place.source)) {
                source.hidden.push((place.start, place.end));
            }
        }
        for source in &mut self.0 {
            source.hidden.sort_unstable();
            source.hidden.dedup_by(|next, before| {
                let touches = next.0 <= before.1;
                if touches {
                    before.1 = before.1.max(next.1);
                }
                touches
            });
        }
    }

    /// Keeps the line at a place out of every excerpt.
    pub(super) fn hide_line(&mut self, at: Mark) {
        let text = self.text(at.source);
        let position = (at.start as usize).min(text.len());
        let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let bytes = text.as_bytes();
        let start = bytes[..position]
            .iter()
            .rposition(is_end)
            .map_or(0, |end| end + 1);
        let end = bytes[position..]
            .iter()
            .position(is_end)
            .map_or(bytes.len(), |length| position + length);
        self.hide(&[Mark {
            source: at.source,
            start: byte(start),
            end: byte(end),
        }]);
    }

    /// Keeps a whole file out of every excerpt.
    pub(super) fn hide_all(&mut self, source: u16) {
        let end = byte(self.text(source).len());
        self.hide(&[Mark {
            source,
            start: 0,
            end,
        }]);
    }

    /// The path of a file.
    pub(super) fn path(&self, source: u16) -> &Path {
        self.0
            .get(usize::from(source))
            .map_or(Path::new(""), |source| source.path.as_path())
    }

    /// The text a mark covers.
    pub(super) fn slice(&self, mark: Mark) -> &str {
        self.text(mark.source)
            .get(mark.start as usize..mark.end as usize)
            .unwrap_or("")
    }

    /// A narrower mark: the first `needle` inside `mark`, or `mark` itself when the text was
    /// written in another form (escapes, folded lines).
    pub(super) fn within(&self, mark: Mark, needle: &str) -> Mark {
        match self.slice(mark).find(needle) {
            Some(offset) if !needle.is_empty() => {
                let start = mark.start + u32::try_from(offset).unwrap_or(0);
                Mark {
                    start,
                    end: start + u32::try_from(needle.len()).unwrap_or(0),
                    ..mark
                }
            }
            _ => mark,
        }
    }

    /// The mark as people read it. A mark over several lines is cut to its first.
    pub(super) fn span(&self, mark: Mark) -> Span {
        let Some(source) = self.0.get(usize::from(mark.source)) else {
            return Span {
                path: PathBuf::new(),
                line: 1,
                column: 1,
                width: 1,
                excerpt: String::new(),
            };
        };
        let mut start = (mark.start as usize).min(source.text.len());
        while !source.text.is_char_boundary(start) {
            start -= 1;
        }
        let line = source
            .line_starts
            .partition_point(|&line_start| line_start as usize <= start);
        let line_start = source
            .line_starts
            .get(line.saturating_sub(1))
            .map_or(0, |&line_start| line_start as usize);
        let line_end = source.line_end(line);
        let column = source.column(line_start, start.min(line_end).max(line_start));
        let mut end = (mark.end as usize).clamp(start, line_end.max(start));
        while !source.text.is_char_boundary(end) {
            end -= 1;
        }
        let width = source.text[start..end].trim_end().chars().count();
        let mut span = Span {
            path: source.path.clone(),
            line: count(line),
            column: count(column + 1),
            width: 1,
            excerpt: String::new(),
        };
        let visible = (Span::EXCERPT_MAX + 1).saturating_sub(span.column_in_excerpt());
        span.width = count(width.clamp(1, visible.max(1)));
        span.excerpt = if span.is_far_along() {
            let before = source.text[line_start..start.min(line_end).max(line_start)]
                .char_indices()
                .rev()
                .nth(Span::EXCERPT_BEFORE - 1);
            let from = before.map_or(line_start, |(offset, _)| line_start + offset);
            match source.excerpt(from, line_end, start) {
                excerpt if excerpt.is_empty() => excerpt,
                excerpt => cut(&format!("…{excerpt}"), Span::EXCERPT_MAX).to_owned(),
            }
        } else {
            source.excerpt(line_start, line_end, start)
        };
        span
    }
}

impl Source {
    /// Where a line ends, counted from 1, without its line end.
    fn line_end(&self, line: usize) -> usize {
        let Some(next) = self.line_starts.get(line) else {
            return self.text.len();
        };
        let text = &self.text[..*next as usize];
        text.strip_suffix("\r\n")
            .or_else(|| text.strip_suffix(['\n', '\r']))
            .map_or(text.len(), str::len)
    }

    /// How many characters stand before a byte of a line.
    fn column(&self, line_start: usize, until: usize) -> usize {
        let (line, from, before) = self.counted.get();
        let (from, before) = if line == line_start && (line_start..=until).contains(&from) {
            (from, before)
        } else {
            (line_start, 0)
        };
        let column = before + self.text[from..until].chars().count();
        self.counted.set((line_start, until, column));
        column
    }

    /// A line, or the rest of one, without what is hidden. Empty when something hidden begins before `start`: what is
    /// left would not stand where the column says.
    fn excerpt(&self, line_start: usize, line_end: usize, start: usize) -> String {
        let mut line_end = line_end.min(line_start + EXCERPT_BYTES_MAX);
        while !self.text.is_char_boundary(line_end) {
            line_end -= 1;
        }
        let first = self
            .hidden
            .partition_point(|(_, end)| *end as usize <= line_start);
        let mut shown = String::new();
        let mut from = line_start;
        for (begin, end) in &self.hidden[first..] {
            let begin = (*begin as usize).max(line_start);
            if begin >= line_end {
                break;
            }
            if begin < start {
                return String::new();
            }
            shown.push_str(self.text.get(from..begin).unwrap_or_default());
            shown.push_str(HIDDEN);
            from = (*end as usize).min(line_end);
        }
        shown.push_str(self.text.get(from..line_end).unwrap_or_default());
        cut(&shown, Span::EXCERPT_MAX).to_owned()
    }
}

/// The first so many characters of a line.
fn cut(line: &str, characters_max: usize) -> &str {
    if line.len() <= characters_max {
        return line;
    }
    let end = line.char_indices().nth(characters_max);
    end.map_or(line, |(end, _)| &line[..end])
}

fn byte(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Byte offsets at which lines start. A lone carriage return ends a line too, as YAML says.
fn line_starts(text: &str) -> Vec<u32> {
    let bytes = text.as_bytes();
    let mut starts = vec![0];
    for position in memchr::memchr2_iter(b'\n', b'\r', bytes) {
        if bytes[position] == b'\r' && bytes.get(position + 1) == Some(&b'\n') {
            continue;
        }
        starts.push(u32::try_from(position + 1).unwrap_or(u32::MAX));
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_lines_columns_and_excerpts() {
        let mut sources = Sources::default();
        let source = sources.add(
            Path::new("a.yaml"),
            "één: twee\r\ndrie: vier\rvijf".to_owned(),
        );
        for (needle, line, column, width) in [
            ("één", 1, 1, 3),
            ("twee", 1, 6, 4),
            ("drie", 2, 1, 4),
            ("vier", 2, 7, 4),
            ("vijf", 3, 1, 4),
        ] {
            let whole = Mark {
                source,
                start: 0,
                end: u32::MAX,
            };
            let whole = Mark {
                end: u32::try_from(sources.text(source).len()).unwrap(),
                ..whole
            };
            let span = sources.span(sources.within(whole, needle));
            assert_eq!(
                (span.line, span.column, span.width),
                (line, column, width),
                "{needle}"
            );
        }
        let past = sources.span(Mark {
            source,
            start: 9_999,
            end: 10_000,
        });
        assert_eq!((past.line, past.width), (3, 1));
    }

    #[test]
    fn long_lines_are_cut() {
        let mut sources = Sources::default();
        let source = sources.add(Path::new("a.yaml"), format!("k: {}", "x".repeat(5_000)));
        let span = sources.span(Mark {
            source,
            start: 3,
            end: 5_003,
        });
        assert_eq!(span.excerpt.chars().count(), 200);
        assert!(span.column + span.width <= 201);
    }

    #[test]
    fn a_place_far_along_a_line_is_shown() {
        let mut sources = Sources::default();
        let head = "é, ".repeat(100_000);
        let source = sources.add(Path::new("a.yaml"), format!("{head}here{head}"));
        let start = u32::try_from(head.len()).unwrap();
        let mark = Mark {
            source,
            start,
            end: start + 4,
        };
        let span = sources.span(mark);
        assert_eq!((span.line, span.column, span.width), (1, 300_001, 4));
        assert_eq!(span.excerpt.chars().count(), 200);
        let at = span.column_in_excerpt() - 1;
        let shown: String = span.excerpt.chars().skip(at).take(4).collect();
        assert_eq!(shown, "here", "{}", span.excerpt);
        assert!(span.excerpt.starts_with('…'));
        // What is hidden stays so: nothing that begins before the place may shift it.
        sources.hide(&[Mark {
            source,
            start: start - 3,
            end: start,
        }]);
        assert_eq!(sources.span(mark).excerpt, "");
        let mut sources = Sources::default();
        let source = sources.add(Path::new("a.yaml"), format!("{}here", "x".repeat(159)));
        let span = sources.span(Mark {
            source,
            start: 159,
            end: 163,
        });
        assert_eq!(span.column_in_excerpt(), 160);
        assert!(span.excerpt.ends_with("xhere") && !span.excerpt.starts_with('…'));
    }
}
