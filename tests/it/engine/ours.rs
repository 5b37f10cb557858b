//! What became of a create that nobody can be sure of, at providers of which nobody knows whether they
//! find things by name: it is not doubled, not lost, and never somebody else's.

use std::time::Duration;

use tidegate::clock::Clock as _;
use tidegate::provider::ErrorClass;
use tidegate::provider::ability::Ability;
use tidegate::report::Outcome;
use tidegate::resource::ActionKind;

use super::world::{Act, Names, World, all_well, endings, run};

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

#[test]
fn what_cannot_be_looked_at_before_is_not_asked_for() {
    let world = world(Names::Work);
    world.cloud.plant("db");
    for _ in 0..3 {
        world
            .cloud
            .act("read", "db", Act::Fail(ErrorClass::Transient));
    }
    let report = world.apply();
    assert_eq!(endings(&report), ["db error"]);
    assert!(
        report.actions[0]
            .message
            .contains("nothing was asked for, because it cannot be seen what is there"),
        "{report:?}"
    );
    assert_eq!(creates(&world), 0);
    // A hiccup is no more than that.
    world.cloud.forget("old-db");
    world
        .cloud
        .act("read", "db", Act::Fail(ErrorClass::Transient));
    assert!(all_well(&world.apply()));
}

#[test]
fn a_run_asks_for_a_list_once() {
    let mut world = World::new(&[("a", ""), ("b", ""), ("c", "depends: [a]")]);
    world.cloud.by_name = Names::Unknown;
    world.cloud.abilities.insert(Ability::Enumerate);
    assert!(all_well(&world.apply()));
    let calls = world.cloud.calls();
    let lists = calls.iter().filter(|call| *call == "enumerate").count();
    assert_eq!(lists, 1, "{calls:?}");
}

#[test]
fn what_a_list_held_before_is_somebody_elses() {
    let mut world = world(Names::Unknown);
    world.cloud.abilities.insert(Ability::Enumerate);
    world.cloud.plant("db");
    world
        .cloud
        .act("create", "db", Act::Fail(ErrorClass::Transient));
    assert!(all_well(&world.apply()));
    assert_eq!(creates(&world), 2);
    assert_ne!(world.records()["db"].provider_id, "old-db");
    world.declare(&[]);
    assert!(all_well(&world.apply()));
    assert_eq!(world.cloud.id_of("db").unwrap(), "old-db");
}

#[test]
fn what_a_broken_create_left_is_made_whole_before_it_counts_as_made() {
    let world = world(Names::Work);
    world
        .cloud
        .act("create", "db", Act::LoseAnswer(ErrorClass::Transient));
    world
        .cloud
        .act("diff", "db", Act::Fail(ErrorClass::Unknown));
    let report = world.apply();
    assert_eq!(endings(&report), ["db error"]);
    assert!(report.actions[0].message.contains("it was made, but"));
    assert_eq!(world.records()["db"].status, "error");
    assert!(all_well(&world.apply()));
    assert_eq!(world.records()["db"].status, "active");
    assert_eq!(world.cloud.names(), ["db"]);
}

#[test]
fn what_is_on_its_way_when_a_run_dies_is_waited_for() {
    let world = world(Names::Work);
    world.die_in(ActionKind::Create, "db");
    // It arrives while the next run looks for it.
    world
        .cloud
        .act("read", "db", Act::Fail(ErrorClass::NotFound));
    world
        .cloud
        .act("read", "db", Act::Fail(ErrorClass::NotFound));
    world.cloud.plant_as("db", "db-late");
    let (report, findings) = world.try_apply(|_| ()).unwrap();
    assert!(all_well(&report));
    assert_eq!(
        findings,
        ["db: it was made but not recorded; it is recorded now and will be completed"]
    );
    assert_eq!(creates(&world), 0);
    assert_eq!(world.records()["db"].provider_id, "db-late");
}

