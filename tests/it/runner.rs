//! What we write, read by a model of the GitHub runner: no command we did not mean, no secret in
//! any encoding, masks in time, files that parse back to what was meant.

pub(crate) mod model;
mod peer;
mod scene;

use proptest::prelude::*;
use tidegate::actions::{Summary, file, summary::Piece};
use tidegate::face::FaceKind;
use tidegate::random::SeededRandom;
use tidegate::report::{Event, Report, Reporter as _, Severity, Span};
use tidegate::secret::Masker;

use model::Runner;
use scene::Scene;

/// Text that tries everything at once.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("::"),
        Just("::error::x"),
        Just("::add-mask::a"),
        Just("::set-output name=a::b"),
        Just("::stop-commands::x"),
        Just("##["),
        Just("##[error]x"),
        Just("##[group]"),
        Just("#"),
        Just("["),
        Just(":"),
        Just("]"),
        Just("\r"),
        Just("\n"),
        Just("\r\n"),
        Just("\u{b}"),
        Just("\u{c}"),
        Just("\u{85}"),
        Just("\u{2028}"),
        Just("\u{2029}"),
        Just("\u{feff}"),
        Just("\u{200b}"),
        Just("\u{200d}"),
        Just("\u{ad}"),
        Just("\u{fe0f}"),
        Just("\u{34f}"),
        Just("\u{202e}"),
        Just("\u{1b}[0m"),
        Just("\u{9b}31m"),
        Just("\0"),
        Just(" "),
        Just("\t"),
        Just("\u{a0}"),
        Just("\u{3000}"),
        Just("%0A"),
        Just("a"),
        Just("word"),
        Just("é"),
        Just("名"),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn hostile_text_in_any_field_is_never_a_command(
        fields in prop::collection::vec(hostile(), 8),
        face in prop_oneof![Just(FaceKind::Actions), Just(FaceKind::Plain), Just(FaceKind::Terminal)],
    ) {
        let mut fields = fields.into_iter();
        let mut next = || fields.next().unwrap_or_else(|| "::error::again".to_owned());
        let events = scene::every_event(&mut next);
        let scene = Scene::new(face, true);
        for event in &events {
            scene.ui.say(event.clone());
        }
        scene.ui.data(&next());
        scene.ui.json(&serde_json::json!({next(): [next()]}));
        scene.ui.finish().unwrap();

        let data = Runner::read(&scene.stdout_bytes());
        prop_assert_eq!(data.names(), Vec::<&str>::new(), "data is data");
        let out = scene.log_bytes();
        let runner = Runner::read(&out);
        prop_assert!(!runner.is_stopped(), "commands are resumed");
        prop_assert_eq!(&runner.failures, &Vec::<String>::new());
        let expected: Vec<&str> = match face {
            FaceKind::Actions => scene::commands_of(&events),
            FaceKind::Plain | FaceKind::Terminal => Vec::new(),
        };
        prop_assert_eq!(runner.names(), expected, "{}", String::from_utf8_lossy(&out));
        // Even with the stop-commands pairs taken away, the lines between are harmless.
        let bare: Vec<String> = model::lines(&out)
            .into_iter()
            .filter(|line| !line.starts_with("::"))
            .collect();
        let bare = Runner::read(bare.join("\n").as_bytes());
        prop_assert_eq!(bare.names(), Vec::<&str>::new());
        for character in String::from_utf8_lossy(&out).chars() {
            prop_assert!(
                matches!(character, '\n' | '\t') || !character.is_control(),
                "{character:?} got out"
            );
        }
        for write in scene.writes() {
            prop_assert!(write.ends_with(b"\n"), "a write that is not a whole line");
            prop_assert_eq!(write.iter().filter(|byte| **byte == b'\n').count(), 1);
        }
    }

    #[test]
    fn outside_actions_no_control_character_reaches_the_terminal(
        fields in prop::collection::vec(hostile(), 8),
        face in prop_oneof![Just(FaceKind::Plain), Just(FaceKind::Terminal)],
    ) {
        let mut fields = fields.into_iter();
        let mut next = || fields.next().unwrap_or_default();
        let scene = Scene::new(face, false);
        for event in scene::every_event(&mut next) {
            scene.ui.say(event);
        }
        scene.ui.finish().unwrap();
        let shown = scene.stderr();
        // Our own erase sequences are the only escapes: nobody else can write one.
        let shown = scene::without_our_own_sequences(&shown);
        for character in shown.chars() {
            prop_assert!(
                matches!(character, '\n' | '\t') || !character.is_control(),
                "{character:?} got out in {shown:?}"
            );
        }
        prop_assert_eq!(scene.stdout_bytes(), b"");
    }

    #[test]
    fn key_value_files_parse_back_to_exactly_what_was_meant(
        pairs in prop::collection::vec(("[A-Za-z_][A-Za-z0-9_-]{0,8}", hostile()), 0..6),
        seed in any::<u64>(),
    ) {
        let random = SeededRandom::new(seed);
        let mut text = String::new();
        let mut meant = Vec::new();
        for (name, value) in pairs {
            let Ok(entry) = file::entry(&name, &value, &random) else {
                prop_assert!(value.contains('\0'));
                continue;
            };
            text.push_str(&entry);
            meant.push((name, value));
        }
        prop_assert_eq!(model::entries(&text).unwrap(), meant);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_secret_gets_out_through_any_door_and_masks_come_first(
        secret in "[!-~]{8,24}",
        other in "[a-z]{3,8}\n[A-Za-z0-9+/]{12,40}\n[a-z]{3,8}",
        face in prop_oneof![Just(FaceKind::Actions), Just(FaceKind::Plain), Just(FaceKind::Terminal)],
        in_actions in any::<bool>(),
    ) {
        use base64::Engine as _;
        prop_assume!(secret.chars().any(char::is_alphabetic));
        let scene = Scene::new(face, in_actions || face == FaceKind::Actions);
        scene.masker.admit("first", secret.clone());
        scene.masker.admit("second", other.clone());
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("u:{secret}\n"));
        let carriers = [
            secret.clone(),
            format!("x{secret}y"),
            encoded.clone(),
            serde_json::to_string(&secret).unwrap(),
            other.clone(),
            format!("\u{1b}{secret}\r{other}"),
        ];
        for carrier in &carriers {
            let mut next = || carrier.clone();
            for event in scene::every_event(&mut next) {
                scene.ui.say(event);
            }
            scene.ui.data(carrier);
            scene.ui.debug(carrier);
            scene.ui.json(&serde_json::json!({carrier: [carrier, {"k": carrier}]}));
            scene.ui.summary(carrier);
            // Refused or harmless; never written.
            drop(scene.ui.output("result", carrier));
        }
        scene.ui.finish().unwrap();

        for door in [scene.without_masks(), scene.summary_text(), scene.output_text()] {
            let flat = door.replace(['\n', '\r'], "");
            for needle in [
                secret.as_str(),
                &encoded[4..encoded.len() - 8],
                other.lines().nth(1).unwrap(),
            ] {
                prop_assert!(!flat.contains(needle), "{needle:?} in\n{door}");
            }
        }
        if in_actions || face == FaceKind::Actions {
            let runner = Runner::read(&scene.log_bytes());
            prop_assert_eq!(runner.names()[0], "add-mask");
            prop_assert!(runner.masks.contains(&secret), "{:?}", runner.masks);
        }
    }
}

