//! The output filter: no secret passes it, in any encoding, however the stream is cut.

use std::time::Duration;

use proptest::prelude::*;
use tidegate::secret::Masker;

/// What the filter must equal: quadratic, obvious, over the whole text at once. Line breaks are
/// looked through; every byte inside any occurrence of any pattern is hidden.
fn naive(patterns: &[String], text: &str) -> String {
    let bytes = text.as_bytes();
    let visible: Vec<usize> = (0..bytes.len())
        .filter(|&at| !matches!(bytes[at], b'\n' | b'\r'))
        .collect();
    let view: Vec<u8> = visible.iter().map(|&at| bytes[at]).collect();
    let mut hidden = vec![false; bytes.len()];
    for pattern in patterns {
        let pattern: Vec<u8> = pattern
            .bytes()
            .filter(|byte| !matches!(byte, b'\n' | b'\r'))
            .collect();
        for start in 0..view.len() {
            if view[start..].starts_with(&pattern) {
                for &at in &visible[start..start + pattern.len()] {
                    hidden[at] = true;
                }
            }
        }
    }
    let mut out = Vec::new();
    let mut open = false;
    for (at, &byte) in bytes.iter().enumerate() {
        if !hidden[at] {
            out.push(byte);
            open = false;
        } else if !open {
            out.extend_from_slice(b"***");
            open = true;
        }
    }
    String::from_utf8(out).unwrap()
}