#[test]
fn what_a_run_said_it_cannot_tell_the_next_one_does_not_guess() {
    let world = world(Names::Unknown);
    world
        .cloud
        .act("create", "db", Act::LoseAnswer(ErrorClass::Unknown));
    assert_eq!(endings(&world.apply()), ["db error"]);
    world.end_told();
    let problems = world.try_apply(|_| ()).unwrap_err();
    assert_eq!(problems[0].code, "apply/unsettled");
    assert!(format!("{problems:?}").contains("state settle db"));
    assert_eq!(world.cloud.names(), ["db"]);
}

#[test]
fn what_another_environment_has_on_record_is_not_adopted() {
    let mut world = world(Names::Work);
    world.declare(&[("db", "adopt_existing: true")]);
    world.cloud.plant("db");
    world.elsewhere("prod", "db", "old-db");
    let problems = world.try_apply(|_| ()).unwrap_err();
    assert_eq!(problems[0].code, "plan/elsewhere");
    assert!(format!("{problems:?}").contains("`prod`"), "{problems:?}");
}

#[test]
fn two_resources_with_one_id_are_not_taken_for_two() {
    let world = World::new(&[("db", ""), ("web", "")]);
    world.cloud.act("create", "web", Act::AnswerId("db-1"));
    world.cloud.act("create", "db", Act::AnswerId("db-1"));
    let report = world.apply();
    assert_eq!(endings(&report), ["db success", "web error"]);
    let text = &report.actions[1].message;
    assert!(text.contains("with the id of `db`"), "{text}");
    assert_eq!(world.records().len(), 1);
}

#[test]
fn a_delete_that_is_on_its_way_is_waited_for() {
    let world = world(Names::Work);
    assert!(all_well(&world.apply()));
    world.cloud.calls();
    world.die_in(ActionKind::Delete, "db");
    let before = world.clock.monotonic();
    // Still there at the first look, gone at the second.
    world.cloud.act("read", "db", Act::Take(Duration::ZERO));
    world
        .cloud
        .act("read", "db", Act::Fail(ErrorClass::NotFound));
    let (_, findings) = world.try_apply(|_| ()).unwrap();
    assert_eq!(findings, ["db: it was deleted"]);
    assert_eq!(
        world.clock.monotonic().saturating_sub(before),
        Duration::from_secs(1)
    );
    // What was asked for long ago has arrived, or never will.
    world.die_in(ActionKind::Delete, "db");
    run(&world.clock, world.clock.sleep(Duration::from_hours(2)));
    let before = world.clock.monotonic();
    let (_, findings) = world.try_apply(|_| ()).unwrap();
    assert_eq!(findings, ["db: it is still there"]);
    assert_eq!(world.clock.monotonic(), before);
}

#[test]
fn what_a_run_of_another_environment_is_making_is_not_taken_for_ours() {
    let world = world(Names::Work);
    world.begun_elsewhere("prod", "db");
    world
        .cloud
        .act("create", "db", Act::Appears("prods", ErrorClass::Transient));
    let report = world.apply();
    assert_eq!(endings(&report), ["db error"]);
    assert!(world.records().is_empty(), "{report:?}");
    // Nor torn down, nor settled by guessing.
    let said = world.torn_down();
    assert!(said[0].contains("cannot be told"), "{said:?}");
    let problems = world.try_apply(|_| ()).unwrap_err();
    assert_eq!(problems[0].code, "apply/unsettled");
    assert_eq!(world.cloud.names(), ["db"]);
}

#[test]
fn an_update_that_answers_with_the_id_of_another_one_is_not_believed() {
    let mut world = World::new(&[("db", ""), ("web", "")]);
    assert!(all_well(&world.apply()));
    let ours = world.records()["web"].provider_id.clone();
    let theirs = world.cloud.id_of("db").unwrap();
    assert_eq!(theirs, "db-1");
    world.declare(&[("db", ""), ("web", "tags: b")]);
    world.cloud.act("update", "web", Act::AnswerId("db-1"));
    let report = world.apply();
    assert_eq!(endings(&report), ["web error"]);
    assert_eq!(world.records()["web"].provider_id, ours);
}