#[test]
fn a_planted_leak_turns_the_leak_test_red() {
    // The same doors, with the filter left out: the check above must notice.
    let scene = Scene::new(FaceKind::Actions, true);
    let unknown = "never-admitted-value";
    scene.ui.data(unknown);
    scene.ui.finish().unwrap();
    assert!(scene.without_masks().contains(unknown));
}

#[test]
fn secrets_are_hidden_before_text_is_cut_or_set_behind_a_bar() {
    use base64::Engine as _;
    use tidegate::report::text::Limits;
    let secret = "correct-horse-battery-staple-0123456789-0123456789";
    let encoded = base64::engine::general_purpose::STANDARD.encode(secret);
    let scene = Scene::new(FaceKind::Plain, false);
    scene.masker.admit("s", secret.into());
    let wrapped = format!("{}\n{}", &encoded[..30], &encoded[30..]);
    let long = format!(
        "{}{secret}",
        "x".repeat(Limits::RELAYED.line_bytes_max - 20)
    );
    for text in [wrapped, long] {
        scene.ui.say(Event::Relayed {
            source: "cloud".into(),
            text,
        });
    }
    scene.ui.finish().unwrap();
    let shown = scene.stderr();
    for leaked in [&encoded[..30], &encoded[30..], "correct-horse"] {
        assert!(!shown.contains(leaked), "{leaked}");
    }
}