/// Cuts `text` at the given places (modulo its length) and streams the pieces.
fn stream(masker: &Masker, text: &str, cuts: &[usize]) -> String {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
    places.extend([0, text.len()]);
    places.sort_unstable();
    let mut filter = masker.filter();
    let mut out = Vec::new();
    for pair in places.windows(2) {
        filter.push(&text.as_bytes()[pair[0]..pair[1]], &mut out);
    }
    filter.finish(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Secrets from a small alphabet without any character an encoding would touch, so that the
/// patterns are known here: they overlap, nest and touch all the time. Short and long patterns
/// are found by different means, so some sets have only long ones.
fn tangled_secrets() -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        prop::collection::vec("[ab]{3,4}x[ab]{0,6}", 1..6),
        prop::collection::vec("[ab]{5,9}x[ab]{2,9}", 1..6),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_chunking_equals_the_naive_masker(
        secrets in tangled_secrets(),
        text in prop::collection::vec(
            prop_oneof![3 => "[abx]{1,12}", 1 => Just("\n".to_owned()), 1 => Just("\r\n".to_owned())],
            0..30,
        ),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let masker = Masker::default();
        for secret in &secrets {
            masker.admit("s", secret.clone());
        }
        let text = text.concat();
        let whole = masker.mask(&text);
        prop_assert_eq!(&stream(&masker, &text, &cuts), &whole);
        prop_assert_eq!(whole, naive(&secrets, &text));
    }

    #[test]
    fn a_secret_planted_anywhere_is_found(
        secret in "[a-z0-9]{8,30}",
        before in "[ -~\n]{0,40}",
        after in "[ -~\n]{0,40}",
        width in 1_usize..40,
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let masker = Masker::default();
        masker.admit("s", secret.clone());
        prop_assume!(masker.pattern_count() > 0);
        let planted: Vec<&str> = secret
            .as_bytes()
            .chunks(width)
            .map(|piece| std::str::from_utf8(piece).unwrap())
            .collect();
        let text = format!("{before}{}{after}", planted.join("\n"));
        let out = stream(&masker, &text, &cuts).replace('\n', "");
        prop_assert!(!out.contains(&secret), "{out:?}");
        prop_assert_eq!(stream(&masker, &text, &cuts), naive(&[secret], &text));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_encoding_of_any_secret_survives_any_chunking(
        secret in "[ -~éß€\u{1F511}]{4,40}(\n[ -~]{4,30}){0,3}",
        before in "[ -~\n]{0,30}",
        after in "[ -~\n]{0,30}",
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let masker = Masker::default();
        masker.admit("s", secret.clone());
        // What the masker refuses to hide it reports; that is tested elsewhere.
        prop_assume!(masker.pattern_count() > 0);
        for leak in leaks::encodings(&secret) {
            let text = format!("{before}{}{after}", leak.printed);
            let out = stream(&masker, &text, &cuts);
            prop_assert!(
                !leak.is_in(&out),
                "{} of {:?} survived as {:?}", leak.name, secret, out
            );
        }
    }
}

/// The encodings as foreign programs make them, written here a second time and by other means
/// than in the product.
mod leaks {
    use base64::Engine as _;
    use base64::alphabet;
    use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, STANDARD, URL_SAFE};

    /// One way a program prints a secret.
    pub(super) struct Leak {
        pub(super) name: String,
        /// What is printed; may carry more than the secret.
        pub(super) printed: String,
        /// The stretch of it that the secret alone decides.
        secret_part: String,
    }

    impl Leak {
        /// True when `text` still holds it (line breaks do not count).
        pub(super) fn is_in(&self, text: &str) -> bool {
            let flat = |text: &str| text.replace(['\n', '\r'], "");
            flat(text).contains(&flat(&self.secret_part))
        }
    }

    fn each(value: &str, map: impl Fn(char) -> String) -> String {
        value.chars().map(map).collect()
    }

    fn wrap(text: &str, width: usize) -> String {
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(width)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        lines.join("\n")
    }

    pub(super) fn encodings(value: &str) -> Vec<Leak> {
        let mut all: Vec<Leak> = Vec::new();
        let mut cores = Vec::new();
        let mut add = |name: &str, text: String| {
            all.push(Leak {
                name: name.to_owned(),
                secret_part: text.clone(),
                printed: text,
            });
        };
        let trimmed = value.trim();
        add("raw", value.to_owned());
        for line in value.lines().map(str::trim) {
            if line.len() >= 6
                && line.chars().any(char::is_alphabetic)
                && line.chars().any(|c| c.is_ascii_digit())
            {
                add("line", line.to_owned());
            }
        }
        let url_bare = GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD);
        for before in ["", "u", "u:", "usr", "user:"] {
            for after in ["", "\n", "@host", "\u{ff}"] {
                let text = format!("{before}{value}{after}");
                for (name, encoded) in [
                    ("base64", STANDARD.encode(&text)),
                    ("base64url", URL_SAFE.encode(&text)),
                    ("base64url bare", url_bare.encode(&text)),
                ] {
                    let first = before.len().div_ceil(3) * 4;
                    let last = (before.len() + value.len()) / 3 * 4;
                    if first + 8 <= last {
                        cores.push((name, encoded.clone(), first, last));
                    }
                    let twice = STANDARD.encode(&encoded);
                    let (first, last) = (first.div_ceil(3) * 4, last / 3 * 4);
                    if first + 8 <= last && name == "base64" {
                        cores.push(("base64 of base64", twice, first, last));
                    }
                }
            }
        }
        add("base64 in lines of 64", wrap(&STANDARD.encode(value), 64));
        add("base64 in lines of 76", wrap(&STANDARD.encode(value), 76));
        add("base64 in lines of 19", wrap(&STANDARD.encode(value), 19));
        let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
        add("hex upper", hex.to_uppercase());
        add("hex in lines of 32", wrap(&hex, 32));
        add("hex", hex);
        let percent = each(trimmed, |c| {
            if c.is_ascii_alphanumeric() || "-_.~".contains(c) {
                c.to_string()
            } else {
                c.to_string()
                    .bytes()
                    .map(|byte| format!("%{byte:02X}"))
                    .collect()
            }
        });
        add(
            "form",
            percent
                .replace("%20", "+")
                .replace("%2A", "*")
                .replace('~', "%7E"),
        );
        add(
            "percent lower",
            percent
                .split('%')
                .enumerate()
                .map(|(index, part)| match index {
                    0 => part.to_owned(),
                    _ => format!("%{}{}", part[..2].to_lowercase(), &part[2..]),
                })
                .collect(),
        );
        add("percent", percent);
        let json = serde_json::to_string(trimmed).unwrap();
        let twice = serde_json::to_string(&json).unwrap();
        add("json in json", twice[3..twice.len() - 3].to_owned());
        add("json", json[1..json.len() - 1].to_owned());
        add(
            "json ascii",
            each(&json[1..json.len() - 1], |c| match c.is_ascii() {
                true => c.to_string(),
                false => c
                    .encode_utf16(&mut [0; 2])
                    .iter()
                    .map(|unit| format!("\\u{unit:04x}"))
                    .collect(),
            }),
        );
        add(
            "sh single",
            trimmed.split('\'').collect::<Vec<_>>().join("'\\''"),
        );
        add(
            "sh double",
            each(trimmed, |c| match c {
                '"' | '$' | '`' | '\\' => format!("\\{c}"),
                _ => c.to_string(),
            }),
        );
        add(
            "html",
            each(trimmed, |c| match c {
                '&' => "&amp;".into(),
                '<' => "&lt;".into(),
                '>' => "&gt;".into(),
                '"' => "&quot;".into(),
                '\'' => "&#39;".into(),
                _ => c.to_string(),
            }),
        );
        add("command line", trimmed.replace('"', "\\\""));
        add("expression", trimmed.replace('\'', "''"));
        all.extend(cores.into_iter().map(|(name, printed, first, last)| Leak {
            name: name.to_owned(),
            secret_part: printed[first..last].to_owned(),
            printed,
        }));
        all
    }
}

