//! Text from outside, made harmless: no control character reaches a terminal, and no line can be
//! taken for a command by the GitHub runner. One place, used for everything that is shown.
//!
//! The runner takes `::name::` as a command after any leading white space, and the older
//! `##[name]` anywhere in a line; it compares with culture rules, which do not see zero-width and
//! control characters. So both are broken with a *visible* character, a backslash.

use std::borrow::Cow;
use std::fmt::Write as _;

/// How much of a foreign text is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one line.
    pub line_bytes_max: usize,
    /// Bytes of the whole text.
    pub total_bytes_max: usize,
}

impl Limits {
    /// For text relayed from a provider or a server.
    pub const RELAYED: Self = Self {
        line_bytes_max: 4 * 1024,
        total_bytes_max: 64 * 1024,
    };
    /// For one field inside a line of ours: a name, a message.
    pub const FIELD: Self = Self {
        line_bytes_max: 2 * 1024,
        total_bytes_max: 8 * 1024,
    };
    /// For text we made ourselves: harmless characters, but never cut.
    pub const OWN: Self = Self {
        line_bytes_max: usize::MAX,
        total_bytes_max: usize::MAX,
    };
}

/// Characters that end a line for some reader: LF, CR (alone or before LF), vertical tab, form
/// feed, NEL, and the Unicode line and paragraph separators.
pub fn is_line_break(character: char) -> bool {
    matches!(
        character,
        '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// Characters that change how their neighbours are shown, or that hide: direction overrides and
/// isolates, zero-width spaces, the byte order mark, soft hyphens, tags. Joiners and variation
/// selectors stay, because scripts and emoji need them; [`guard_line`] looks through them.
fn is_deceptive(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// Characters a reader with culture rules may not see: white space, controls, format characters,
/// joiners, variation selectors, combining marks that carry no weight.
fn is_unseen(character: char) -> bool {
    character.is_whitespace()
        || character.is_control()
        || is_deceptive(character)
        || matches!(
            character,
            '\u{34f}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{17b4}'
                | '\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

fn push_visible(out: &mut String, character: char) {
    if character == '\t' || !(character.is_control() || is_deceptive(character)) {
        out.push(character);
        return;
    }
    let code = u32::from(character);
    // Writing into a String cannot fail.
    let _infallible = if code < 0x100 {
        write!(out, "\\x{code:02x}")
    } else {
        write!(out, "\\u{{{code:x}}}")
    };
}

/// Shows control and deceptive characters as escapes (`\x1b`, `\u{202e}`); tabs and line feeds
/// stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    let harmless = |character: char| {
        matches!(character, '\n' | '\t') || !(character.is_control() || is_deceptive(character))
    };
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if character == '\n' {
            out.push('\n');
        } else {
            push_visible(&mut out, character);
        }
    }
    Cow::Owned(out)
}

/// One line the runner cannot take for a command: a backslash goes before a `::` at its start
/// (after whatever a culture-aware reader does not see) and before the `[` of every `##[`.
pub fn guard_line(line: &str) -> Cow<'_, str> {
    // Both forms need one of these; almost no line has them.
    let colon = line
        .char_indices()
        .find(|(_, character)| !is_unseen(*character))
        .filter(|(_, character)| *character == ':')
        .map(|(index, _)| index)
        .filter(|index| {
            line[index + 1..]
                .chars()
                .find(|character| !is_unseen(*character))
                == Some(':')
        });
    let brackets = command_brackets(line);
    if colon.is_none() && brackets.is_empty() {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len() + 1 + brackets.len());
    let mut from = 0;
    for at in colon.into_iter().chain(brackets) {
        out.push_str(&line[from..at]);
        out.push('\\');
        from = at;
    }
    out.push_str(&line[from..]);
    Cow::Owned(out)
}

/// Where each `[` of a `##[` stands.
fn command_brackets(line: &str) -> Vec<usize> {
    let mut brackets = Vec::new();
    if line.contains('#') && line.contains('[') {
        let mut hashes = 0;
        for (index, character) in line.char_indices() {
            match character {
                '#' => hashes += 1,
                '[' if hashes >= 2 => {
                    brackets.push(index);
                    hashes = 0;
                }
                _ if is_unseen(character) => {}
                _ => hashes = 0,
            }
        }
    }
    brackets
}

/// A JSON text that says the same and holds no line the runner could take for a command, and no
/// character that deceives a reader: each stands there as an escape. (Both can stand inside
/// strings only, and no line of ours begins with one.)
pub fn guard_json(text: &str) -> Cow<'_, str> {
    let odd = |character: char| {
        character != '\n'
            && (character.is_control() || is_deceptive(character) || is_line_break(character))
    };
    if !text.chars().any(odd) && text.lines().all(|line| command_brackets(line).is_empty()) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 64);
    for line in text.split_inclusive('\n') {
        let brackets = command_brackets(line);
        for (index, character) in line.char_indices() {
            if odd(character) || brackets.binary_search(&index).is_ok() {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _infallible = write!(out, "\\u{unit:04x}");
                }
            } else {
                out.push(character);
            }
        }
    }
    Cow::Owned(out)
}

/// The lines of a text under every definition of a line: CRLF counts once, all others each.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some((index, character)) = text.char_indices().find(|(_, c)| is_line_break(*c)) else {
            rest = None;
            return (!text.is_empty()).then_some(text);
        };
        let after = &text[index + character.len_utf8()..];
        rest = Some(match character {
            '\r' => after.strip_prefix('\n').unwrap_or(after),
            _ => after,
        });
        Some(&text[..index])
    })
}

/// The largest cut at or below `bytes_max` that falls between characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let boundary = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at));
    &text[..boundary.unwrap_or(0)]
}

