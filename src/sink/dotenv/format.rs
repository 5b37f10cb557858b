//! The text of a dotenv file. Pure.
//!
//! One form is chosen per value so that three kinds of reader agree on it wherever they can: a
//! shell (`set -a; . ./.env`), Node's `dotenv`, and `python-dotenv`.
//!
//! | value | form | read alike by |
//! |---|---|---|
//! | no `'`, and nothing from the last row | `NAME='value'`, line breaks included | all |
//! | `'` but none of `"` `\` `$` `` ` `` | `NAME="value"` | all |
//! | `'` together with those; `\` doubled or last; `${`; a carriage return | `NAME='it'\''s'` | shells |

use zeroize::Zeroizing;

/// Who reads a form as the value that was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    /// Shells and the common dotenv libraries.
    All,
    /// Shells; libraries see something else.
    ShellOnly,
}

/// `NAME=…` in its form, with the closing line feed, and who can read it.
pub(super) fn entry(name: &str, value: &str) -> (Zeroizing<String>, Readers) {
    let quote = value.contains('\'');
    // What some library treats specially even between single quotes: python-dotenv folds `\\` and
    // fills in `${`, every library takes `\'` for a quote that goes on, and both libraries turn
    // carriage returns into line feeds.
    let touchy = value.contains("\\\\")
        || value.ends_with('\\')
        || value.contains("${")
        || value.contains('\r');
    let (text, readers) = if quote && !touchy && !value.contains(['"', '\\', '$', '`']) {
        (format!("{name}=\"{value}\"\n"), Readers::All)
    } else {
        let readers = if quote || touchy {
            Readers::ShellOnly
        } else {
            Readers::All
        };
        // Between single quotes a shell changes nothing; a single quote itself steps outside.
        let inside = Zeroizing::new(value.replace('\'', "'\\''"));
        (format!("{name}='{}'\n", *inside), readers)
    };
    (Zeroizing::new(text), readers)
}

/// A dotenv file as pieces that together are exactly its bytes.
#[derive(Default)]
pub(super) struct File {
    pieces: Vec<Piece>,
}

struct Piece {
    /// The variable it sets; `None` for comments, blank lines and whatever else.
    name: Option<String>,
    bytes: Zeroizing<Vec<u8>>,
}

impl File {
    /// Takes a file apart. Never fails: what is not an assignment is kept as it is.
    pub(super) fn parse(bytes: Zeroizing<Vec<u8>>) -> Self {
        let mut pieces = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (name, length) = assignment(rest).map_or_else(
                || (None, line_length(rest)),
                |(name, length)| (Some(name), length),
            );
            let (piece, after) = rest.split_at(length);
            pieces.push(Piece {
                name,
                bytes: Zeroizing::new(piece.to_vec()),
            });
            rest = after;
        }
        Self { pieces }
    }

    /// The file's bytes.
    pub(super) fn bytes(&self) -> Zeroizing<Vec<u8>> {
        let length = self.pieces.iter().map(|piece| piece.bytes.len()).sum();
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        for piece in &self.pieces {
            bytes.extend_from_slice(&piece.bytes);
        }
        bytes
    }

    /// Makes `line` the one assignment of `name`: in the place of the last one (which is the one
    /// readers obey), or at the end. An `export` before the name stays. Answers whether anything
    /// changed.
    pub(super) fn set(&mut self, name: &str, line: &str) -> bool {
        let places: Vec<usize> = self.places(name);
        let Some((last, earlier)) = places.split_last() else {
            if let Some(piece) = self.pieces.last_mut()
                && piece.bytes.last() != Some(&b'\n')
            {
                piece.bytes.push(b'\n');
            }
            self.pieces.push(Piece {
                name: Some(name.to_owned()),
                bytes: Zeroizing::new(line.as_bytes().to_vec()),
            });
            return true;
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(b"export ".len() + line.len()));
        if is_exported(&self.pieces[*last].bytes) {
            bytes.extend_from_slice(b"export ");
        }
        bytes.extend_from_slice(line.as_bytes());
        if earlier.is_empty() && self.pieces[*last].bytes == bytes {
            return false;
        }
        self.pieces[*last].bytes = bytes;
        for place in earlier.iter().rev() {
            self.pieces.remove(*place);
        }
        true
    }

    /// Every value that `name` is given, in the file's order; `None` for one that is written in a
    /// way Tidegate does not read.
    pub(super) fn values(&self, name: &str) -> Vec<Option<Zeroizing<String>>> {
        self.places(name)
            .into_iter()
            .map(|place| value(&self.pieces[place].bytes))
            .collect()
    }

    /// Takes every assignment of `name` out. Answers whether there was one.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let before = self.pieces.len();
        self.pieces
            .retain(|piece| piece.name.as_deref() != Some(name));
        self.pieces.len() != before
    }

    /// True when nothing but white space is left.
    pub(super) fn is_blank(&self) -> bool {
        self.pieces
            .iter()
            .all(|piece| piece.bytes.iter().all(u8::is_ascii_whitespace))
    }

    fn places(&self, name: &str) -> Vec<usize> {
        self.pieces
            .iter()
            .enumerate()
            .filter(|(_, piece)| piece.name.as_deref() == Some(name))
            .map(|(index, _)| index)
            .collect()
    }
}