#[test]
fn what_shows_late_is_waited_for_before_a_create_is_repeated() {
    for class in [ErrorClass::Transient, ErrorClass::Unknown] {
        let world = world(Names::Sure);
        world.cloud.act("create", "db", Act::LoseAnswer(class));
        // It is not seen at once.
        for _ in 0..2 {
            world
                .cloud
                .act("read", "db", Act::Fail(ErrorClass::NotFound));
        }
        assert!(all_well(&world.apply()));
        assert_eq!(creates(&world), 1, "{class:?}");
        assert_eq!(world.cloud.names(), ["db"]);
    }
}

#[test]
fn a_failed_update_stands_on_what_it_stood_on_as_well() {
    let mut world = World::new(&[("a", "uses: \"${b.id}\""), ("b", "")]);
    assert!(all_well(&world.apply()));
    world.declare(&[("a", "uses: \"${c.id}\""), ("c", "")]);
    world
        .cloud
        .act("update", "a", Act::Fail(ErrorClass::Denied));
    assert!(!all_well(&world.apply()));
    let on: Vec<String> = world.records()["a"]
        .dependencies
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(on, ["b", "c"]);
    world.cloud.calls();
    assert!(all_well(&world.apply()));
    let mut calls = world.cloud.calls();
    calls.retain(|call| call.starts_with("update") || call.starts_with("delete"));
    assert_eq!(calls, ["update a", "delete b"]);
}

#[test]
fn what_would_have_to_be_replaced_is_not_adopted() {
    let mut world = world(Names::Work);
    world.declare(&[("db", "adopt_existing: true, region: nyc")]);
    world.cloud.plant("db");
    let problems = world.try_apply(|_| ()).unwrap_err();
    assert_eq!(problems[0].code, "plan/elsewhere", "{problems:?}");
    assert!(world.cloud.id_of("db").is_some());
}

#[test]
fn what_is_on_record_under_one_name_is_not_adopted_under_another() {
    let mut world = World::new(&[("db", "")]);
    assert!(all_well(&world.apply()));
    world.declare(&[("db", ""), ("web", "adopt_existing: true")]);
    world.cloud.plant_as("web", "db-1");
    let problems = world.try_apply(|_| ()).unwrap_err();
    let said = format!("{problems:?}");
    assert!(said.contains("is on record as `db`"), "{said}");
}

#[test]
fn a_question_is_asked_again_where_a_provider_wants_to_be_left_alone() {
    let mut world = World::new(&[("db", "")]);
    assert!(all_well(&world.apply()));
    world.declare(&[("db", "tags: b")]);
    for _ in 0..2 {
        world
            .cloud
            .act("diff", "db", Act::SlowDown(Duration::from_secs(3)));
    }
    let before = world.clock.monotonic();
    assert!(all_well(&world.apply()));
    assert_eq!(world.clock.monotonic() - before, Duration::from_secs(6));
}

#[test]
fn what_the_config_adds_without_a_change_is_put_on_record() {
    let mut world = World::new(&[("a", ""), ("b", "")]);
    assert!(all_well(&world.apply()));
    world.cloud.calls();
    world.declare(&[("a", "depends_on: [b]"), ("b", "")]);
    assert!(world.apply().actions.is_empty());
    assert!(world.cloud.calls().is_empty(), "nobody has to be asked");
    assert_eq!(world.records()["a"].dependencies[0].as_str(), "b");
    assert!(world.records()["b"].dependencies.is_empty());
}

/// A world with a zone on record that the first of these made; the others took it over.
fn zone(modules: &[(&str, &str)]) -> World {
    let mut world = World::new(&[]);
    world.cloud.by_name = Names::Work;
    world.cloud.kind = "infra.dns";
    let (first, _) = modules[0];
    world
        .cloud
        .act("create", first, Act::AnswerId("example.net"));
    world.declare(&modules[..1]);
    assert!(all_well(&world.apply()));
    for (name, _) in &modules[1..] {
        world.cloud.plant_as(name, "example.net");
    }
    world.declare(modules);
    assert!(all_well(&world.apply()));
    world.cloud.calls();
    world
}

