//! The forms a secret takes on its way into a log: what programs do to text before they print it.
//!
//! Every form here was seen in a peer's output or is derived by the runner; each is cheap because
//! equal forms are registered once.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::common::COMMON;
use crate::report::text::{Limits, lines, neutralise};
use tidegate_matcher::PATTERN_BYTES_MIN;

/// Forms of one secret, each once; plaintext, so zeroed when dropped.
#[derive(Default)]
pub(super) struct Forms(BTreeSet<String>);

impl Forms {
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Drop for Forms {
    fn drop(&mut self) {
        for form in std::mem::take(&mut self.0) {
            drop(Zeroizing::new(form));
        }
    }
}

/// Widths at which programs wrap Base64: PEM and MIME.
const WRAP_WIDTHS: [usize; 2] = [64, 76];

/// A wrapped line shorter than this is left to the filter, which looks through line breaks.
const WRAPPED_LINE_BYTES_MIN: usize = 8;

/// Why a value cannot be masked without destroying the log; `None` when it can.
pub(super) fn unmaskable(value: &str) -> Option<&'static str> {
    let value = value.trim();
    let plain: usize = value
        .bytes()
        .filter(|byte| !matches!(byte, b'\r' | b'\n'))
        .count();
    if plain < PATTERN_BYTES_MIN {
        return Some("it is shorter than 4 bytes");
    }
    if value.len() < 6 && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some("it is a number of fewer than 6 digits");
    }
    if !value.chars().any(char::is_alphanumeric) {
        return Some("it has neither letters nor digits");
    }
    let mut characters = value.chars();
    let first = characters.next();
    if value.len() < 12 && characters.all(|character| Some(character) == first) {
        return Some("it is one character repeated");
    }
    if COMMON.iter().any(|word| word.eq_ignore_ascii_case(value)) {
        return Some("it is an everyday word");
    }
    None
}

/// The lines of a multi-line value that are masked on their own; armour lines of PEM files are
/// public, and short ones would shred every log.
pub(super) fn mask_lines(value: &str) -> impl Iterator<Item = &str> {
    lines(value)
        .map(str::trim)
        .filter(|line| unmaskable(line).is_none())
        .filter(|line| !(line.starts_with("-----BEGIN ") || line.starts_with("-----END ")))
}

/// True when the value has more than one line.
pub(super) fn is_multi_line(value: &str) -> bool {
    value.trim().contains(['\n', '\r'])
}

/// The password inside a connection URL, which is a secret of its own: as it is written there, and
/// decoded. Empty for anything else, and for passwords that cannot be masked.
pub(super) fn passwords(value: &str) -> Vec<Zeroizing<String>> {
    let Some(password) = value
        .split_once("://")
        .and_then(|(_, rest)| rest.rsplit_once('@'))
        .and_then(|(credentials, _)| credentials.split_once(':'))
        .map(|(_, password)| password)
    else {
        return Vec::new();
    };
    let decoded = percent_decode_str(password).decode_utf8_lossy();
    let mut found = vec![Zeroizing::new(password.to_owned())];
    if decoded != password {
        found.push(Zeroizing::new(decoded.into_owned()));
    }
    found.retain(|password| unmaskable(password).is_none());
    found
}

/// Texts of a JSON document that are secrets of their own; more are left to the document.
const LEAVES_MAX: usize = 64;

/// A shorter text of a JSON document is masked with the document only.
const LEAF_BYTES_MIN: usize = 8;

/// Keys of JSON documents whose texts are no secrets, or no longer ones when the rest is: names of
/// accounts, kinds and places.
const PUBLIC_KEYS: &[&str] = &[
    "alg",
    "apiversion",
    "client_email",
    "client_id",
    "database",
    "dbname",
    "email",
    "grant_type",
    "host",
    "hostname",
    "kind",
    "kty",
    "location",
    "name",
    "project",
    "project_id",
    "region",
    "scope",
    "server",
    "type",
    "universe_domain",
    "user",
    "username",
    "version",
    "zone",
];

