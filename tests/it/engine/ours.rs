//! What became of a create that nobody can be sure of, at providers of which nobody knows whether they
//! find things by name: it is not doubled, not lost, and never somebody else's.

use tidegate::provider::ErrorClass;
use tidegate::provider::ability::Ability;

use super::world::{Act, Names, World, all_well, endings};

/// A world whose provider names are worth this much, and need not be unique.
fn world(names: Names) -> World {
    let mut world = World::new(&[("db", "")]);
    world.cloud.by_name = names;
    world.cloud.new_one_first = true;
    world
}

fn creates(world: &World) -> usize {
    let calls = world.cloud.calls();
    calls.iter().filter(|call| *call == "create db").count()
}

#[test]
fn an_answered_error_is_not_asked_for_again_and_what_it_made_is_kept() {
    let world = world(Names::Work);
    world
        .cloud
        .act("create", "db", Act::Say(ErrorClass::Unknown));
    assert_eq!(endings(&world.apply()), ["db error"]);
    assert_eq!(creates(&world), 1);
    assert_eq!(world.records()["db"].status, "error");
    assert!(all_well(&world.apply()));
    assert_eq!(creates(&world), 0);
    assert_eq!(world.cloud.names(), ["db"]);
}

#[test]
fn where_things_are_found_by_id_only_a_list_tells_what_was_made() {
    let mut world = world(Names::Unknown);
    world.cloud.abilities.insert(Ability::Enumerate);
    for act in [
        Act::Say(ErrorClass::Unknown),
        Act::Say(ErrorClass::Transient),
        Act::LoseAnswer(ErrorClass::Unknown),
    ] {
        world.declare(&[("db", "")]);
        world.cloud.act("create", "db", act);
        world.apply();
        assert!(all_well(&world.apply()));
        assert_eq!(creates(&world), 1);
        assert_eq!(world.cloud.names(), ["db"]);
        world.declare(&[]);
        assert!(all_well(&world.apply()));
        assert_eq!(world.cloud.names(), [""; 0]);
    }
}

#[test]
fn where_nothing_tells_it_is_said_and_not_tried_again() {
    let world = world(Names::Unknown);
    for act in [
        Act::Say(ErrorClass::Unknown),
        Act::LoseAnswer(ErrorClass::Unknown),
        Act::LoseAnswer(ErrorClass::Transient),
    ] {
        world.cloud.act("create", "db", act);
        let report = world.apply();
        assert_eq!(endings(&report), ["db error"]);
        assert!(report.actions[0].message.contains("cannot be told"));
        assert_eq!(creates(&world), 1);
    }
}

#[test]
fn a_provider_that_misses_what_is_certainly_there_proves_nothing() {
    let mut world = World::new(&[("web", "")]);
    world.cloud.by_name = Names::Unknown;
    world.cloud.new_one_first = true;
    assert!(all_well(&world.apply()));
    world.declare(&[("db", ""), ("web", "")]);
    world
        .cloud
        .act("create", "db", Act::LoseAnswer(ErrorClass::Unknown));
    world.apply();
    let problems = world.try_apply(|_| ()).unwrap_err();
    assert_eq!(problems[0].code, "apply/unsettled");
    assert!(format!("{problems:?}").contains("state settle db"));
    assert_eq!(creates(&world), 1);
}

#[test]
fn what_somebody_else_made_is_neither_taken_nor_touched() {
    for act in [
        Act::Refuse(ErrorClass::Unknown),
        Act::Refuse(ErrorClass::Transient),
        Act::Fail(ErrorClass::Unknown),
        Act::Fail(ErrorClass::Transient),
    ] {
        let mut world = world(Names::Work);
        world.cloud.new_one_first = false;
        world.cloud.plant("db");
        world.cloud.act("create", "db", act);
        let report = world.apply();
        assert_eq!(endings(&report), ["db error"]);
        let text = &report.actions[0].message;
        assert!(text.contains("`old-db`, was there before"), "{text}");
        assert!(world.records().is_empty());
        // Nor by the run that settles what this one left.
        let report = world.apply();
        assert_eq!(endings(&report), ["db error"]);
        assert!(report.actions[0].message.contains("adopt_existing"));
        assert!(world.records().is_empty());
        assert_eq!(world.cloud.id_of("db").unwrap(), "old-db");
    }
}

#[test]
fn a_zone_that_is_there_already_is_found_by_its_domain_and_taken_over() {
    let mut world = World::new(&[]);
    world.cloud.by_name = Names::Work;
    world.cloud.kind = "infra.dns";
    world.cloud.plant_as("zone", "example.net");
    world.declare(&[("zone", "domain: example.net")]);
    let report = world.apply();
    assert!(all_well(&report), "{report:?}");
    assert_eq!(world.cloud.calls()[..2], ["read zone", "update zone"]);
    assert_eq!(world.records()["zone"].provider_id, "example.net");
}

#[test]
fn a_teardown_goes_by_the_id_on_record_and_by_the_name_only_without_one() {
    let world = world(Names::Work);
    assert!(all_well(&world.apply()));
    let own = world.cloud.id_of("db").unwrap();
    // Another environment's, of the same name; a look-up by name finds this one.
    world.cloud.plant_as("db", "zz-of-another");
    assert_eq!(world.torn_down(), [own]);
    world.cloud.forget("db-1");
    let said = world.torn_down();
    assert!(
        said[0].contains("`zz-of-another`, and is not touched"),
        "{said:?}"
    );
}

#[test]
fn a_teardown_without_records_asks_for_the_list_where_names_find_nothing() {
    let mut world = world(Names::Unknown);
    world.cloud.abilities.insert(Ability::Enumerate);
    world.cloud.plant("db");
    assert_eq!(world.torn_down(), ["old-db"]);
}

#[test]
fn what_another_environment_has_on_record_is_not_taken_for_ours() {
    let world = world(Names::Work);
    world.cloud.plant("db");
    world.elsewhere("prod", "db", "old-db");
    let said = world.torn_down();
    assert!(
        said[0].contains("`old-db`, is on record in another"),
        "{said:?}"
    );
    // Nor when it appears while ours is made, and ours is not.
    world.cloud.forget("old-db");
    world
        .cloud
        .act("create", "db", Act::Appears("old-db", ErrorClass::Unknown));
    let report = world.apply();
    assert_eq!(endings(&report), ["db error"]);
    assert!(world.records().is_empty(), "{report:?}");
}
