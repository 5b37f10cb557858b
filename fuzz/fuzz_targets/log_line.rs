//! Any foreign text: what is shown holds no command in either grammar and no control character.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::report::text::{Limits, neutralise};

fuzz_target!(|text: &str| {
    for line in neutralise(text, Limits::RELAYED).split('\n') {
        let seen: String = line
            .chars()
            .filter(|c| {
                !c.is_control() && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}')
            })
            .collect();
        assert!(!seen.trim_start().starts_with("::"), "{line:?}");
        assert!(!seen.contains("##["), "{line:?}");
        assert!(
            !line.chars().any(|c| c.is_control() && c != '\t'),
            "{line:?}"
        );
    }
});
