//! What a name stands for changes: another type, another provider, a provider by another name; and what
//! hangs on a resource that only changes in place.

use serde_json::json;
use tidegate::apply::teardown::Discovered;
use tidegate::resource::ActionKind;

use super::world::{World, all_well, endings};

#[test]
fn a_resource_of_another_type_replaces_the_one_on_record() {
    let mut world = World::new(&[("db", "")]);
    assert!(all_well(&world.apply()));
    world.cloud.calls();
    world.cloud.kind = "infra.database";
    world.declare(&[("db", "")]);
    let (report, _) = world
        .try_apply(|survey| {
            let action = &survey.plan.actions[0];
            assert_eq!(action.action, ActionKind::Replace);
            let change = &action.changes[0];
            assert_eq!(change.path, "type");
            assert!(change.force_new);
            assert_eq!(change.old, json!("infra.storage"));
        })
        .unwrap();
    assert_eq!(endings(&report), ["db success"]);
    assert_eq!(world.cloud.calls(), ["delete db", "create db"]);
    assert_eq!(world.records()["db"].resource_type, "infra.database");
    assert!(world.apply().actions.is_empty(), "and stays");
}

#[test]
fn a_resource_that_moves_to_another_provider_leaves_the_one_it_had() {
    let mut world = World::new(&[("db", "")]);
    assert!(all_well(&world.apply()));
    world.cloud.calls();
    world.declare(&[("db", "provider: other")]);
    let (report, _) = world
        .try_apply(|survey| {
            let action = &survey.plan.actions[0];
            assert_eq!(action.action, ActionKind::Replace);
            assert!(action.reason.contains("from provider `cloud` to `other`"));
        })
        .unwrap();
    assert!(all_well(&report));
    assert_eq!(world.cloud.calls(), ["delete db", "create db"]);
    assert_eq!(world.records()["db"].provider_ref, "other");
}

#[test]
fn a_provider_by_another_name_is_the_same_provider() {
    let mut world = World::new(&[("db", "")]);
    assert!(all_well(&world.apply()));
    world.cloud.calls();
    world.rename_provider("cloud", "sky");
    let report = world.apply();
    assert!(report.actions.is_empty(), "{report:?}");
    assert!(world.cloud.calls().is_empty());
}

#[test]
fn what_goes_with_the_old_name_of_its_provider_is_deleted_by_the_new_one() {
    let mut world = World::new(&[("db", ""), ("web", "")]);
    world.drop_provider("other");
    assert!(all_well(&world.apply()));
    world.declare(&[("db", "")]);
    world.drop_provider("other");
    world.rename_provider("cloud", "sky");
    let report = world.apply();
    assert_eq!(endings(&report), ["web success"]);
    assert_eq!(world.cloud.names(), ["db"]);
}

#[test]
fn a_teardown_asks_as_the_record_says_and_not_as_the_config_does_now() {
    let mut world = World::new(&[("db", "")]);
    assert!(all_well(&world.apply()));
    world.cloud.kind = "infra.database";
    world.declare(&[("db", "provider: other")]);
    let found = world.discovered();
    let Discovered::There(target) = &found[0] else {
        panic!("{found:?}");
    };
    assert_eq!(target.kind.as_str(), "infra.storage");
    assert_eq!(target.provider.as_str(), "cloud");
}

#[test]
fn what_hangs_on_a_resource_that_changes_in_place_is_not_replaced_for_it() {
    let mut world = World::new(&[("net", "tags: a"), ("db", "region: \"${net.url}\"")]);
    assert!(all_well(&world.apply()));
    world.cloud.calls();
    world.declare(&[("net", "tags: b"), ("db", "region: \"${net.url}\"")]);
    let (report, _) = world
        .try_apply(|survey| {
            let db = &survey.plan.actions[1];
            assert_eq!(db.address.as_str(), "db");
            assert_eq!(db.action, ActionKind::Update, "{db:?}");
            assert_eq!(db.changes[0].new, json!({"$unknown": "${net.url}"}));
        })
        .unwrap();
    assert!(all_well(&report));
    let calls = world.cloud.calls();
    assert!(!calls.iter().any(|call| call.ends_with("db")), "{calls:?}");
    // One that is made anew takes it along, and nobody shows a value that is not known yet.
    world.declare(&[
        ("net", "tags: b, region: far"),
        ("db", "region: \"${net.url}\""),
    ]);
    world
        .try_apply(|survey| {
            let db = &survey.plan.actions[1];
            assert_eq!(db.action, ActionKind::Replace, "{db:?}");
            assert_eq!(db.changes[0].new, json!({"$unknown": "${net.url}"}));
        })
        .unwrap();
}
