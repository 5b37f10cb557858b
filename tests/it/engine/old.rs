//! Old ones of replacements that make the new one first: they stay until nothing stands on them.

use tidegate::provider::ErrorClass;
use tidegate::resource::ActionKind;

use super::planned;
use super::world::{Act, Names, World, all_well, endings};

const KEEP: &str = "lifecycle: {create_before_destroy: true}";

fn declare(world: &mut World, region: &str, tag: &str) {
    world.declare(&[
        ("db", &format!("region: {region}, tags: {tag}, {KEEP}")),
        ("web", "uses: \"${db.id}\""),
    ]);
}

/// `db` has a new one; `web` could not be moved over to it.
fn half_moved() -> World {
    let mut world = World::new(&[]);
    world.cloud.new_one_first = true;
    declare(&mut world, "fra", "a");
    assert!(all_well(&world.apply()));
    declare(&mut world, "nyc", "a");
    world
        .cloud
        .act("update", "web", Act::Fail(ErrorClass::Denied));
    let report = world.apply();
    assert_eq!(endings(&report), ["db delete-failed", "web error"]);
    assert_eq!(world.cloud.names(), ["db", "db", "web"]);
    world.cloud.calls();
    world
}

fn steps(world: &World) -> Vec<String> {
    let mut calls = world.cloud.calls();
    calls.retain(|call| !call.starts_with(' ') && !call.starts_with("read"));
    calls
}

#[test]
fn an_old_one_goes_after_what_stood_on_it_has_moved() {
    let world = half_moved();
    let (report, findings) = world.try_apply(|_| ()).unwrap();
    assert!(all_well(&report), "{report:?}");
    assert_eq!(steps(&world), ["update web", "delete db"]);
    assert_eq!(findings, ["db: the old `db-1` is gone"]);
    assert_eq!(world.cloud.names(), ["db", "web"]);
    assert_eq!(world.records()["db"].provider_id, "db-3");
    assert_eq!(world.cloud.id_of("db").unwrap(), "db-3");
}

