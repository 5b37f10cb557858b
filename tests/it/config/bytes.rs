//! Bytes that are no config, and limits.

use super::*;

#[test]
fn bad_bytes_are_clean_errors() {
    for (bytes, expected) in [
        (b"".to_vec(), "config/empty: `infra.yaml` has no content"),
        (
            b"# only a comment\n".to_vec(),
            "config/empty: `infra.yaml` has no content",
        ),
        (
            b"---\n...\n".to_vec(),
            "config/empty: `infra.yaml` has no content",
        ),
        (
            b"a: b\nx: \xff\n".to_vec(),
            "infra.yaml:2:4: config/not-utf8",
        ),
        (b"\xff\xfea\0".to_vec(), "config/not-utf8"),
        (
            b"modules:\n\t- name: a\n".to_vec(),
            "infra.yaml:2:1: config/tab",
        ),
        (
            b"modules:\n  - name: a\n\ttype: b\n".to_vec(),
            "infra.yaml:3:1: config/tab",
        ),
        (
            b"modules: [\n  a\0b]\n".to_vec(),
            "infra.yaml:2:4: config/bad-character",
        ),
        (b"modules: [a\n".to_vec(), "config/syntax"),
        (b"modules: 'a\n".to_vec(), "config/syntax"),
        (b"a: b: c\n".to_vec(), "config/syntax"),
        (
            b"- a\n".to_vec(),
            "infra.yaml:1:1: config/wrong-type: `the config` must be a map",
        ),
        (b"just text\n".to_vec(), "config/wrong-type"),
        (
            b"modules: []\n---\nmodules: []\n".to_vec(),
            "infra.yaml:2:1: config/several-documents",
        ),
        (b"modules: !Ref x\n".to_vec(), "config/unsupported-tag"),
        (b"modules: *nope\n".to_vec(), "config/syntax"),
        (b"x-a: &a [*a]\n".to_vec(), "config/endless-alias"),
        (b"[a]: b\n".to_vec(), "config/bad-key"),
        (b"? \n: b\n".to_vec(), "config/bad-key"),
        (b"<<: 7\n".to_vec(), "config/wrong-type"),
    ] {
        let errors = case(&bytes).errors();
        assert!(
            errors.contains(expected),
            "{:?}: {errors}",
            String::from_utf8_lossy(&bytes)
        );
    }
    case(b"\xef\xbb\xbfmodules: []\r\n").config();
    case(b"8080: x\n").errors();
}

#[test]
fn a_byte_order_mark_does_not_shift_places() {
    insta::assert_snapshot!(case("\u{feff}é: 1\nmodulez: []\n").errors(), @r#"
    infra.yaml:1:1: config/unknown-key: the config has no key `é` (unknown key)
    infra.yaml:2:1: config/unknown-key: the config has no key `modulez` (did you mean `modules`?)
    "#);
}

#[test]
fn nesting_has_a_limit() {
    for text in [
        format!("x-a: {}", "[".repeat(5_000)),
        format!("x-a: {}1{}", "[".repeat(100), "]".repeat(100)),
        format!("x-a: {}", "{a: ".repeat(5_000)),
        format!(
            "x-a:\n{}",
            (1..300)
                .map(|n| format!("{}a:\n", " ".repeat(n)))
                .collect::<String>()
        ),
        format!("x-a:\n  {}x", "- ".repeat(5_000)),
    ] {
        let errors = case(&text).errors();
        assert!(errors.contains("config/too-deep"), "{errors}");
    }
    case(format!("x-a: {}1{}", "[".repeat(50), "]".repeat(50))).config();
}

#[test]
fn a_large_honest_file_loads_and_a_small_dishonest_one_does_not() {
    let bomb = fixture("alias-bomb.yaml");
    assert!(bomb.len() < 400);
    let begun = Instant::now();
    let errors = case(&bomb).errors();
    assert!(errors.contains("config/alias-bomb"), "{errors}");
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());

    // Text that is copied counts as well as values.
    let wide = format!(
        "x-a: &a {}\nx-b: [{}]\n",
        "y".repeat(1 << 18),
        "*a,".repeat(2_000)
    );
    assert!(case(wide).errors().contains("config/alias-bomb"));

    let honest = generated(10_000);
    assert!(honest.len() > 2_500_000, "{}", honest.len());
    assert_eq!(case(&honest).config().resources.len(), 10_000);

    let dense = format!("x-a: [{}]", "1,".repeat(400_000));
    assert!(case(dense).errors().contains("config/too-many-values"));
}

#[test]
fn a_file_that_is_too_large_is_refused_by_name_of_the_limit() {
    let large = vec![b'#'; usize::try_from(FILE_BYTES_MAX).unwrap() + 1];
    let reports = case(large).load().unwrap_err();
    assert_eq!(reports[0].code, "config/unreadable");
    assert!(reports[0].because[0].contains("16 MiB"), "{reports:?}");
}

#[test]
fn many_mistakes_do_not_take_the_square_of_the_time() {
    let text = generated(2_000).replace("depends_on: [m", "depends_on: [n");
    let begun = Instant::now();
    let reports = case(text).load().unwrap_err();
    // The first 500, and how many more there are.
    assert_eq!(reports.len(), 501);
    let last = &reports[500].message;
    assert!(
        last.starts_with("and 1") && last.contains("more problems"),
        "{last}"
    );
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}

/// A config of `count` resources, about 300 bytes each.
fn generated(count: usize) -> String {
    let mut text = String::from(
        "modules:\n  - name: cloud\n    type: iac.provider\n    config: {provider: local, root: ./.local}\n",
    );
    for number in 0..count {
        let before = number.saturating_sub(1);
        text.push_str(&format!(
            "  - name: m{number}\n    type: infra.container_service\n    config:\n      provider: cloud\n      image: registry.example.net/team/service-{number}:1.4.2\n      size: s\n      depends_on: [m{before}]\n      http_port: {}\n      env_vars:\n        LOG_LEVEL: info\n        UPSTREAM: \"${{m{before}.live_url}}/api\"\n",
            8000 + number % 1000
        ));
    }
    text.replace("depends_on: [m0]\n      http_port: 8000\n      env_vars:\n        LOG_LEVEL: info\n        UPSTREAM: \"${m0.live_url}/api\"", "depends_on: []\n      http_port: 8000\n      env_vars:\n        LOG_LEVEL: info\n        UPSTREAM: none")
}