/// Keys of a document that say what they hold.
const CREDENTIAL_KEYS: [&str; 9] = [
    "auth", "cert", "cred", "key", "pass", "private", "pwd", "secret", "token",
];

/// The parts of a value that are secrets of their own: the password of a URL, the texts of a JSON
/// document (a service account's key file), the passwords of a connection string
/// (`host=h password=x`, `Server=s;Pwd=x`).
///
/// Of what nobody calls a secret as a whole only the texts count whose keys do: the rest of such a document
/// are the ids, hosts and places of half the cloud.
pub(super) fn parts(value: &str, is_secret: bool) -> Vec<Zeroizing<String>> {
    let mut found = passwords(value);
    let text = value.trim();
    if text.starts_with(['{', '[']) {
        if let Ok(mut document) = serde_json::from_str(text) {
            leaves(&mut document, "", is_secret, &mut found);
        }
    } else if text.contains('=') {
        found.extend(
            text.split([';', ' ', '&', '\n', '\r'])
                .filter_map(|pair| pair.split_once('='))
                .filter(|(key, _)| {
                    let key = key.to_ascii_lowercase();
                    ["pass", "pwd", "secret", "token", "accountkey"]
                        .iter()
                        .any(|word| key.contains(word))
                })
                .map(|(_, password)| Zeroizing::new(password.trim_matches(['"', '\'']).to_owned())),
        );
    }
    found.retain(|part| unmaskable(part).is_none());
    found
}

