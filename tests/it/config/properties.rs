//! Whatever the text: no panic, and every place is real.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        drop(case(text).load());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(case(bytes).load());
    }

    #[test]
    fn yaml_like_text_never_panics(text in "([ \\-\\[\\]{}:,&*#'\"a-c\n${}.|>!?~0-9\t]|modules|name|type|config){0,120}") {
        drop(case(text).load());
    }

    /// Cutting and splicing the document that uses every key: no panic, and every place is real.
    #[test]
    fn damaged_documents_never_panic(cut in 0_usize..5_000, length in 0_usize..60, put in "[ \\n:{}\\[\\]'\"$&*a]{0,6}") {
        let mut text = String::from_utf8(fixture("good/everything.yaml")).unwrap();
        let start = cut.min(text.len());
        let end = (start + length).min(text.len());
        if text.is_char_boundary(start) && text.is_char_boundary(end) {
            text.replace_range(start..end, &put);
        }
        let lines = text.lines().count() as u32;
        let case = case(&text).environment("prod");
        if let Err(reports) = case.load() {
            prop_assert!(!reports.is_empty());
            for report in reports {
                if let Some(span) = report.at {
                    prop_assert!(span.line >= 1 && span.line <= lines.max(1) + 1);
                    prop_assert!(span.column >= 1 && span.width >= 1);
                    prop_assert!(span.excerpt.is_empty() || span.column as usize <= span.excerpt.chars().count() + 1);
                }
            }
        }
    }
}
