//! More of the scenarios in `docs/scenarios.md`.

use std::sync::atomic::Ordering;

use tidegate::apply::outcome;
use tidegate::apply::survey::Survey;
use tidegate::provider::ErrorClass;
use tidegate::provider::ability::Ability;
use tidegate::provider::identity::IdFormat;
use tidegate::report::Outcome;
use tidegate::resource::{ActionKind, Address};

use super::planned;
use super::world::{Act, World, all_well, endings};

#[test]
fn two_providers_of_one_type_leave_each_others_records_alone() {
    let mut world = World::new(&[("mine", "x: 1"), ("theirs", "provider: other, x: 1")]);
    assert!(all_well(&world.apply()));
    world.declare(&[("mine", "x: 2"), ("theirs", "provider: other, x: 1")]);
    let (report, _) = world
        .try_apply(|survey| {
            assert_eq!(planned(&survey.plan), ["mine update", "theirs no-op"]);
        })
        .unwrap();
    assert!(all_well(&report));
    assert_eq!(world.records()["theirs"].provider_ref, "other");
}

#[test]
fn the_last_resource_of_a_provider_is_deleted_when_it_leaves_the_config() {
    let mut world = World::new(&[("mine", ""), ("theirs", "provider: other")]);
    world.apply();
    world.declare(&[("mine", "")]);
    let (report, _) = world
        .try_apply(|survey| {
            assert_eq!(planned(&survey.plan), ["mine no-op", "theirs delete"]);
        })
        .unwrap();
    assert!(all_well(&report));
    assert_eq!(world.cloud.names(), ["mine"]);
}

#[test]
fn a_replace_whose_create_fails_says_so_and_the_next_run_makes_it() {
    let mut world = World::new(&[("db", "region: fra")]);
    world.apply();
    world.declare(&[("db", "region: nyc")]);
    world
        .cloud
        .act("create", "db", Act::Fail(ErrorClass::Denied));
    let report = world.apply();
    assert_eq!(endings(&report), ["db error"]);
    assert!(report.changed(), "the old one is gone");
    let said = &report.actions[0].message;
    assert!(
        said.contains("the old one is deleted, and nothing is in its place"),
        "{said}"
    );
    assert!(world.records().is_empty() && world.cloud.names().is_empty());
    let (report, _) = world
        .try_apply(|survey| assert_eq!(planned(&survey.plan), ["db create"]))
        .unwrap();
    assert!(all_well(&report));
}

#[test]
fn a_replaced_one_stays_until_what_its_new_one_needs_is_there() {
    let mut world = World::new(&[("web", "region: fra")]);
    world.apply();
    world.declare(&[("db", ""), ("web", "region: nyc, uses: \"${db.id}\"")]);
    world
        .cloud
        .act("create", "db", Act::Fail(ErrorClass::Denied));
    assert_eq!(endings(&world.apply()), ["db error", "web skipped"]);
    assert_eq!(world.cloud.names(), ["web"], "the old one still serves");
}