fn is_exported(assignment: &[u8]) -> bool {
    let blanks = assignment
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count();
    let start = &assignment[blanks..];
    start.starts_with(b"export ") || start.starts_with(b"export\t")
}

/// What a shell reads from one assignment, without expansion; `None` for text that asks for one.
fn value(assignment: &[u8]) -> Option<Zeroizing<String>> {
    let equals = memchr::memchr(b'=', assignment)?;
    let mut rest = assignment[equals + 1..].trim_ascii_start().iter();
    let mut bytes = Zeroizing::new(Vec::with_capacity(assignment.len()));
    while let Some(byte) = rest.next() {
        match byte {
            b'\'' => loop {
                match rest.next()? {
                    b'\'' => break,
                    byte => bytes.push(*byte),
                }
            },
            b'"' => loop {
                match rest.next()? {
                    b'"' => break,
                    b'\\' => bytes.push(*rest.next()?),
                    b'$' | b'`' => return None,
                    byte => bytes.push(*byte),
                }
            },
            b'\\' => bytes.push(*rest.next()?),
            b'$' | b'`' => return None,
            byte if byte.is_ascii_whitespace() => break,
            byte => bytes.push(*byte),
        }
    }
    let text = std::str::from_utf8(&bytes).ok()?;
    Some(Zeroizing::new(text.to_owned()))
}

fn line_length(bytes: &[u8]) -> usize {
    memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1)
}

/// The variable set by the assignment that `bytes` start with, and its length with the line feed.
fn assignment(bytes: &[u8]) -> Option<(String, usize)> {
    let blank = |bytes: &[u8], from: usize| {
        from + bytes[from..]
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count()
    };
    let mut at = blank(bytes, 0);
    if is_exported(&bytes[at..]) {
        at = blank(bytes, at + b"export".len());
    }
    let start = at;
    at += bytes[at..]
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        .count();
    let name = std::str::from_utf8(&bytes[start..at]).ok()?;
    if name.is_empty() {
        return None;
    }
    let equals = blank(bytes, at);
    if bytes.get(equals) != Some(&b'=') {
        return None;
    }
    let value = blank(bytes, equals + 1);
    let end = quoted_length(&bytes[value..]).map_or(equals + 1, |length| value + length);
    Some((name.to_owned(), end + line_length(&bytes[end..])))
}

