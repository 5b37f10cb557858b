//! What a bare word in YAML is: nothing, true or false, a number, or text.

use serde_json::Number;
use tidegate_yaml::ScalarStyle;

use super::yaml::NodeKind;

/// A scalar without a tag: quoted and block forms are text, plain ones may be more.
pub(super) fn plain_or_text(text: &str, style: ScalarStyle) -> NodeKind {
    if style == ScalarStyle::Plain {
        scalar(text)
    } else {
        NodeKind::Text(text.to_owned())
    }
}

/// True for a bare word that means nothing.
pub(super) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// The core schema of YAML 1.2. Digits that YAML 1.1 reads as another number are not guessed.
pub(super) fn scalar(text: &str) -> NodeKind {
    match text {
        _ if is_null(text) => return NodeKind::Null,
        "true" | "True" | "TRUE" => return NodeKind::Bool(true),
        "false" | "False" | "FALSE" => return NodeKind::Bool(false),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let Some(first) = unsigned.bytes().next() else {
        return NodeKind::Text(text.to_owned());
    };
    if !first.is_ascii_digit() && first != b'.' {
        return NodeKind::Text(text.to_owned());
    }
    if unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        if unsigned.len() > 1 && first == b'0' {
            return NodeKind::Ambiguous("leading zeros mean octal to some and nothing to others");
        }
        let plain = text.strip_prefix('+').unwrap_or(text);
        return match (plain.parse::<u64>(), plain.parse::<i64>()) {
            (Ok(number), _) => NodeKind::Number(number.into()),
            (_, Ok(number)) => NodeKind::Number(number.into()),
            _ => NodeKind::Ambiguous("it is too large to be kept exactly"),
        };
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = unsigned.strip_prefix(prefix)
            && let Ok(number) = u64::from_str_radix(digits, radix)
            && digits.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            return match (text.starts_with('-'), i64::try_from(number)) {
                (false, _) => NodeKind::Number(number.into()),
                (true, Ok(number)) => NodeKind::Number((-number).into()),
                (true, Err(_)) => NodeKind::Ambiguous("it is too large to be kept exactly"),
            };
        }
    }
    if matches!(
        unsigned,
        ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN"
    ) {
        return NodeKind::Ambiguous("JSON has no such number");
    }
    if is_float(unsigned)
        && let Ok(number) = text.parse::<f64>()
    {
        return Number::from_f64(number).map_or(
            NodeKind::Ambiguous("it is too large to be kept exactly"),
            NodeKind::Number,
        );
    }
    NodeKind::Text(text.to_owned())
}

/// `[0-9]*(\.[0-9]*)?([eE][-+]?[0-9]+)?` with at least one digit before the exponent.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(position) => (&text[..position], Some(&text[position + 1..])),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return false;
    }
    exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match scalar(text) {
            NodeKind::Null => "null".to_owned(),
            NodeKind::Bool(flag) => format!("bool {flag}"),
            NodeKind::Number(number) => format!("number {number}"),
            NodeKind::Text(_) => "text".to_owned(),
            NodeKind::Ambiguous(_) => "ambiguous".to_owned(),
            NodeKind::List(_) | NodeKind::Map(_) => unreachable!("a scalar"),
        }
    }

    #[test]
    fn bare_words() {
        for (text, expected) in [
            ("", "null"),
            ("~", "null"),
            ("Null", "null"),
            ("true", "bool true"),
            ("False", "bool false"),
            ("yes", "text"),
            ("on", "text"),
            ("0", "number 0"),
            ("42", "number 42"),
            ("-42", "number -42"),
            ("+42", "number 42"),
            ("18446744073709551615", "number 18446744073709551615"),
            ("-9223372036854775808", "number -9223372036854775808"),
            ("18446744073709551616", "ambiguous"),
            ("0644", "ambiguous"),
            ("00", "ambiguous"),
            ("0x1F", "number 31"),
            ("0o644", "number 420"),
            ("0b101", "number 5"),
            ("-0x10", "number -16"),
            ("0x", "text"),
            ("0x+1", "text"),
            ("1.5", "number 1.5"),
            ("-.5", "number -0.5"),
            ("5.", "number 5.0"),
            ("1e3", "number 1000.0"),
            ("1e", "text"),
            ("1e999", "ambiguous"),
            (".inf", "ambiguous"),
            (".nan", "ambiguous"),
            (".", "text"),
            ("-", "text"),
            ("1.2.3", "text"),
            ("2024-01-05", "text"),
            ("12:30", "text"),
            ("1_000", "text"),
            ("10.0.0.0/16", "text"),
            ("web", "text"),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
    }
}
