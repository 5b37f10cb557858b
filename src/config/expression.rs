//! What `$` means in a text. Pure syntax: nothing is looked up here.
//!
//! | written | means |
//! |---|---|
//! | `${NAME}` | the variable (or declared secret) NAME |
//! | `${NAME:-text}` | the variable NAME, or `text` when it is unset or empty |
//! | `${module.field}` | an output of another module |
//! | `$${` | the characters `${` |
//! | any other `$` | itself; `$$` is two of them |

/// One piece of a text, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    /// Plain text.
    Literal(&'t str),
    /// `${NAME}` or `${NAME:-default}`.
    Variable {
        /// The name.
        name: &'t str,
        /// What stands in when it is unset or empty.
        default: Option<&'t str>,
        /// As written.
        raw: &'t str,
    },
    /// Anything else between braces: a reference, or a declared secret with an unusual name.
    Other {
        /// Between the braces.
        inner: &'t str,
        /// As written.
        raw: &'t str,
    },
    /// `${` that is never closed.
    Unclosed {
        /// From `${` on.
        raw: &'t str,
    },
}

/// A text, taken apart.
#[derive(Debug, Default)]
pub(super) struct Pieces<'t> {
    /// In order; neighbours that are literal are not joined.
    pub(super) pieces: Vec<Piece<'t>>,
    /// The first `$NAME` that was kept as it is.
    pub(super) bare: Option<&'t str>,
}

/// Takes a text apart.
pub(super) fn pieces(text: &str) -> Pieces<'_> {
    let mut found = Pieces::default();
    let mut rest = text;
    while let Some(position) = rest.find('$') {
        let (before, from) = rest.split_at(position);
        if !before.is_empty() {
            found.pieces.push(Piece::Literal(before));
        }
        if let Some(after) = from.strip_prefix("$${") {
            found.pieces.push(Piece::Literal("${"));
            rest = after;
        } else if let Some(inside) = from.strip_prefix("${") {
            let Some(length) = inside.find('}') else {
                found.pieces.push(Piece::Unclosed { raw: from });
                return found;
            };
            let inner = &inside[..length];
            let raw = &from[..length + 3];
            found.pieces.push(braced(inner, raw));
            rest = &from[length + 3..];
        } else {
            let length = name_length(&from[1..]);
            if length > 0 && found.bare.is_none() {
                found.bare = Some(&from[..=length]);
            }
            // `$$` is two dollars: the second does not start a name.
            let length = if from.starts_with("$$") { 1 } else { length };
            found.pieces.push(Piece::Literal(&from[..=length]));
            rest = &from[length + 1..];
        }
    }
    if !rest.is_empty() {
        found.pieces.push(Piece::Literal(rest));
    }
    found
}

fn braced<'t>(inner: &'t str, raw: &'t str) -> Piece<'t> {
    let length = name_length(inner);
    let (name, after) = inner.split_at(length);
    match after.strip_prefix(":-") {
        _ if name.is_empty() => Piece::Other { inner, raw },
        Some(default) => Piece::Variable {
            name,
            default: Some(default),
            raw,
        },
        None if after.is_empty() => Piece::Variable {
            name,
            default: None,
            raw,
        },
        None => Piece::Other { inner, raw },
    }
}

/// How many bytes of `text` are a variable name.
fn name_length(text: &str) -> usize {
    let length = text
        .bytes()
        .take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        .count();
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        0
    } else {
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let found = pieces(text);
        let mut out: Vec<String> = found
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) => format!("'{text}'"),
                Piece::Variable { name, default, .. } => match default {
                    Some(default) => format!("{name}?{default}"),
                    None => (*name).to_owned(),
                },
                Piece::Other { inner, .. } => format!("<{inner}>"),
                Piece::Unclosed { raw } => format!("!{raw}"),
            })
            .collect();
        if let Some(bare) = found.bare {
            out.push(format!("bare {bare}"));
        }
        out.join(" ")
    }

    #[test]
    fn texts_come_apart() {
        for (text, expected) in [
            ("", ""),
            ("plain", "'plain'"),
            ("${A}", "A"),
            ("a${A}b${B:-c d}e", "'a' A 'b' B?c d 'e'"),
            ("${A:-}", "A?"),
            ("${db.uri}", "<db.uri>"),
            ("${a-b}", "<a-b>"),
            ("${}", "<>"),
            ("${.x}", "<.x>"),
            ("${x.}", "<x.>"),
            ("${A:?b}", "<A:?b>"),
            ("${1A}", "<1A>"),
            ("$${A}", "'${' 'A}'"),
            ("$$${A}", "'$$' A"),
            ("${A", "!${A"),
            ("x${", "'x' !${"),
            ("cost: 5$", "'cost: 5' '$'"),
            ("$HOME/x", "'$HOME' '/x' bare $HOME"),
            ("$$HOME", "'$$' 'HOME'"),
            ("$5", "'$' '5'"),
            ("é${A}é", "'é' A 'é'"),
        ] {
            assert_eq!(written(text), expected, "{text}");
        }
    }
}
