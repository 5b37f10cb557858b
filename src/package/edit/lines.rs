//! Lines of YAML, and which of them an item of a list takes up.

/// The lines of a text.
pub(super) struct Lines<'t> {
    text: &'t str,
    /// What ends them.
    pub(super) newline: &'static str,
}

impl<'t> Lines<'t> {
    /// Those of `text`.
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            newline: if text.contains("\r\n") { "\r\n" } else { "\n" },
        }
    }

    /// Where the line of a place begins.
    pub(super) fn start_of_line(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// One past the line's end mark.
    pub(super) fn end_of_line(&self, at: usize) -> usize {
        self.text[at..]
            .find('\n')
            .map_or(self.text.len(), |newline| at + newline + 1)
    }

    /// The column of the dash that an item begins with; `None` for a list in brackets.
    pub(super) fn dash(&self, item: usize) -> Option<usize> {
        let line = &self.text[self.start_of_line(item)..item];
        let column = line.find('-')?;
        (line.replacen('-', " ", 1).trim().is_empty()).then_some(column)
    }

    /// Where the lines of a list's item end: before the next line that is not indented deeper than
    /// its dash. Blank lines and comments in front of that line are not the item's.
    pub(super) fn item_end(&self, item: usize, dash: usize) -> usize {
        self.block_end(self.end_of_line(item), dash)
    }

    /// From the line at `from`, where the lines indented deeper than `column` end.
    pub(super) fn block_end(&self, from: usize, column: usize) -> usize {
        let mut end = from;
        let mut at = from;
        while at < self.text.len() {
            let next = self.end_of_line(at);
            let line = &self.text[at..next];
            let content = line.trim_start_matches(' ');
            let indent = line.len() - content.len();
            if content.trim().is_empty() {
                at = next;
                continue;
            }
            if indent <= column {
                break;
            }
            end = next;
            at = next;
        }
        end
    }

    /// The whole text, ending in a line's end.
    pub(super) fn closed(&self) -> String {
        let mut text = self.text.to_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push_str(self.newline);
        }
        text
    }

    /// The text with `new`, whole lines, at the beginning of a line.
    pub(super) fn insert(&self, at: usize, new: &str) -> String {
        let mut edited = self.text[..at].to_owned();
        if !edited.is_empty() && !edited.ends_with('\n') {
            edited.push_str(self.newline);
        }
        edited.push_str(new);
        edited.push_str(&self.text[at..]);
        edited
    }
}