/// Takes the texts out of a document, so that no copy of one stays behind in it.
fn leaves(
    value: &mut serde_json::Value,
    key: &str,
    is_secret: bool,
    found: &mut Vec<Zeroizing<String>>,
) {
    use serde_json::Value;
    match value {
        Value::String(text) => {
            let text = Zeroizing::new(std::mem::take(text));
            let key = key.to_ascii_lowercase();
            let is_public = PUBLIC_KEYS.contains(&key.as_str())
                || key.ends_with("uri")
                || key.ends_with("url")
                || key.ends_with("endpoint");
            let says_so = CREDENTIAL_KEYS.iter().any(|word| key.contains(word));
            if is_public || !(is_secret || says_so) {
                found.extend(passwords(&text));
            } else if text.len() >= LEAF_BYTES_MIN && found.len() < LEAVES_MAX {
                found.push(text);
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| leaves(item, key, is_secret, found)),
        Value::Object(map) => {
            for (key, item) in map {
                leaves(item, key, is_secret, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Every form of `value` that the output filter looks for.
pub(super) fn all(value: &str) -> Forms {
    let mut forms = Forms::default();
    whole(&mut forms, value.trim());
    if value.trim().len() != value.len() {
        // Encodings that cover the blanks too; for plain text the trimmed forms say it all.
        base64(&mut forms, value.as_bytes());
        wrapped(&mut forms, value.as_bytes());
    }
    if is_multi_line(value) {
        for line in mask_lines(value) {
            texts(&mut forms, line);
            base64(&mut forms, line.as_bytes());
        }
    }
    forms
}

/// What is announced to the runner: the value (line by line when it has several, because the
/// runner would register even a lone brace), and the forms that it does not derive itself.
/// Never more than `lines_max` lines of the value; says whether some were left out.
pub(super) fn announced(value: &str, lines_max: usize) -> (Vec<Zeroizing<String>>, bool) {
    /// Shorter encodings would hit innocent text in every later step.
    const ENCODING_BYTES_MIN: usize = 6;
    let value = value.trim();
    let mut first: Vec<&str> = if is_multi_line(value) {
        mask_lines(value).collect()
    } else {
        vec![value]
    };
    let left_out = first.len() > lines_max;
    first.truncate(lines_max);
    let mut forms = Forms::default();
    let bytes = value.as_bytes();
    add(&mut forms, hex(bytes, false));
    add(&mut forms, hex(bytes, true));
    for offset in 0..3 {
        let stable = base64_stable(bytes, offset);
        add(&mut forms, url_safe(&stable));
        add(&mut forms, stable);
    }
    for one in &first {
        add(&mut forms, percent(one, Percent::COMPONENT.lower()));
        add(&mut forms, percent(one, Percent::PATH));
        add(&mut forms, percent(one, Percent::FORM));
        add(&mut forms, percent(one, Percent::FORM.lower()));
        add(&mut forms, shell_single(one));
        add(&mut forms, shell_backslash(one));
        add(&mut forms, json_ascii(one, false));
    }
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut all: Vec<Zeroizing<String>> = Vec::new();
    for one in first {
        if seen.insert(one) {
            all.push(Zeroizing::new(one.to_owned()));
        }
    }
    all.extend(
        forms
            .iter()
            .filter(|form| form.len() >= ENCODING_BYTES_MIN && !seen.contains(form))
            .filter(|form| !form.contains(['\n', '\r']))
            .map(|form| Zeroizing::new(form.to_owned())),
    );
    (all, left_out)
}

fn add(forms: &mut Forms, form: String) {
    forms.0.insert(form);
}

fn whole(forms: &mut Forms, value: &str) {
    texts(forms, value);
    base64(forms, value.as_bytes());
    wrapped(forms, value.as_bytes());
    for offset in 0..3 {
        let inner = base64_stable(value.as_bytes(), offset);
        if inner.len() >= PATTERN_BYTES_MIN {
            for outer in 0..3 {
                add(forms, base64_stable(inner.as_bytes(), outer));
            }
        }
    }
    let twice = STANDARD.encode(STANDARD.encode(value));
    add(forms, twice);
    add(forms, hex(value.as_bytes(), false));
    add(forms, hex(value.as_bytes(), true));
}

/// Textual escapes: what a printer does to characters it must not show as they are.
fn texts(forms: &mut Forms, value: &str) {
    add(forms, value.to_owned());
    add(forms, neutralise(value, Limits::OWN));
    let json = json(value);
    for once in [
        json.replace('/', "\\/"),
        json_html_safe(&json),
        json_ascii(value, false),
        json_ascii(value, true),
        json_html_safe(&json_ascii(value, false)),
    ] {
        add(forms, once.replace('\\', "\\\\").replace('"', "\\\""));
        add(forms, once);
    }
    let twice = self::json(&json);
    add(forms, self::json(&twice));
    add(forms, twice);
    add(forms, json);
    for style in [
        Percent::COMPONENT,
        Percent::JAVASCRIPT,
        Percent::PATH,
        Percent::SEGMENT,
        Percent::CREDENTIALS,
        Percent::URI,
        Percent::FORM,
    ] {
        add(forms, percent(value, style));
        add(forms, percent(value, style.lower()));
    }
    add(forms, byte_escapes(value, false));
    add(forms, byte_escapes(value, true));
    let once = percent(value, Percent::COMPONENT);
    add(forms, percent(&once, Percent::COMPONENT));
    for (apostrophe, quote) in [
        ("&#39;", "&quot;"),
        ("&#39;", "&#34;"),
        ("&#x27;", "&quot;"),
        ("&apos;", "&quot;"),
        ("'", "\""),
        ("'", "&quot;"),
    ] {
        add(forms, markup(value, apostrophe, quote));
    }
    // Templates of Go.
    add(forms, markup(value, "&#39;", "&#34;").replace('+', "&#43;"));
    add(forms, shell_single(value));
    add(forms, value.replace('\'', "'\"'\"'"));
    add(forms, shell_double(value));
    add(forms, shell_backslash(value));
    add(forms, shell_ansi(value));
    add(forms, value.replace('"', "\\\""));
    add(forms, value.replace('"', "\"\""));
    add(forms, value.replace('\'', "''"));
    add(forms, value.replace('\'', "\\'"));
    add(forms, value.replace('\\', "\\\\"));
    add(
        forms,
        value
            .replace('\\', "\\\\")
            .replace('\'', "\\'")
            .replace('\n', "\\n"),
    );
    add(forms, value.escape_debug().to_string());
    add(forms, value.escape_default().to_string());
    add(forms, markdown(value));
}

/// Hexadecimal of the bytes.
fn hex(bytes: &[u8], upper: bool) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _infallible = if upper {
            write!(out, "{byte:02X}")
        } else {
            write!(out, "{byte:02x}")
        };
    }
    out
}

/// The part of the Base64 of `…value…` that does not depend on what stands around the value, when
/// the value begins `offset` bytes after a multiple of three.
fn base64_stable(bytes: &[u8], offset: usize) -> String {
    let mut padded = Zeroizing::new(vec![0_u8; offset]);
    padded.extend_from_slice(bytes);
    let encoded = Zeroizing::new(STANDARD.encode(padded.as_slice()));
    let first = (offset * 8).div_ceil(6);
    let end = padded.len() * 8 / 6;
    encoded.get(first..end).unwrap_or_default().to_owned()
}

fn url_safe(standard: &str) -> String {
    standard.replace('+', "-").replace('/', "_")
}

fn base64(forms: &mut Forms, bytes: &[u8]) {
    for offset in 0..3 {
        let stable = base64_stable(bytes, offset);
        if stable.len() >= PATTERN_BYTES_MIN {
            add(forms, url_safe(&stable));
            // Base64 often travels in a URL or in HTML, where these three are written otherwise.
            add(forms, percent(&stable, Percent::COMPONENT));
            add(forms, percent(&stable, Percent::COMPONENT.lower()));
            add(forms, stable.replace('/', "\\/"));
            add(forms, stable);
        }
    }
    let exact = STANDARD.encode(bytes);
    add(forms, percent(&exact, Percent::COMPONENT));
    add(forms, exact);
    add(forms, URL_SAFE.encode(bytes));
}

/// The lines of the wrapped Base64 of a long value, for programs that print it line by line with
/// something in front of each (the filter itself sees through bare line breaks).
fn wrapped(forms: &mut Forms, bytes: &[u8]) {
    let encoded = Zeroizing::new(STANDARD.encode(bytes));
    for width in WRAP_WIDTHS {
        if encoded.len() > width {
            let mut rest = encoded.as_str();
            while !rest.is_empty() {
                let (line, after) = rest.split_at(rest.len().min(width));
                if line.len() >= WRAPPED_LINE_BYTES_MIN {
                    add(forms, line.to_owned());
                }
                rest = after;
            }
        }
    }
}

/// A string body as JSON writes it.
fn json(value: &str) -> String {
    let quoted = serde_json::Value::from(value).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// As some libraries write it: safe to paste into HTML.
fn json_html_safe(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

/// With every character beyond ASCII as `\uXXXX`.
fn json_ascii(value: &str, upper: bool) -> String {
    let mut out = String::new();
    for character in json(value).chars() {
        if character.is_ascii() {
            out.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _infallible = if upper {
                write!(out, "\\u{unit:04X}")
            } else {
                write!(out, "\\u{unit:04x}")
            };
        }
    }
    out
}

#[derive(Clone, Copy)]
struct Percent {
    /// Characters left alone besides letters and digits.
    kept: &'static [u8],
    space_is_plus: bool,
    is_upper: bool,
}

impl Percent {
    const COMPONENT: Self = Self {
        kept: b"-._~",
        space_is_plus: false,
        is_upper: true,
    };
    /// `encodeURIComponent` of JavaScript.
    const JAVASCRIPT: Self = Self {
        kept: b"-._~!*'()",
        ..Self::COMPONENT
    };
    /// `urllib.parse.quote` of Python.
    const PATH: Self = Self {
        kept: b"-._~/",
        ..Self::COMPONENT
    };
    /// `url.PathEscape` of Go.
    const SEGMENT: Self = Self {
        kept: b"-._~$&+:=@",
        ..Self::COMPONENT
    };
    /// User and password in a URL that Go writes.
    const CREDENTIALS: Self = Self {
        kept: b"-._~$&+,;=",
        ..Self::COMPONENT
    };
    const URI: Self = Self {
        kept: b"-._~!*'();:@&=+$,/?#",
        space_is_plus: false,
        is_upper: true,
    };
    const FORM: Self = Self {
        kept: b"-._*",
        space_is_plus: true,
        is_upper: true,
    };

    fn lower(self) -> Self {
        Self {
            is_upper: false,
            ..self
        }
    }
}

fn percent(value: &str, style: Percent) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || style.kept.contains(&byte) {
            out.push(char::from(byte));
        } else if byte == b' ' && style.space_is_plus {
            out.push('+');
        } else {
            let _infallible = if style.is_upper {
                write!(out, "%{byte:02X}")
            } else {
                write!(out, "%{byte:02x}")
            };
        }
    }
    out
}

/// Every byte as `\xNN`.
fn byte_escapes(value: &str, upper: bool) -> String {
    let mut out = String::with_capacity(value.len() * 4);
    for byte in value.bytes() {
        let _infallible = if upper {
            write!(out, "\\x{byte:02X}")
        } else {
            write!(out, "\\x{byte:02x}")
        };
    }
    out
}

fn markup(value: &str, apostrophe: &str, quote: &str) -> String {
    value
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', apostrophe)
        .replace('"', quote)
}

/// Inside `'…'`.
fn shell_single(value: &str) -> String {
    value.replace('\'', "'\\''")
}

/// Inside `"…"`.
fn shell_double(value: &str) -> String {
    escape_where(value, |character| {
        matches!(character, '"' | '\\' | '$' | '`')
    })
}

/// As `printf %q` writes it.
fn shell_backslash(value: &str) -> String {
    escape_where(value, |character| {
        character.is_ascii()
            && !character.is_ascii_alphanumeric()
            && !matches!(
                character,
                '_' | '-' | '.' | '/' | ':' | '@' | '%' | '+' | '='
            )
    })
}

/// As Markdown escapes it.
fn markdown(value: &str) -> String {
    escape_where(value, |character| character.is_ascii_punctuation())
}

fn escape_where(value: &str, is_special: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(value.len());
    for character in value.chars() {
        if is_special(character) {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

/// Inside `$'…'`: octal for everything beyond ASCII, as Bash prints it.
fn shell_ansi(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x1b => out.push_str("\\E"),
            b'\'' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            0x20..=0x7e => out.push(char::from(byte)),
            _ => {
                let _infallible = write!(out, "\\{byte:03o}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_cores_hold_at_every_offset_and_with_any_neighbour() {
        for value in ["abcde", "abcdef", "abcdefg", "p@ss/w?rd>>~~", "ünïcödé"] {
            for before in ["", "u", "u:", "usr", "user:"] {
                for after in ["", "\n", "\u{7f}\u{7f}", "@host"] {
                    let text = STANDARD.encode(format!("{before}{value}{after}"));
                    let core = base64_stable(value.as_bytes(), before.len() % 3);
                    assert!(text.contains(&core), "{before}|{value}|{after}");
                    assert!(
                        core.len() * 6 + 16 >= value.len() * 8,
                        "{core} is too short"
                    );
                }
            }
        }
    }

    #[test]
    fn everyday_values_are_refused_with_a_reason() {
        for value in [
            "", "   ", "abc", "80", "54321", "----", "{}()[]", "aaaaaa", "TRUE", "Password",
            "null", " admin ", "a\nb\nc",
        ] {
            assert!(unmaskable(value).is_some(), "{value:?}");
        }
        for value in [
            "abcd",
            "543210",
            "hunter2",
            "correct horse",
            "aaaaaaaaaaaa",
            "tést",
        ] {
            assert!(unmaskable(value).is_none(), "{value:?}");
        }
    }

    #[test]
    fn a_password_inside_a_url_is_a_secret_of_its_own() {
        for (value, expected) in [
            ("postgresql://app:pa%2Fss@db/x", &["pa%2Fss", "pa/ss"][..]),
            ("redis://:hunter22@h@i", &["hunter22@h"]),
            ("https://user:password@host", &[]),
            ("https://user@host", &[]),
            ("https://host/a:b", &[]),
            ("hunter22", &[]),
        ] {
            let found = passwords(value);
            let found: Vec<&str> = found.iter().map(|password| password.as_str()).collect();
            assert_eq!(found, expected, "{value}");
        }
        let masker = crate::secret::Masker::default();
        drop(masker.admit("url", "postgresql://app:pa%2Fss@db/x".to_owned()));
        assert_eq!(masker.mask("app pa/ss pa%2Fss"), "app *** ***");
    }

    #[test]
    fn the_forms_peers_print_are_there() {
        let forms = all("p@ss \"w'rd\" é<&>/+");
        for form in [
            "p@ss \"w'rd\" é<&>/+",
            "p@ss \\\"w'rd\\\" é<&>/+",
            "p@ss \\\\\\\"w'rd\\\\\\\" é<&>/+",
            "p@ss \\\"w'rd\\\" \\u00e9<&>/+",
            "p%40ss%20%22w%27rd%22%20%C3%A9%3C%26%3E%2F%2B",
            "p%40ss%20%22w%27rd%22%20%c3%a9%3c%26%3e%2f%2b",
            "p%40ss+%22w%27rd%22+%C3%A9%3C%26%3E%2F%2B",
            "p@ss &quot;w&#39;rd&quot; é&lt;&amp;&gt;/+",
            "p@ss &quot;w&apos;rd&quot; é&lt;&amp;&gt;/+",
            "p@ss \"w'\\''rd\" é<&>/+",
            "p@ss\\ \\\"w\\'rd\\\"\\ é\\<\\&\\>/+",
            "p@ss \"w''rd\" é<&>/+",
            "p@ss \"w\\'rd\" \\303\\251<&>/+",
        ] {
            assert!(forms.iter().any(|known| known == form), "{form} is missing");
        }
    }

    #[test]
    fn percent_encodings_differ_in_what_they_keep() {
        let masker = crate::secret::Masker::default();
        drop(masker.admit("t", "tok:A_9f8e+/=(x)".to_owned()));
        drop(masker.admit("u", "pä$$wö<r+d>@x".to_owned()));
        for written in [
            // Python, JavaScript, Go, and a strict one.
            "tok%3AA_9f8e%2B/%3D%28x%29",
            "tok%3aA_9f8e%2b/%3d%28x%29",
            "tok%3AA_9f8e%2B%2F%3D(x)",
            "tok:A_9f8e+%2F=%28x%29",
            "tok%3AA_9f8e%2B%2F%3D%28x%29",
            "p%C3%A4$$w%C3%B6%3Cr+d%3E%40x",
            r"p\u00e4$$w\u00f6\u003cr+d\u003e@x",
            "pä$$wö&lt;r&#43;d&gt;@x",
            r"\x74\x6f\x6b\x3a\x41\x5f\x39\x66\x38\x65\x2b\x2f\x3d\x28\x78\x29",
            r"\x74\x6F\x6B\x3A\x41\x5F\x39\x66\x38\x65\x2B\x2F\x3D\x28\x78\x29",
        ] {
            assert_eq!(
                masker.mask(&format!("a {written} b")),
                "a *** b",
                "{written}"
            );
        }
    }

    #[test]
    fn the_runner_is_told_lines_and_never_a_lone_brace() {
        let (masks, cut) = announced("{\n  \"key\": \"s3cr3t-value\"\n}\n", 256);
        assert!(!cut);
        assert_eq!(masks[0].as_str(), "\"key\": \"s3cr3t-value\"");
        for mask in &masks {
            assert!(mask.len() >= 4 && !mask.contains('\n'), "{mask:?}");
        }
        let (masks, _) = announced("hunter2hunter2", 256);
        assert!(masks.len() <= 8, "{} masks for a plain word", masks.len());
        let long: String = (0..500).map(|n| format!("line-{n}-secret\n")).collect();
        let (masks, cut) = announced(&long, 256);
        assert!(cut && masks.len() < 300, "{}", masks.len());
    }
}
