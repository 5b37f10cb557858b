//! `docs/plugin-checklist.md`, held: every row of the contract is there, and names tests that exist
//! and carry its number.

use crate::scenarios::every_test;

use super::*;

#[test]
fn every_row_of_the_checklist_has_a_test_with_its_number() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = every_test();
    let text = fs::read_to_string(root.join("docs/plugin-checklist.md")).unwrap();
    let mut rows = Vec::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [row, meaning, named] = cells.as_slice() else {
            continue;
        };
        let is_row = |kind| {
            row.strip_prefix(kind)
                .is_some_and(|number| number.parse::<u32>().is_ok())
        };
        if !is_row('H') && !is_row('S') {
            continue;
        }
        rows.push((*row).to_owned());
        assert!(meaning.len() > 20, "{row} says what it means");
        let mut carries_number = false;
        for name in named.split(", ").map(|name| name.trim_matches('`')) {
            assert!(tests.contains(name), "{row}: there is no test {name}");
            let number = row.to_lowercase();
            carries_number |= name.split('_').any(|part| part == number);
        }
        assert!(carries_number, "{row}: no test of its own number");
    }
    let expected = (1..=40)
        .map(|number| format!("H{number}"))
        .chain((1..=17).map(|number| format!("S{number}")));
    assert_eq!(rows, expected.collect::<Vec<_>>());
}