#[test]
fn a_planted_leak_is_seen_by_the_leak_check() {
    // The check itself must be able to fail: a masker that does not know the secret leaks it.
    let secret = "s3cr3t-value-42";
    let leaks = leaks::encodings(secret);
    assert!(leaks.len() > 60, "only {} ways to leak", leaks.len());
    for leak in leaks {
        let text = format!("x {} y", leak.printed);
        let out = stream(&Masker::default(), &text, &[5, 9]);
        assert!(leak.is_in(&out), "{} would go unnoticed", leak.name);
    }
}

#[test]
fn overlapping_and_touching_hits_become_one_mask() {
    let masker = Masker::default();
    masker.admit("a", "alpha-1234".into());
    masker.admit("b", "1234-omega".into());
    for (text, expected) in [
        ("alpha-1234", "***"),
        ("[alpha-1234-omega]", "[***]"),
        ("[alpha-12341234-omega]", "[***]"),
        ("[alpha-1234 1234-omega]", "[*** ***]"),
        ("alpha-12\n34 after", "***\n*** after"),
        ("alpha-123", "alpha-123"),
        ("", ""),
    ] {
        assert_eq!(masker.mask(text), expected, "{text:?}");
        let cuts: Vec<usize> = (0..text.len()).collect();
        assert_eq!(
            stream(&masker, text, &cuts),
            expected,
            "byte by byte: {text:?}"
        );
    }
}

#[test]
fn a_hit_stays_hidden_while_its_end_is_held_for_another_secret() {
    let masker = Masker::default();
    masker.admit("a", "abaxa".into());
    masker.admit("b", "aabxa".into());
    let text = "xaabxabaxx";
    for first in 0..text.len() {
        for second in first..text.len() {
            assert_eq!(stream(&masker, text, &[first, second]), "x***baxx");
        }
    }
}

#[test]
fn a_secret_learnt_in_the_middle_of_a_stream_is_masked_from_then_on() {
    let masker = Masker::default();
    let mut filter = masker.filter();
    let mut out = Vec::new();
    filter.push(b"before hunter2-hunter2 ", &mut out);
    masker.admit("late", "hunter2-hunter2".into());
    filter.push(b"after hunter2-hunter2\n", &mut out);
    filter.finish(&mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "before hunter2-hunter2 after ***\n"
    );
}