#[test]
fn a_stop_before_the_second_action_skips_the_rest_and_keeps_the_first() {
    let mut world = World::new(&[("a", ""), ("b", ""), ("c", "")]);
    world.parallelism = 1;
    world.cloud.act("create", "a", Act::Interrupt);
    let report = world.apply();
    assert_eq!(endings(&report), ["a success", "b skipped", "c skipped"]);
    assert!(report.interrupted);
    assert_eq!(world.records().keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn a_stop_right_after_a_delete_still_removes_the_record() {
    let mut world = World::new(&[("a", "")]);
    world.apply();
    world.declare(&[]);
    world.cloud.act("delete", "a", Act::Interrupt);
    assert_eq!(endings(&world.apply()), ["a success"]);
    assert!(world.records().is_empty());
}

#[test]
fn a_second_removal_goes_on_where_the_first_one_failed() {
    let mut world = World::new(&[
        ("a-net", ""),
        ("b-db", "depends_on: [a-net]"),
        ("c-app", "depends_on: [b-db]"),
    ]);
    world.apply();
    world.declare(&[]);
    world
        .cloud
        .act("delete", "b-db", Act::Fail(ErrorClass::Denied));
    assert_eq!(
        endings(&world.apply()),
        ["c-app success", "b-db delete-failed", "a-net skipped"]
    );
    assert_eq!(
        world.records().keys().collect::<Vec<_>>(),
        ["a-net", "b-db"]
    );
    world.cloud.calls();
    assert!(all_well(&world.apply()));
    assert_eq!(world.cloud.calls(), ["delete b-db", "delete a-net"]);
    assert!(world.records().is_empty());
}

#[test]
fn an_adoption_that_may_not_look_stops_everything_and_one_that_finds_nothing_creates() {
    let world = World::new(&[("db", "adopt_existing: true"), ("web", "")]);
    world.cloud.act("read", "db", Act::Fail(ErrorClass::Denied));
    let problems = world.try_apply(|_| ()).unwrap_err();
    assert!(problems[0].message.contains("`db`"), "{problems:?}");
    assert_eq!(world.cloud.calls(), ["read db"], "nothing was changed");
    let (report, _) = world
        .try_apply(|survey| assert_eq!(planned(&survey.plan), ["db create", "web create"]))
        .unwrap();
    assert!(all_well(&report));
}

/// `db` is deleted, its answer was lost, and what was said after that says nothing.
fn after_an_unclear_delete() -> World {
    let mut world = World::new(&[("db", "")]);
    world.apply();
    world.declare(&[]);
    world
        .cloud
        .act("delete", "db", Act::LoseAnswer(ErrorClass::Transient));
    world
        .cloud
        .act("delete", "db", Act::Fail(ErrorClass::Conflict));
    assert_eq!(endings(&world.apply()), ["db delete-failed"]);
    world
}

#[test]
fn a_delete_refused_after_a_lost_answer_is_looked_at_by_the_next_run() {
    let mut world = after_an_unclear_delete();
    // The config wants it back: what the record says must be looked at first.
    world.declare(&[("db", "")]);
    let (report, findings) = world
        .try_apply(|survey| assert_eq!(planned(&survey.plan), ["db create"]))
        .unwrap();
    assert_eq!(findings, ["db: it was deleted"]);
    assert!(all_well(&report));
}

#[test]
fn a_recovery_whose_lock_was_taken_over_asks_for_nothing() {
    let world = after_an_unclear_delete();
    world.cloud.calls();
    *world.cloud.taken_over.lock().unwrap() = true;
    let problems = world.try_apply(|_| ()).unwrap_err();
    assert_eq!(problems[0].code, "state/lost-lock", "{problems:?}");
    assert_eq!(world.cloud.calls(), ["read db"], "it only looked");
}

#[test]
fn what_was_made_is_not_taken_back_once_another_run_may_have_found_it() {
    let mut world = World::new(&[("db", "")]);
    world.cloud.ids = IdFormat::Uuid;
    world.cloud.act("create", "db", Act::TakenOver("db"));
    let report = world.apply();
    assert_eq!(endings(&report), ["db error"]);
    assert!(report.lost_lock);
    let message = &report.actions[0].message;
    assert!(
        message.contains("a UUID") && message.contains("the lock is not sure"),
        "{message}"
    );
    assert_eq!(world.cloud.calls(), ["create db"]);
    assert_eq!(world.cloud.names(), ["db"]);
}

#[test]
fn a_teardown_whose_lock_was_taken_over_deletes_nothing() {
    let world = World::new(&[("db", "")]);
    assert!(all_well(&world.apply()));
    let found = world.discovered();
    assert_eq!(found.len(), 1);
    world.cloud.calls();
    *world.cloud.taken_over.lock().unwrap() = true;
    assert_eq!(world.tear_down(), [Outcome::DeleteFailed]);
    assert_eq!(world.cloud.names(), ["db"]);
    assert!(!world.cloud.calls().contains(&"delete db".to_owned()));
}

#[test]
fn what_a_run_that_was_cut_off_had_made_is_sealed_until_an_update_tells() {
    let world = World::new(&[("db", "tags: a")]);
    world.die_in(ActionKind::Create, "db");
    world.cloud.plant_as("db", "db-9");
    let sealed = |survey: &Survey| {
        let record = survey.records.get(&Address::new("db")).unwrap();
        assert!(record.tidegate.sealed.contains_key("url"), "{record:?}");
        assert_eq!(record.outputs["port"], 4);
    };
    let (report, findings) = world.try_apply(sealed).unwrap();
    assert!(
        findings[0].contains("made but not recorded"),
        "{findings:?}"
    );
    assert!(all_well(&report));
    assert_eq!(world.records()["db"].outputs["url"], "x://db/db-9");

    // Where nobody declares it any more, nobody knows what was secret about it.
    let mut world = World::new(&[("db", "tags: a")]);
    world.die_in(ActionKind::Create, "db");
    world.cloud.plant_as("db", "db-9");
    world.declare(&[]);
    assert!(all_well(&world.try_apply(sealed).unwrap().0));
    assert!(world.cloud.names().is_empty());
}

#[test]
fn what_is_on_record_decides_the_order_of_deletes_and_not_a_config_nobody_applied() {
    let mut world = World::new(&[("a", "uses: \"${b.id}\""), ("b", "")]);
    assert!(all_well(&world.apply()));
    world.declare(&[("a", ""), ("b", "uses: \"${a.id}\"")]);
    world.cloud.calls();
    assert_eq!(world.tear_down(), [Outcome::Success, Outcome::Success]);
    let mut calls = world.cloud.calls();
    calls.retain(|call| call.starts_with("delete"));
    assert_eq!(calls, ["delete a", "delete b"]);
}

#[test]
fn the_old_one_of_a_pair_is_not_taken_for_its_new_one() {
    let config =
        |region: &str| format!("region: {region}, lifecycle: {{create_before_destroy: true}}");
    let mut world = World::new(&[("db", &config("fra"))]);
    world.cloud.new_one_first = true;
    world.apply();
    let old = world.cloud.id_of("db").unwrap();
    world.declare(&[("db", &config("nyc"))]);
    world
        .cloud
        .act("create", "db", Act::Fail(ErrorClass::Transient));
    assert!(all_well(&world.apply()));
    assert_eq!(world.cloud.names(), ["db"]);
    assert_ne!(world.records()["db"].provider_id, old);
    assert_eq!(
        Some(&world.records()["db"].provider_id),
        world.cloud.id_of("db").as_ref()
    );
}

#[test]
fn whoever_finalizes_is_told_once_after_a_failure_and_its_own_failure_is_told_too() {
    let mut world = World::new(&[("db", ""), ("web", "uses: \"${db.id}\"")]);
    // Only one of the two provider modules puts work off.
    world.cloud.abilities.insert(Ability::Finalize);
    world
        .cloud
        .act("create", "db", Act::Fail(ErrorClass::Denied));
    world
        .cloud
        .act("finalize", "this", Act::Fail(ErrorClass::Denied));
    let (report, _, unfinished) = world.try_whole(|_| ()).unwrap();
    assert_eq!(endings(&report), ["db error", "web skipped"]);
    // Once for each provider module; both stand for the same scripted one here.
    let told = world
        .cloud
        .calls()
        .iter()
        .filter(|call| *call == "finalize this")
        .count();
    assert_eq!(told, 2);
    assert_eq!(unfinished.len(), 1);
    assert_eq!(unfinished[0].code, "apply/not-finalized");
    let result = outcome::result("this", &Default::default(), &report, &unfinished);
    let failed: Vec<(&str, &str)> = result
        .errors
        .iter()
        .map(|error| (error.resource.as_str(), error.action.as_str()))
        .collect();
    assert_eq!(failed, [("db", "create"), ("<plan-finalize>", "finalize")]);

    // A run that was stopped is not over: nobody is told.
    world.cloud.act("create", "db", Act::Interrupt);
    let (report, _, unfinished) = world.try_whole(|_| ()).unwrap();
    assert!(report.interrupted && unfinished.is_empty());
    assert!(!world.cloud.calls().contains(&"finalize this".to_owned()));
}

/// A store that hangs answers nothing, not even that it is down. What is under way comes to its end.
#[test]
fn a_lock_that_nobody_renews_for_a_whole_lease_ends_the_run() {
    let mut world = World::new(&[("db", ""), ("web", "")]);
    world.parallelism = 1;
    // The one before the first call is answered.
    *world.store.renewals.lock().unwrap() = Some(1);
    let minutes = std::time::Duration::from_secs(120);
    world.cloud.act("create", "db", Act::Take(minutes));
    let report = world.apply();
    assert_eq!(endings(&report), ["db success", "web skipped"]);
    assert!(report.store_failed && !report.lost_lock);
    assert_eq!(world.cloud.names(), ["db"]);
    assert!(world.records().contains_key("db"));
}

#[test]
fn an_output_that_the_state_cannot_take_costs_the_output_and_not_the_resource() {
    let world = World::new(&[("db", "")]);
    *world.store.takes_no_urls.lock().unwrap() = true;
    let report = world.apply();
    assert_eq!(endings(&report), ["db error"]);
    let said = &report.actions[0].message;
    assert!(
        said.contains("`url`") && said.contains("too large"),
        "{said}"
    );
    assert!(!report.store_failed);
    let record = &world.records()["db"];
    assert_eq!(record.status, "error");
    assert_eq!(Some(record.provider_id.clone()), world.cloud.id_of("db"));
    assert!(record.outputs.contains_key("port"));
    // The environment goes on: what is there is known, and brought to its end.
    *world.store.takes_no_urls.lock().unwrap() = false;
    let (report, _) = world
        .try_apply(|survey| assert_eq!(planned(&survey.plan), ["db update"]))
        .unwrap();
    assert!(all_well(&report));
}

#[test]
fn a_size_that_no_provider_resolves_is_said_and_passed_on() {
    let world = World::new(&[
        ("cache", "hints: {cpu: \"2\"}"),
        ("db", "size: m"),
        ("web", ""),
    ]);
    world
        .try_apply(|survey| {
            let said: Vec<(&str, &str)> = survey
                .unread
                .iter()
                .filter_map(|(_, remark, _)| {
                    Some((remark.resource.as_deref()?, remark.field.as_deref()?))
                })
                .collect();
            assert_eq!(said, [("cache", "hints"), ("db", "size")]);
            let db = &survey.desired[&Address::new("db")];
            assert_eq!(db.public_config["size"], "m");
        })
        .unwrap();
}

#[test]
fn whoever_watches_or_drives_and_breaks_takes_nothing_else_along() {
    let world = World::new(&[("a", ""), ("b", "uses: \"${a.url}\""), ("c", "")]);
    world.cloud.act("create", "a", Act::Break);
    world.ear.1.store(true, Ordering::SeqCst);
    let report = world.apply();
    assert_eq!(endings(&report), ["a error", "b skipped", "c success"]);
    assert!(report.actions[0].message.contains("the next run looks"));
    assert_eq!(world.records().keys().collect::<Vec<_>>(), ["c"]);
    world.ear.1.store(false, Ordering::SeqCst);
    // What it made before it broke is found, and nothing is made twice.
    world.cloud.calls();
    let (report, findings) = world.try_apply(|_| ()).unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(all_well(&report), "{:?}", endings(&report));
    assert_eq!(world.cloud.names(), ["a", "b", "c"]);
    let calls = world.cloud.calls();
    assert!(!calls.contains(&"create a".to_owned()), "{calls:?}");
}

#[test]
fn every_plan_asks_the_driver_and_no_answer_is_remembered() {
    let world = World::new(&[("a", "x: 1"), ("b", "x: 1")]);
    world.apply();
    let asked = || world.cloud.inner.lock().unwrap().diffs;
    let before = asked();
    let look = || world.try_apply(|survey| assert!(survey.plan.is_empty()));
    look().unwrap();
    look().unwrap();
    assert_eq!(asked(), before + 4, "the same question, asked each time");
    // So an answer that went bad is neither kept nor used again.
    world.cloud.act("diff", "a", Act::Fail(ErrorClass::Denied));
    assert!(look().is_err());
    look().unwrap();
}