/// Foreign text as lines that are safe to show: every kind of line break becomes LF, control and
/// deceptive characters are shown as escapes, no line can be a workflow command, and whatever is
/// cut is said aloud (`… 120 more bytes cut`). The result has no final line feed.
pub fn neutralise(text: &str, limits: Limits) -> String {
    let shown = cut(text, limits.total_bytes_max);
    let mut out = String::with_capacity(shown.len() + 16);
    for (index, line) in lines(shown).enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let kept = cut(line, limits.line_bytes_max);
        out.push_str(&guard_line(&visible(kept)));
        if kept.len() < line.len() {
            let _infallible = write!(out, " … {} more bytes cut", line.len() - kept.len());
        }
    }
    if shown.len() < text.len() {
        if !out.is_empty() {
            out.push('\n');
        }
        let _infallible = write!(out, "… {} more bytes cut", text.len() - shown.len());
    }
    out
}

/// Ready-made text of ours: like [`neutralise`] without cuts, but colour sequences (`ESC [ … m`
/// and nothing else) stay when `keeps_colours`, and vanish when not.
pub fn own_block(text: &str, keeps_colours: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, line) in lines(text).enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let mut kept = String::with_capacity(line.len());
        let mut rest = line;
        while let Some(at) = rest.find('\u{1b}') {
            kept.push_str(&visible(&rest[..at]));
            let length = colour_length(&rest[at..]);
            if length == 0 {
                push_visible(&mut kept, '\u{1b}');
                rest = &rest[at + 1..];
            } else {
                if keeps_colours {
                    kept.push_str(&rest[at..at + length]);
                }
                rest = &rest[at + length..];
            }
        }
        kept.push_str(&visible(rest));
        out.push_str(&guard_line(&kept));
    }
    out
}

/// Length of the colour sequence a text begins with; 0 when it begins with anything else.
fn colour_length(text: &str) -> usize {
    let Some(parameters) = text.strip_prefix("\u{1b}[") else {
        return 0;
    };
    let digits = parameters
        .bytes()
        .take_while(|byte| byte.is_ascii_digit() || *byte == b';')
        .count();
    match parameters.as_bytes().get(digits) {
        Some(b'm') => digits + 3,
        _ => 0,
    }
}

/// Foreign text as one line, line breaks shown as `⏎`; for names, titles and table cells.
pub fn one_line(text: &str, limits: Limits) -> String {
    neutralise(text.trim_end_matches(is_line_break), limits).replace('\n', " ⏎ ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_broken_and_nothing_else_is() {
        for (line, expected) in [
            ("plain", "plain"),
            ("a ::error::b", "a ::error::b"),
            ("# [x]", "# [x]"),
            ("#[derive]", "#[derive]"),
            ("::error::x", "\\::error::x"),
            ("  \u{a0}\u{2003}::error::x", "  \u{a0}\u{2003}\\::error::x"),
            ("\u{feff}::error::x", "\u{feff}\\::error::x"),
            ("\u{200d}:\u{200d}:error::x", "\u{200d}\\:\u{200d}:error::x"),
            ("log: ##[error]x", "log: ##\\[error]x"),
            ("###[a]##[b]", "###\\[a]##\\[b]"),
            ("#\u{ad}#\u{200d}[group]", "#\u{ad}#\u{200d}\\[group]"),
            ("::##[a]", "\\::##\\[a]"),
            (": : not", "\\: : not"),
        ] {
            assert_eq!(guard_line(line), expected, "{line:?}");
            assert_eq!(guard_line(&guard_line(line)), expected, "again: {line:?}");
        }
    }

    #[test]
    fn every_line_break_becomes_a_line_feed() {
        assert_eq!(
            neutralise(
                "a\r\nb\rc\u{b}d\u{c}e\u{85}f\u{2028}g\u{2029}h\n",
                Limits::OWN
            ),
            "a\nb\nc\nd\ne\nf\ng\nh"
        );
        assert_eq!(neutralise("a\n\n\r\n\rb", Limits::OWN), "a\n\n\n\nb");
        assert_eq!(
            neutralise("ok\r::error::x", Limits::OWN),
            "ok\n\\::error::x"
        );
    }

    #[test]
    fn controls_and_overrides_are_shown() {
        assert_eq!(
            neutralise("\u{1b}[31mred\0\u{9b}\u{202e}\t\u{7f}", Limits::OWN),
            "\\x1b[31mred\\x00\\x9b\\u{202e}\t\\x7f"
        );
        assert_eq!(
            neutralise("👩\u{200d}🔬 naïve", Limits::OWN),
            "👩\u{200d}🔬 naïve"
        );
    }

    #[test]
    fn our_own_blocks_keep_colours_and_nothing_else() {
        let text = "\u{1b}[1;31mred\u{1b}[0m\u{1b}[2J\u{1b}]0;t\u{7}\n  ::error::x";
        assert_eq!(
            own_block(text, true),
            "\u{1b}[1;31mred\u{1b}[0m\\x1b[2J\\x1b]0;t\\x07\n  \\::error::x"
        );
        assert_eq!(
            own_block(text, false),
            "red\\x1b[2J\\x1b]0;t\\x07\n  \\::error::x"
        );
    }

    #[test]
    fn cuts_are_said_aloud_and_fall_between_characters() {
        let limits = Limits {
            line_bytes_max: 5,
            total_bytes_max: 12,
        };
        assert_eq!(
            neutralise("abcdefgh\nééééé", limits),
            "abcde … 3 more bytes cut\né\n… 8 more bytes cut"
        );
        assert_eq!(one_line("a\nb\r\n", Limits::FIELD), "a ⏎ b");
    }
}
