use proptest::prelude::*;

use super::*;

fn keyring() -> Keyring {
    Keyring::new(&[7; 32])
}

fn binding() -> Binding {
    Binding {
        environment: "dev".to_owned(),
        config: "aa".to_owned(),
        lineage: "l-1".to_owned(),
        serial: 4,
        lockfile: None,
        providers: BTreeMap::from([("cloud".to_owned(), "local 1.0.0".to_owned())]),
        inputs: BTreeMap::from([("TIER".to_owned(), "0123456789".to_owned())]),
    }
}

fn saved(changes: Vec<FieldChange>, config: Value) -> SavedPlan {
    SavedPlan {
        id: "plan-1".to_owned(),
        created_at: "2024-01-02T03:04:05Z".to_owned(),
        expires_at: "2024-01-03T03:04:05Z".to_owned(),
        desired_hash: "cc".to_owned(),
        include: vec!["db".to_owned()],
        binding: binding(),
        actions: vec![SavedAction {
            action: Action {
                address: Address::new("db"),
                kind: Kind::new("infra.database"),
                provider: ProviderId::new("cloud"),
                action: ActionKind::Update,
                changes,
                reason: String::new(),
                depends_on: BTreeSet::from([Address::new("net")]),
                recorded_depends_on: BTreeSet::new(),
                protected: true,
                create_before_destroy: false,
            },
            config: config.as_object().cloned().unwrap_or_default(),
            current: None,
        }],
    }
}

fn change(old: Value, new: Value) -> FieldChange {
    FieldChange {
        path: "field".to_owned(),
        old,
        new,
        force_new: false,
    }
}

#[test]
fn a_file_comes_back_as_it_was_and_no_byte_of_it_can_be_changed() {
    let plan = saved(
        vec![change(json!(1), json!(2.5))],
        json!({"a": [1.0, -0.0]}),
    );
    let bytes = plan.encode(&keyring(), &Masker::default()).unwrap();
    let back = Unverified::decode(&bytes).unwrap();
    assert_eq!(back.verify(&keyring()).unwrap(), plan);
    let other = Unverified::decode(&bytes).unwrap();
    assert_eq!(
        other.verify(&Keyring::new(&[8; 32])).unwrap_err(),
        FileError::Altered
    );
    let mut caught = 0;
    for position in 0..bytes.len() - 1 {
        let mut edited = bytes.clone();
        edited[position] ^= 1;
        if let Ok(unverified) = Unverified::decode(&edited) {
            assert_eq!(
                unverified.verify(&keyring()).unwrap_err(),
                FileError::Altered,
                "byte {position}"
            );
            caught += 1;
        }
    }
    assert!(caught > 100, "most edits still are JSON: {caught}");
}

#[test]
fn files_of_others_and_of_the_future_are_told_apart() {
    let bytes = saved(Vec::new(), json!({}))
        .encode(&keyring(), &Masker::default())
        .unwrap();
    let mut value: Value = serde_json::from_slice(&bytes).unwrap();
    let decode = |value: &Value| {
        Unverified::decode(value.to_string().as_bytes())
            .map(drop)
            .unwrap_err()
    };
    value["schema_version"] = json!(3);
    assert_eq!(decode(&value), FileError::Newer { found: 3, known: 2 });
    value["schema_version"] = json!(0);
    value["tidegate"]["format"] = json!(9);
    assert_eq!(decode(&value), FileError::Newer { found: 9, known: 1 });
    value["tidegate"]["format"] = json!(1);
    value["plan_hash"] = json!("");
    assert_eq!(decode(&value), FileError::Unbound);
    // As upstream writes them: no schema, no binding.
    assert_eq!(
        decode(&json!({"id": "plan-17", "actions": []})),
        FileError::Unbound
    );
    for text in ["", "[]", "{}", "{\"actions\": 1}", "\u{0}"] {
        let error = Unverified::decode(text.as_bytes()).map(drop).unwrap_err();
        assert!(matches!(error, FileError::NotAPlan(_)), "{text}: {error:?}");
    }
}

#[test]
fn no_secret_is_in_it() {
    let masker = Masker::default();
    masker.admit("s", "correct-horse-battery".to_owned());
    let hidden =
        json!({"url": "x://u:correct-horse-battery@h", "list": [{"p": "correct-horse-battery"}]});
    let plan = saved(
        vec![change(json!("correct-horse-battery"), json!("other"))],
        hidden,
    );
    let text = String::from_utf8(plan.encode(&keyring(), &masker).unwrap()).unwrap();
    assert!(!text.contains("horse"), "{text}");

    let mut named = saved(Vec::new(), json!({}));
    named.actions[0].action.address = Address::new("correct-horse-battery");
    assert!(named.encode(&keyring(), &masker).is_err());
}

#[test]
fn sensitive_values_are_told_by_their_fingerprints() {
    let print = |print: &str| json!({ "$secret": print });
    for (old, new, expected) in [
        (print("a"), print("a"), Some("unchanged")),
        (print("a"), print("b"), Some("rotated")),
        (json!(null), print("b"), Some("first set")),
        (print("a"), json!(null), Some("removed")),
        (json!("plain"), print("b"), Some("rotated")),
        (json!("plain"), json!("text"), None),
    ] {
        assert_eq!(sensitive(&change(old, new)), expected);
    }
}

#[test]
fn everything_that_moved_is_named_and_sorted() {
    let now = Binding {
        environment: "prod".to_owned(),
        config: "bb".to_owned(),
        lineage: "l-1".to_owned(),
        serial: 6,
        lockfile: Some("dd".to_owned()),
        providers: BTreeMap::from([("cloud".to_owned(), "local 2.0.0".to_owned())]),
        inputs: BTreeMap::from([("TOKEN".to_owned(), "ffffffffff".to_owned())]),
    };
    assert_eq!(
        binding().moved(&now),
        [
            "config: the text of the file or of an import has changed",
            "environment: the plan is for `dev`, this run is for `prod`",
            "input `TIER`: another value (fingerprint 01234567 then, (unset) now)",
            "input `TOKEN`: another value (fingerprint (unset) then, ffffffff now)",
            "lockfile: there was none, now there is one",
            "provider `cloud`: local 1.0.0 then, local 2.0.0 now",
            "state: changed since (serial 4 then, 6 now)",
        ]
    );
    assert!(binding().moved(&binding()).is_empty());
}

#[test]
fn a_plan_that_waits_for_values_says_so() {
    let schema = |config: Value| {
        let bytes = saved(Vec::new(), config)
            .encode(&keyring(), &Masker::default())
            .unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()["schema_version"].clone()
    };
    assert_eq!(schema(json!({"a": 1})), 1);
    assert_eq!(schema(json!({"a": [{"$unknown": "${db.url}"}]})), 2);
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("finite", |float| float.is_finite())
            .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parsing_what_was_rendered_gives_it_back(
        old in any_value(),
        new in any_value(),
        config in prop::collection::btree_map(any::<String>(), any_value(), 0..4),
        name in any::<String>(),
        reason in any::<String>(),
    ) {
        let mut plan = saved(vec![change(old, new)], Value::Object(config.into_iter().collect()));
        plan.actions[0].action.address = Address::new(name);
        plan.actions[0].action.reason = reason;
        let bytes = plan.encode(&keyring(), &Masker::default()).unwrap();
        let back = Unverified::decode(&bytes).unwrap().verify(&keyring()).unwrap();
        prop_assert_eq!(&back, &plan);
        prop_assert_eq!(back.encode(&keyring(), &Masker::default()).unwrap(), bytes);
    }
}