#[test]
fn masks_are_on_the_stream_before_the_secret_can_be() {
    let scene = Scene::new(FaceKind::Actions, true);
    let password = scene
        .masker
        .admit("password", "hunter2%\u{85}x hunter2".into());
    let written = scene.stderr();
    assert!(
        written.starts_with("::add-mask::hunter2%25\u{85}x hunter2\n"),
        "admit returns after the mask is written: {written:?}"
    );
    assert_eq!(
        scene.stdout_bytes(),
        b"",
        "and no plaintext is on the other stream"
    );
    scene
        .ui
        .reveal("password", password.expose(), &[password.expose()]);
    let runner = Runner::read(&scene.stdout_bytes());
    assert!(
        runner.log.iter().all(|line| !line.contains("hunter2")),
        "the runner hides what --show-sensitive shows: {:?}",
        runner.log
    );
    assert!(runner.log.iter().any(|line| line.contains("***")));
}

#[test]
fn whoever_keeps_the_data_gets_the_data_and_nothing_else() {
    let odd = "a ## [x] \u{202e}b\n::error::c";
    for scene in [Scene::into_a_file(), Scene::new(FaceKind::Actions, true)] {
        scene.masker.admit("password", "hunter2-hunter2".into());
        scene.ui.say(Event::Note {
            text: "State is kept in x".into(),
        });
        scene
            .ui
            .say(Event::Problem(Box::new(Report::warning("a/b", "careful"))));
        let document = serde_json::json!({odd: [odd, "hunter2-hunter2"]});
        scene.ui.json(&document);
        scene.ui.finish().unwrap();
        let back: serde_json::Value = serde_json::from_slice(&scene.stdout_bytes()).unwrap();
        assert_eq!(
            back,
            serde_json::json!({odd: [odd, "***"]}),
            "still the same JSON"
        );
        assert!(scene.stderr().contains("::add-mask::hunter2-hunter2\n"));
        assert!(scene.stderr().contains("State is kept in x"));
    }
    // JSON of a command's own keeps its meaning, too; other text is guarded only for a runner.
    let scene = Scene::new(FaceKind::Actions, true);
    scene.ui.data(&serde_json::json!([odd]).to_string());
    let back: serde_json::Value = serde_json::from_slice(&scene.stdout_bytes()).unwrap();
    assert_eq!(back, serde_json::json!([odd]));
    let scene = Scene::into_a_file();
    scene.ui.data(odd);
    assert_eq!(scene.stdout_bytes(), format!("{odd}\n").as_bytes());
    // On purpose, in the clear: a runner that reads along is told first, a file is not.
    for (scene, masks) in [
        (Scene::into_a_file(), 0),
        (Scene::new(FaceKind::Actions, true), 1),
    ] {
        scene
            .ui
            .reveal("password", "hunter2-hunter2", &["hunter2-hunter2"]);
        let text = String::from_utf8(scene.stdout_bytes()).unwrap();
        assert_eq!(
            text.matches("::add-mask::hunter2-hunter2\n").count(),
            masks,
            "{text}"
        );
        assert!(
            text.ends_with("\nhunter2-hunter2\n") || text == "hunter2-hunter2\n",
            "{text}"
        );
    }
}

#[test]
fn secrets_admitted_before_the_writer_exists_are_announced_when_it_does() {
    let masker = Masker::default();
    masker.admit("early", "early-secret-1".into());
    masker.admit("tiny", "abc".into());
    let scene = Scene::with_masker(FaceKind::Actions, true, masker);
    let runner = Runner::read(&scene.log_bytes());
    assert_eq!(runner.names()[0], "add-mask");
    assert!(runner.masks.contains(&"early-secret-1".to_owned()));
    let log = runner.log.join("\n");
    assert!(log.contains("`tiny` cannot be hidden"), "{log}");
    assert!(!log.contains("abc"));
}

#[test]
fn a_multi_line_secret_never_becomes_a_mask_of_a_brace() {
    let scene = Scene::new(FaceKind::Actions, true);
    scene.masker.admit(
        "account",
        "{\n  \"private\": \"a1b2c3d4e5\",\n  \"n\": 1\n}\n".into(),
    );
    scene.ui.data("{\n  \"status\": \"ready\"\n}\n");
    let runner = Runner::read(&scene.log_bytes());
    assert!(runner.masks.iter().all(|mask| mask.len() >= 4));
    assert_eq!(runner.log, ["{", "  \"status\": \"ready\"", "}"]);
}

#[test]
fn equal_secrets_are_announced_once() {
    let scene = Scene::new(FaceKind::Actions, true);
    scene.masker.admit("a", "the-same-value".into());
    let before = scene.log_bytes().len();
    scene.masker.admit("b", "the-same-value".into());
    assert_eq!(scene.log_bytes().len(), before);
}