/// The length of a value that begins with a quote, up to the last quote that belongs to it;
/// `None` when it begins otherwise, or when a quote is never closed (then the line is all there is).
fn quoted_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match bytes.get(at) {
            Some(b'\'') => at += 2 + memchr::memchr(b'\'', &bytes[at + 1..])?,
            Some(b'"') => {
                at += 1;
                loop {
                    match bytes.get(at)? {
                        b'"' => break,
                        b'\\' => at += 2,
                        _ => at += 1,
                    }
                }
                at += 1;
            }
            // A shell's quote between two quoted parts.
            Some(b'\\') if at > 0 && bytes.get(at + 1) == Some(&b'\'') => at += 2,
            _ => return (at > 0).then_some(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(text: &str) -> File {
        File::parse(Zeroizing::new(text.as_bytes().to_vec()))
    }

    fn text(file: &File) -> String {
        String::from_utf8(file.bytes().to_vec()).unwrap()
    }

    #[test]
    fn each_value_gets_the_form_most_readers_agree_on() {
        use Readers::{All, ShellOnly};
        for (value, expected, readers) in [
            ("plain", "A='plain'\n", All),
            (
                "two words # no comment",
                "A='two words # no comment'\n",
                All,
            ),
            ("$HOME `x` \"q\" \\n", "A='$HOME `x` \"q\" \\n'\n", All),
            ("a\nb", "A='a\nb'\n", All),
            ("it's", "A=\"it's\"\n", All),
            ("it's $5", "A='it'\\''s $5'\n", ShellOnly),
            ("'", "A=\"'\"\n", All),
            ("\\", "A='\\'\n", ShellOnly),
            ("a\\\\b", "A='a\\\\b'\n", ShellOnly),
            ("${B}", "A='${B}'\n", ShellOnly),
            ("a\rb", "A='a\rb'\n", ShellOnly),
        ] {
            let (line, found) = entry("A", value);
            assert_eq!((line.as_str(), found), (expected, readers));
        }
    }

    #[test]
    fn only_the_named_assignment_changes() {
        let before = "# mine\n\nexport A=1 # one\r\nB='two\nlines'\nA.B=x\nC = \"a\\\"\nb\"\nodd line\nD=don't\nE=last";
        for (name, after) in [
            (
                "A",
                before.replace("export A=1 # one\r\n", "export A='new'\n"),
            ),
            ("B", before.replace("B='two\nlines'\n", "B='new'\n")),
            ("C", before.replace("C = \"a\\\"\nb\"\n", "C='new'\n")),
            ("D", before.replace("D=don't\n", "D='new'\n")),
            ("E", before.replace("E=last", "E='new'\n")),
            ("F", format!("{before}\nF='new'\n")),
        ] {
            let mut file = file(before);
            assert!(file.set(name, &entry(name, "new").0));
            assert_eq!(text(&file), after, "{name}");
            assert!(
                !file.set(name, &entry(name, "new").0),
                "a second time changes nothing"
            );
        }
    }

    #[test]
    fn several_assignments_become_one_where_the_last_stood() {
        let mut file = file("A=1\nB=2\nA=3\nC=4\n");
        assert!(file.set("A", "A='x'\n"));
        assert_eq!(text(&file), "B=2\nA='x'\nC=4\n");
    }

    #[test]
    fn removing_leaves_the_rest_and_knows_when_nothing_is_left() {
        let mut one = file("# mine\nA='x'\n");
        assert!(one.remove("A") && !one.remove("A"));
        assert_eq!(text(&one), "# mine\n");
        assert!(!one.is_blank());
        let mut blank_before = file("  \nexport A=1\nB=2\n");
        assert!(blank_before.remove("A"));
        assert_eq!(text(&blank_before), "  \nB=2\n");
        let mut two = file("\nA='x\ny'\n  \n");
        assert!(two.remove("A"));
        assert!(two.is_blank());
    }

    #[test]
    fn an_unclosed_quote_swallows_no_other_line() {
        let mut file = file("A='open\nB=2\n");
        assert!(file.set("B", "B='x'\n"));
        assert_eq!(text(&file), "A='open\nB='x'\n");
    }

    proptest! {
        #[test]
        fn taking_apart_and_putting_together_is_the_identity(
            bytes in prop::collection::vec(prop_oneof![
                Just(b'\''), Just(b'"'), Just(b'\\'), Just(b'\n'), Just(b'='), Just(b'A'), Just(b' '),
                any::<u8>(),
            ], 0..80)
        ) {
            let file = File::parse(Zeroizing::new(bytes.clone()));
            prop_assert_eq!(file.bytes().to_vec(), bytes);
        }

        #[test]
        fn what_was_set_is_found_again_whatever_stands_beside_it(
            values in prop::collection::vec("[A-Z'\"\\\\$\n =#]{1,20}", 1..5)
        ) {
            let mut file = file("# mine\nZ=1\n");
            for (index, value) in values.iter().enumerate() {
                let name = format!("K{index}");
                prop_assert!(file.set(&name, &entry(&name, value).0));
            }
            // Through bytes, as the next run sees it.
            let mut again = File::parse(file.bytes());
            for (index, value) in values.iter().enumerate() {
                let name = format!("K{index}");
                prop_assert!(!again.set(&name, &entry(&name, value).0));
                prop_assert!(again.remove(&name));
            }
            prop_assert_eq!(text(&again), "# mine\nZ=1\n");
        }
    }
}