#[test]
fn a_refusal_to_delete_an_old_one_stops_nothing_else() {
    let world = half_moved();
    world
        .cloud
        .act("delete", "db", Act::Fail(ErrorClass::Invalid));
    let (report, findings, problems) = world.try_whole(|_| ()).unwrap();
    assert!(all_well(&report), "{report:?}");
    assert!(findings.is_empty(), "{findings:?}");
    assert_eq!(problems[0].code, "apply/old-left", "{problems:?}");
    // And it is not forgotten.
    let (_, findings, problems) = world.try_whole(|_| ()).unwrap();
    assert_eq!(findings, ["db: the old `db-1` is gone"]);
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn an_old_one_stays_while_something_stands_on_it() {
    let world = half_moved();
    world
        .cloud
        .act("update", "web", Act::Fail(ErrorClass::Denied));
    let (_, findings, problems) = world.try_whole(|_| ()).unwrap();
    assert_eq!(steps(&world), ["update web"]);
    assert!(findings.is_empty(), "{findings:?}");
    let said = format!("{problems:?}");
    assert!(said.contains("`web` stands on it"), "{said}");
    assert_eq!(world.cloud.names(), ["db", "db", "web"]);
}

#[test]
fn one_old_one_does_not_make_another_forgotten() {
    let mut world = half_moved();
    // Made anew once more before the first has gone.
    declare(&mut world, "lon", "a");
    let (report, findings) = world.try_apply(|_| ()).unwrap();
    assert!(all_well(&report), "{report:?}");
    assert_eq!(findings, ["db: the old `db-1` is gone"]);
    assert_eq!(world.cloud.names(), ["db", "web"]);
    assert_eq!(
        world.cloud.id_of("db"),
        world.records().get("db").map(|db| db.provider_id.clone())
    );
}

#[test]
fn a_teardown_takes_the_old_one_along() {
    let world = half_moved();
    let mut found = world.torn_down();
    found.sort();
    assert_eq!(found, ["db-1", "db-3", "web-2"]);
}

#[test]
fn what_was_taken_off_the_record_stays_in_the_world() {
    let mut world = World::new(&[]);
    world.cloud.new_one_first = true;
    declare(&mut world, "fra", "a");
    assert!(all_well(&world.apply()));
    declare(&mut world, "nyc", "a");
    world.remember_old("db");
    world.disown("db");
    let (report, _, problems) = world.try_whole(|_| ()).unwrap();
    assert!(all_well(&report) && problems.is_empty(), "{problems:?}");
    assert_eq!(world.cloud.names(), ["db", "db", "web"]);
    assert!(!world.cloud.calls().iter().any(|call| call == "delete db"));
}

#[test]
fn an_old_one_whose_new_one_was_never_seen_is_not_deleted_when_its_record_is_gone() {
    let mut world = World::new(&[]);
    world.cloud.new_one_first = true;
    declare(&mut world, "fra", "a");
    assert!(all_well(&world.apply()));
    declare(&mut world, "nyc", "a");
    // Killed after the old one was remembered, before the new one was asked for.
    world.remember_old("db");
    world.forget_record("db");
    world.forget_record("web");
    world.declare(&[]);
    let (_, findings, problems) = world.try_whole(|_| ()).unwrap();
    assert!(findings.is_empty(), "{findings:?}");
    assert_eq!(problems[0].code, "apply/old-left");
    assert!(world.cloud.id_of("db").is_some(), "still there");
    // What comes to bear its name later is not its new one.
    declare(&mut world, "ams", "a");
    let (report, _, problems) = world.try_whole(|_| ()).unwrap();
    assert!(all_well(&report), "{report:?}");
    assert_eq!(problems[0].code, "apply/old-left");
    assert_eq!(world.cloud.names(), ["db", "db", "web", "web"]);
    let (_, _, problems) = world.try_whole(|_| ()).unwrap();
    assert_eq!(problems[0].code, "apply/old-left");
    assert_eq!(world.cloud.names(), ["db", "db", "web", "web"]);
    // Once it is gone, there is nothing to remember.
    world.cloud.forget("db-1");
    let (_, _, problems) = world.try_whole(|_| ()).unwrap();
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn a_new_one_with_the_id_of_the_old_one_is_not_deleted_as_that() {
    let mut world = World::new(&[("db", &format!("region: fra, {KEEP}"))]);
    world.cloud.new_one_first = true;
    assert!(all_well(&world.apply()));
    world.declare(&[("db", &format!("region: nyc, {KEEP}"))]);
    world.cloud.act("create", "db", Act::AnswerId("db-1"));
    assert!(all_well(&world.apply()));
    assert_eq!(steps(&world), ["create db", "create db"]);
    assert_eq!(world.cloud.id_of("db").unwrap(), "db-1");
    assert!(world.try_whole(|_| ()).unwrap().2.is_empty());
}

#[test]
fn an_old_one_that_waits_in_another_environment_is_that_environments() {
    let mut world = World::new(&[("db", "")]);
    assert!(all_well(&world.apply()));
    world.waits_elsewhere("prod", "db", "db-of-prod");
    world.forget_record("db");
    world.cloud.forget("db-1");
    world.cloud.plant_as("db", "db-of-prod");
    world.cloud.by_name = Names::Work;
    world.declare(&[("db", "adopt_existing: true")]);
    let problems = world.try_apply(|_| ()).unwrap_err();
    assert!(problems[0].message.contains("db") && !problems[0].because.is_empty());
    assert!(
        world.torn_down()[0].contains("on record in another environment"),
        "{:?}",
        world.torn_down()
    );
    assert_eq!(world.cloud.names(), ["db"]);
}

#[test]
fn a_new_one_that_was_not_recorded_has_nothing_of_the_old_one() {
    let mut world = World::new(&[("db", &format!("tags: a, {KEEP}"))]);
    world.cloud.new_one_first = true;
    assert!(all_well(&world.apply()));
    world.declare(&[("db", &format!("tags: b, {KEEP}"))]);
    world.remember_old("db");
    world.die_in(ActionKind::Create, "db");
    world.cloud.plant_as("db", "db-new");
    let (report, findings) = world
        .try_apply(|survey| assert_eq!(planned(&survey.plan), ["db update"]))
        .unwrap();
    assert!(all_well(&report), "{report:?}");
    assert!(findings[0].contains("its new one was made"), "{findings:?}");
    let record = &world.records()["db"];
    assert_eq!(record.provider_id, "db-new");
    assert_eq!(record.outputs["url"], "x://db/db-new");
    assert_eq!(record.config["tags"], "b");
    assert!(world.try_whole(|_| ()).unwrap().2.is_empty());
    assert_eq!(world.cloud.id_of("db").unwrap(), "db-new");
    assert_eq!(world.cloud.names(), ["db"]);
}

#[test]
fn an_old_one_that_waits_is_not_taken_for_the_new_one_of_a_later_replacement() {
    let mut world = half_moved();
    world.cloud.by_name = Names::Work;
    // The new one vanishes, and what is to come in its place is not made at first.
    world.cloud.forget("db-3");
    declare(&mut world, "ams", "a");
    world
        .cloud
        .act("create", "db", Act::Fail(ErrorClass::Unknown));
    let (report, _, _) = world.try_whole(|_| ()).unwrap();
    assert!(all_well(&report), "{report:?}");
    assert_ne!(world.records()["db"].provider_id, "db-1");
    world.try_whole(|_| ()).unwrap();
    assert_eq!(
        Some(&world.records()["db"].provider_id),
        world.cloud.id_of("db").as_ref()
    );
    assert_eq!(world.cloud.names(), ["db", "web"]);
}