#[test]
fn thirty_errors_make_nine_annotations_and_one_that_counts() {
    let scene = Scene::new(FaceKind::Actions, true);
    for n in 0..30 {
        scene.ui.say(Event::Problem(Box::new(Report::error(
            "config/x",
            format!("problem {n}"),
        ))));
    }
    scene.ui.finish().unwrap();
    let runner = Runner::read(&scene.log_bytes());
    assert_eq!(runner.annotations["error"], 10);
    assert!(runner.overflowing().is_empty());
    for n in 0..30 {
        assert!(
            runner
                .log
                .iter()
                .any(|line| line.ends_with(&format!("problem {n}"))),
            "problem {n} is in the log"
        );
    }
    assert!(
        runner
            .log
            .iter()
            .any(|line| line.contains("and 21 more errors"))
    );
    // What the annotations promise.
    let summary = scene.summary_text();
    for n in 0..30 {
        assert!(summary.contains(&format!("problem {n} |")), "{summary}");
    }
}

#[test]
fn a_run_without_a_page_says_in_the_summary_what_was_wrong_and_nothing_secret() {
    let scene = Scene::new(FaceKind::Actions, true);
    scene.masker.admit("s", "hunter2-hunter2".into());
    let span = tidegate::report::Span {
        path: "infra.yaml".into(),
        line: 4,
        column: 7,
        width: 1,
        excerpt: "x".into(),
    };
    let report = Report::error("config/x", "`hunter2-hunter2` <img src=x> is wrong")
        .at(span)
        .fix("write | otherwise");
    scene.ui.say(Event::Problem(Box::new(report)));
    for n in 0..300 {
        let warning = Report::warning("config/y", format!("warning {n}"));
        scene.ui.say(Event::Problem(Box::new(warning)));
    }
    scene.ui.finish().unwrap();
    let summary = scene.summary_text();
    assert!(
        summary.contains("| `config/x` | `infra.yaml:4:7` |"),
        "{summary}"
    );
    assert!(
        !summary.contains("hunter2") && !summary.contains("<img"),
        "{summary}"
    );
    assert!(summary.contains("and 101 more"), "{summary}");
    let before = summary.len();
    scene.ui.finish().unwrap();
    assert_eq!(scene.summary_text().len(), before, "said once");

    // A page of its own says it better.
    let scene = Scene::new(FaceKind::Actions, true);
    scene.ui.summary("a page");
    scene
        .ui
        .say(Event::Problem(Box::new(Report::error("config/x", "wrong"))));
    scene.ui.finish().unwrap();
    assert!(!scene.summary_text().contains("Problems"));
}

#[test]
fn an_annotation_sits_on_the_line_that_is_wrong_and_leaks_nothing() {
    let scene = Scene::new(FaceKind::Actions, true);
    scene.masker.admit("s", "hunter2-hunter2".into());
    scene.ui.say(Event::Problem(Box::new(
        Report::error("config/bad", "bad value hunter2-hunter2").at(Span {
            path: "infra.yaml".into(),
            line: 3,
            column: 2,
            width: 4,
            excerpt: " key: hunter2-hunter2".into(),
        }),
    )));
    let runner = Runner::read(&scene.log_bytes());
    let error = runner.commands.iter().find(|c| c.name == "error").unwrap();
    assert_eq!(error.properties["file"], "infra.yaml");
    assert_eq!(error.properties["line"], "3");
    assert_eq!(error.properties["col"], "2");
    assert_eq!(error.properties["endcolumn"], "5");
    assert_eq!(error.properties["title"], "config/bad");
    assert_eq!(error.data, "bad value ***");
    assert!(!scene.without_masks().contains("hunter2"));
}

#[test]
fn outputs_are_written_parsed_and_refused_when_they_hold_a_secret() {
    let scene = Scene::new(FaceKind::Actions, true);
    scene.masker.admit("s", "hunter2-hunter2".into());
    scene.ui.output("changed", "true").unwrap();
    scene
        .ui
        .output("summary-json", "{\"a\":\n1}\nEOF\n")
        .unwrap();
    let refused = scene
        .ui
        .output("url", "postgres://u:hunter2-hunter2@h")
        .unwrap_err();
    assert_eq!(refused.code, "actions/secret-output");
    assert_eq!(refused.severity, Severity::Error);
    assert!(scene.ui.output("bad name", "x").is_err());
    assert_eq!(
        model::entries(&scene.output_text()).unwrap(),
        [
            ("changed".to_owned(), "true".to_owned()),
            ("summary-json".to_owned(), "{\"a\":\n1}\nEOF\n".to_owned()),
        ]
    );
}