#[test]
fn the_end_of_a_message_lets_short_beginnings_go_and_masks_what_continues() {
    let masker = Masker::default();
    masker.admit("s", "hunter2-and-more".into());
    let mut filter = masker.filter();
    let mut out = Vec::new();
    filter.push(b"ends in hunt\n", &mut out);
    assert_eq!(out, b"ends in ", "a possible beginning waits");
    filter.end_message(&mut out);
    assert_eq!(out, b"ends in hunt\n", "a short one is let go");
    filter.push(b"er2-and-more now\n", &mut out);
    filter.end_message(&mut out);
    assert_eq!(String::from_utf8_lossy(&out), "ends in hunt\n*** now\n");
    out.clear();
    filter.push(b"ends in hunter2-and\n", &mut out);
    filter.end_message(&mut out);
    assert_eq!(out, b"ends in ", "a long one waits for the next message");
    filter.push(b"-more\n", &mut out);
    filter.finish(&mut out);
    assert_eq!(String::from_utf8_lossy(&out), "ends in ***\n***\n");
}

#[test]
fn long_repetitive_secrets_in_long_repetitive_text_stay_cheap() {
    let masker = Masker::default();
    masker.admit("a", "a".repeat(4_000));
    masker.admit("b", format!("{}b", "a".repeat(4_000)));
    let text = "a".repeat(1 << 16);
    let started = std::time::Instant::now();
    assert_eq!(masker.mask(&text), "***");
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?} for 64 KiB",
        started.elapsed()
    );
}

#[test]
fn of_a_text_that_was_cut_no_half_of_a_secret_is_kept() {
    let masker = Masker::default();
    let secret: String = (100..200).map(|n| format!("{}k", n * 7)).collect();
    masker.admit("s", secret.clone());
    for (text, expected) in [
        (secret.repeat(9) + &secret[..secret.len() - 1], "***"),
        (format!("a {secret} b {}", &secret[..20]), "a *** b "),
        ("nothing of it".to_owned(), "nothing of it"),
        (String::new(), ""),
    ] {
        assert_eq!(masker.mask_beginning(&text), expected);
    }
    // Its encodings are longer than itself.
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        masker.mask_beginning(&format!("x {}", &hex[..hex.len() - 2])),
        "x "
    );
}

#[test]
fn what_a_secret_is_made_of_is_secret_too() {
    let masker = Masker::default();
    let key_file = r#"{"type": "service_account", "project_id": "my-project-7",
        "private_key": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqh\nkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n",
        "client_email": "svc@my-project-7.iam.example", "token_uri": "https://oauth.example/token",
        "nested": {"tok": ["nested-Tok-8899"]}, "mail": {"url": "smtp://u:Mail-Pass-77@h"}, "n": 1}"#;
    masker.admit("key", key_file.to_owned());
    masker.admit(
        "dsn",
        "host=db.example user=app password='Dsn-Inner-55' dbname=x".to_owned(),
    );
    masker.admit(
        "ado",
        "Server=tcp:h;User Id=app;Pwd=Ado-Inner-66;Encrypt=True".to_owned(),
    );
    for (text, expected) in [
        ("pass=nested-Tok-8899.", "pass=***."),
        ("Mail-Pass-77", "***"),
        ("MIIEvQIBADANBgkqh", "***"),
        ("is Dsn-Inner-55", "is ***"),
        ("is Ado-Inner-66", "is ***"),
        // As Base64 inside something else.
        ("bmVzdGVkLVRvay04ODk5", "***"),
        // What everybody may know stays readable.
        (
            "service_account of my-project-7 at db.example",
            "service_account of my-project-7 at db.example",
        ),
        (
            "svc@my-project-7.iam.example",
            "svc@my-project-7.iam.example",
        ),
    ] {
        assert_eq!(masker.mask(text), expected);
    }
}