#[test]
fn a_zone_that_was_there_before_stays() {
    let planted = || {
        let mut world = World::new(&[]);
        world.cloud.by_name = Names::Work;
        world.cloud.kind = "infra.dns";
        world.cloud.plant_as("zone", "example.net");
        world.declare(&[("zone", "domain: example.net")]);
        assert!(all_well(&world.apply()));
        assert!(world.records()["zone"].tidegate.adopted);
        world.cloud.calls();
        world
    };
    let mut world = planted();
    // Whatever is done to it later, it was not made here.
    world.declare(&[("zone", "domain: example.net, tags: x")]);
    assert!(all_well(&world.apply()));
    world.declare(&[]);
    assert!(all_well(&world.apply()));
    assert!(world.records().is_empty());
    assert_eq!(world.cloud.names(), ["zone"]);

    let world = planted();
    assert_eq!(world.tear_down(), [Outcome::Success]);
    assert!(world.records().is_empty());
    assert_eq!(world.cloud.names(), ["zone"]);
}

#[test]
fn a_zone_goes_with_the_last_one_that_has_it() {
    let mut world = zone(&[("zone", "domain: example.net")]);
    world.elsewhere("prod", "zone", "example.net");
    world.declare(&[]);
    assert!(all_well(&world.apply()));
    assert!(world.cloud.calls().is_empty(), "it is prod's too");
    assert!(world.records().is_empty());

    let both = [
        ("one", "domain: example.net"),
        ("two", "domain: example.net"),
    ];
    let mut world = zone(&both);
    world.declare(&both[..1]);
    assert!(all_well(&world.apply()));
    assert_eq!(world.cloud.calls(), ["read one"; 0]);
    world.declare(&[]);
    assert!(all_well(&world.apply()));
    assert_eq!(world.cloud.calls(), ["delete one"]);
}

#[test]
fn two_of_one_zone_that_go_together_take_it_along_once() {
    let mut world = zone(&[
        ("one", "domain: example.net"),
        ("two", "domain: example.net"),
    ]);
    world.declare(&[]);
    assert!(all_well(&world.apply()));
    assert_eq!(world.cloud.calls().len(), 1, "one delete");
    assert!(world.records().is_empty());
}

#[test]
fn what_a_create_made_in_spite_of_its_error_counts_as_a_change() {
    let world = World::new(&[("db", "")]);
    world.cloud.act("create", "db", Act::Half);
    let report = world.apply();
    assert!(report.changed(), "{report:?}");
    assert!(report.actions[0].made.is_some());
}

#[test]
fn a_failed_adoption_leaves_what_it_found_to_whoever_made_it() {
    let mut world = world(Names::Work);
    world.declare(&[("db", "adopt_existing: true, tags: b")]);
    world.cloud.plant("db");
    world
        .cloud
        .act("update", "db", Act::Fail(ErrorClass::Denied));
    assert_eq!(endings(&world.apply()), ["db error"]);
    assert!(world.records().is_empty());
}

#[test]
fn a_teardown_believes_what_it_sees_and_not_what_a_delete_says() {
    for class in [ErrorClass::Transient, ErrorClass::Unknown] {
        let world = World::new(&[("db", "")]);
        assert!(all_well(&world.apply()));
        for _ in 0..5 {
            world.cloud.act("delete", "db", Act::LoseAnswer(class));
        }
        assert_eq!(world.tear_down(), [Outcome::Success]);
        assert!(world.records().is_empty());
    }
}

#[test]
fn a_provider_that_asks_for_no_wait_is_not_asked_without_one() {
    let world = World::new(&[("db", "")]);
    for _ in 0..8 {
        world
            .cloud
            .act("create", "db", Act::SlowDown(Duration::ZERO));
    }
    let before = world.clock.monotonic();
    assert!(all_well(&world.apply()));
    let waited = world.clock.monotonic() - before;
    assert!(waited > Duration::from_secs(1), "{waited:?}");
}