#[test]
fn variables_for_later_steps_are_whole_entries_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("env");
    let disk = tidegate::disk::SystemDisk;
    let random = SeededRandom::new(1);
    file::append_variable(&disk, &path, "DATABASE_URL", "a\nLD_PRELOAD=x", &random).unwrap();
    let large = "x".repeat(file::ENVIRONMENT_VALUE_BYTES_MAX);
    assert!(file::append_variable(&disk, &path, "LARGE", &large, &random).is_err());
    assert!(file::append_variable(&disk, &path, "BASH_ENV", "x", &random).is_err());
    assert_eq!(
        model::entries(&std::fs::read_to_string(&path).unwrap()).unwrap(),
        [("DATABASE_URL".to_owned(), "a\nLD_PRELOAD=x".to_owned())]
    );
}

#[test]
fn a_summary_stays_below_the_limit_whatever_is_put_in() {
    let scene = Scene::new(FaceKind::Actions, true);
    for n in 0..4 {
        let mut summary = Summary::new(&scene.masker);
        for part in 0..4 {
            let rows: Vec<Vec<Vec<Piece<'_>>>> = (0..2_000)
                .map(|_| {
                    vec![
                        vec![Piece::Code("| <b> `x`")],
                        vec![Piece::Text("*a* @b #1")],
                    ]
                })
                .collect();
            summary
                .section(&format!("Part {n}.{part}"))
                .table(&["Name", "Value"], &rows)
                .details(
                    &[Piece::Text("log")],
                    "text",
                    &"```\n</details>\n".repeat(10_000),
                );
        }
        let text = summary.render();
        assert!(text.len() <= tidegate::actions::summary::SUMMARY_BYTES_MAX);
        assert!(text.contains("Cut to stay below"), "it says so");
        scene.ui.summary(&text);
    }
    let text = scene.summary_text();
    assert!(
        text.len() <= model::SUMMARY_BYTES_MAX,
        "{} bytes",
        text.len()
    );
    assert!(text.contains("The rest of this summary was left out"));
}

#[test]
fn a_reader_that_went_away_is_a_success_and_a_full_disk_is_not() {
    for (kind, is_success) in [
        (std::io::ErrorKind::BrokenPipe, true),
        (std::io::ErrorKind::StorageFull, false),
    ] {
        let scene = Scene::failing(kind);
        scene.ui.data("x");
        scene.ui.note("y".into());
        scene.ui.data("z");
        assert_eq!(scene.ui.finish().is_ok(), is_success, "{kind}");
    }
}

#[test]
fn outside_actions_data_and_words_take_separate_streams() {
    let scene = Scene::new(FaceKind::Plain, false);
    scene.masker.admit("s", "hunter2-hunter2".into());
    scene.ui.note("working".into());
    scene.ui.data("::not a command:: hunter2-hunter2");
    scene.ui.output("x", "y").unwrap();
    scene.ui.summary("z");
    scene.ui.finish().unwrap();
    assert_eq!(scene.stdout_bytes(), b"::not a command:: ***\n");
    assert_eq!(scene.stderr(), "working\n");
    assert_eq!(scene.output_text(), "");
}

#[test]
fn quiet_says_problems_only_and_questions_need_someone_to_answer() {
    let scene = Scene::asking("yes\r\n");
    assert_eq!(
        scene.ui.prompt("Delete 3 resources?").unwrap().as_deref(),
        Some("yes")
    );
    assert_eq!(scene.ui.prompt("Again?").unwrap(), None, "the input ended");
    scene.ui.note("not said".into());
    scene
        .ui
        .say(Event::Problem(Box::new(Report::warning("a/b", "said"))));
    assert_eq!(
        scene.stderr(),
        "Delete 3 resources? Again? \n\nwarning[a/b]: said\n"
    );
    let scene = Scene::new(FaceKind::Actions, true);
    assert_eq!(scene.ui.prompt("Sure?").unwrap(), None);
    assert_eq!(scene.stdout_bytes(), b"");
}

/// `cargo test --test it runner::the_faces -- --ignored --nocapture` to look at all three.
#[test]
#[ignore = "for looking at"]
#[allow(clippy::print_stdout, reason = "its output is its purpose")]
fn the_faces() {
    for (face, in_actions) in [
        (FaceKind::Terminal, false),
        (FaceKind::Plain, false),
        (FaceKind::Actions, true),
    ] {
        let scene = Scene::looking(face, in_actions);
        scene::sample_run(&scene);
        println!("──────── {face:?}");
        print!("{}", scene.stderr());
        print!("{}", String::from_utf8(scene.stdout_bytes()).unwrap());
        println!("──────── summary\n{}", scene.summary_text());
    }
}
