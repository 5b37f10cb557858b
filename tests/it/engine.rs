//! Planner and executor on a virtual clock, against a provider that does what it is told.

mod credential;
mod figures;
mod more;
mod moved;
mod old;
mod ours;
mod world;

use std::time::Duration;

use serde_json::json;
use tidegate::plan::Plan;
use tidegate::provider::ErrorClass;
use tidegate::provider::ability::Ability;
use tidegate::provider::identity::IdFormat;
use tidegate::report::{Event, Severity};

use world::{Act, World, all_well, endings};

fn planned(plan: &Plan) -> Vec<String> {
    plan.actions
        .iter()
        .map(|action| format!("{} {}", action.address, action.action.word()))
        .collect()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_second_apply_plans_nothing() {
    let world = World::new(&[("a", ""), ("b", "uses: \"${a.url}\", port: \"${a.port}\"")]);
    assert!(all_well(&world.apply()));
    let record = &world.records()["b"];
    assert_eq!(record.config["uses"], "x://a/a-1");
    assert_eq!(record.config["port"], 3, "a number stays a number");
    world.cloud.calls();
    let (report, _) = world
        .try_apply(|survey| assert!(survey.plan.is_empty(), "{:?}", planned(&survey.plan)))
        .unwrap();
    assert!(report.actions.is_empty());
    assert!(world.cloud.calls().is_empty());
}

#[test]
fn dependencies_are_respected_across_providers() {
    let world = World::new(&[
        ("a-app", "provider: other, uses: \"${z-db.id}\""),
        ("z-db", ""),
    ]);
    assert!(all_well(&world.apply()));
    assert_eq!(world.cloud.calls(), ["create z-db", "create a-app"]);
}

#[test]
fn a_replaced_parent_takes_its_dependents_along() {
    let mut world = World::new(&[("db", "region: fra"), ("web", "uses: \"${db.id}\"")]);
    world.apply();
    world.cloud.calls();
    world.declare(&[("db", "region: nyc"), ("web", "uses: \"${db.id}\"")]);
    let (report, _) = world
        .try_apply(|survey| {
            assert_eq!(planned(&survey.plan), ["db replace", "web update"]);
            let change = &survey.plan.actions[1].changes[0];
            assert_eq!(change.old, "db-1");
            assert_eq!(change.new, json!({"$unknown": "${db.id}"}));
        })
        .unwrap();
    assert!(all_well(&report));
    let new_id = world.cloud.id_of("db").unwrap();
    assert_ne!(new_id, "db-1");
    assert_eq!(world.records()["web"].config["uses"], new_id.as_str());
    assert_eq!(
        world.cloud.calls()[..3],
        ["delete db", "create db", "update web"]
    );
}

#[test]
fn dependents_are_deleted_before_what_they_stand_on() {
    let mut world = World::new(&[
        ("a-net", ""),
        ("b-db", "depends_on: [a-net]"),
        ("c-app", "depends_on: [b-db]"),
    ]);
    world.apply();
    world.cloud.calls();
    world.declare(&[]);
    assert!(all_well(&world.apply()));
    assert_eq!(
        world.cloud.calls(),
        ["delete c-app", "delete b-db", "delete a-net"]
    );
    assert!(world.records().is_empty());
}

#[test]
fn a_failed_diff_fails_the_plan_and_names_the_resource() {
    let world = World::new(&[("a", ""), ("b", ""), ("c", "")]);
    world.apply();
    world.cloud.act("diff", "b", Act::Fail(ErrorClass::Denied));
    world.cloud.calls();
    let problems = world.try_apply(|_| ()).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message.contains("`b`"), "{:?}", problems[0]);
    assert!(world.cloud.calls().is_empty());
}

#[test]
fn sizes_are_asked_for_once_and_used_by_both() {
    let mut world = World::new(&[("db", "size: m, hints: {memory: 8Gi}")]);
    world.cloud.abilities.insert(Ability::Sizing);
    let (report, _) = world
        .try_apply(|survey| {
            let desired = survey.desired.values().next().unwrap();
            assert_eq!(desired.public_config["instance_type"], "m-type");
            assert_eq!(desired.public_config["memory"], "8Gi");
            // What it comes to is added: drivers of existing plugins read the size itself.
            assert_eq!(desired.public_config["size"], "m");
        })
        .unwrap();
    assert!(all_well(&report));
    assert_eq!(world.cloud.calls(), ["size m", "create db"]);
    assert_eq!(world.records()["db"].config["instance_type"], "m-type");
    // A size that is no tier is the provider's own.
    world.declare(&[("db", "size: db-s-1vcpu-1gb")]);
    world
        .try_apply(|survey| {
            let desired = survey.desired.values().next().unwrap();
            assert_eq!(desired.public_config["size"], "db-s-1vcpu-1gb");
        })
        .unwrap();
}

#[test]
fn what_a_provider_thinks_of_a_plan_is_heard() {
    let mut world = World::new(&[("a", "remark: warning")]);
    world.cloud.abilities.insert(Ability::Validate);
    world
        .try_apply(|survey| {
            // Both provider modules look at their own resources only.
            assert_eq!(survey.remarks.len(), 1);
            assert_eq!(survey.remarks[0].1.message, "not wise");
        })
        .unwrap();
    world.declare(&[("a", "remark: error")]);
    world.cloud.calls();
    let problems = world.try_apply(|_| ()).unwrap_err();
    assert_eq!(problems[0].code, "plan/refused");
    assert!(problems[0].at.is_some());
    assert!(world.cloud.calls().is_empty());
}

/// What a provider looks at is what would be done: in order, with what is there, and no more than that.
#[test]
fn a_provider_that_looks_at_plans_sees_the_plan() {
    let mut world = World::new(&[
        ("a", "n: 1, depends_on: [z]"),
        ("z", "n: 1"),
        ("same", "n: 1"),
    ]);
    world.cloud.abilities.insert(Ability::Validate);
    world.try_apply(|_| ()).unwrap();
    assert_eq!(
        world.cloud.proposed(),
        [
            "create same of nothing",
            "create z of nothing",
            "create a of nothing"
        ]
    );
    let id = |name: &str| world.records()[name].provider_id.clone();
    let (a, z) = (id("a"), id("z"));
    world.declare(&[("a", "n: 2"), ("b", "n: 1"), ("same", "n: 1")]);
    world
        .try_apply(|survey| {
            let changed: Vec<&str> = survey
                .plan
                .actions
                .iter()
                .filter(|action| !action.changes.is_empty())
                .map(|action| action.address.as_str())
                .collect();
            assert_eq!(changed, ["a"]);
        })
        .unwrap();
    assert_eq!(
        world.cloud.proposed(),
        [
            format!("update a of {a}"),
            "create b of nothing".to_owned(),
            format!("delete z of {z}"),
        ]
    );
    // Nothing is to be done: there is nothing to look at.
    world.try_apply(|_| ()).unwrap();
    assert!(world.cloud.proposed().is_empty());
}

// === Conflicts ===

#[test]
fn a_conflict_is_adopted_only_where_config_and_driver_agree() {
    let conflict = |config: &str, can_adopt: bool| {
        let mut world = World::new(&[("db", config)]);
        world.cloud.can_adopt = can_adopt;
        // Not there while planning, there when it is made: somebody was quicker.
        world
            .cloud
            .act("create", "db", Act::Fail(ErrorClass::AlreadyExists));
        world.cloud.plant("other");
        if config.contains("adopt") {
            world
                .cloud
                .act("read", "db", Act::Fail(ErrorClass::NotFound));
        }
        world.cloud.plant("db");
        let report = world.apply();
        let error = report.actions[0].message.clone();
        (endings(&report), error, world.cloud.calls(), world)
    };
    let (ended, _, calls, world) = conflict("adopt_existing: true", true);
    assert_eq!(ended, ["db success"]);
    assert_eq!(calls[..4], ["read db", "create db", "read db", "update db"]);
    assert_eq!(world.records()["db"].provider_id, "old-db");

    let (ended, error, calls, world) = conflict("x: 1", true);
    assert_eq!(ended, ["db error"]);
    assert!(error.contains("adopt_existing: true"), "{error}");
    assert_eq!(calls, ["create db"]);
    assert!(world.records().is_empty());

    let (ended, error, calls, _) = conflict("adopt_existing: true", false);
    assert_eq!(ended, ["db error"]);
    assert!(error.contains("cannot take it over"), "{error}");
    assert_eq!(calls, ["read db", "create db"], "not looked up again");
}

#[test]
fn an_adoption_that_cannot_look_tells_both_failures() {
    let world = World::new(&[("db", "adopt_existing: true")]);
    world
        .cloud
        .act("create", "db", Act::Fail(ErrorClass::AlreadyExists));
    world
        .cloud
        .act("read", "db", Act::Fail(ErrorClass::NotFound));
    world.cloud.act("read", "db", Act::Fail(ErrorClass::Denied));
    world.cloud.plant("db");
    let report = world.apply();
    let error = &report.actions[0].message;
    assert!(
        error.contains("already-exists") && error.contains("denied"),
        "{error}"
    );
    assert!(!world.cloud.calls().contains(&"update db".to_owned()));
    assert_eq!(
        world.cloud.names(),
        ["db"],
        "never deleted: it was there before"
    );
}

// === Failures ===

#[test]
fn a_failure_skips_what_needs_it_and_nothing_else() {
    let world = World::new(&[
        ("a", ""),
        ("b", "uses: \"${a.url}\""),
        ("c", "depends_on: [b]"),
        ("d", ""),
    ]);
    world
        .cloud
        .act("create", "a", Act::Fail(ErrorClass::Denied));
    let report = world.apply();
    assert_eq!(
        endings(&report),
        ["a error", "b skipped", "c skipped", "d success"]
    );
    assert!(report.actions[1].message.contains("`a`"));
    let evidence = &report.actions[0].evidence;
    assert!(evidence[0].cause.contains("because of a"), "{evidence:?}");
    assert_eq!(world.cloud.names(), ["d"]);
}

#[test]
fn a_failed_delete_keeps_the_record_and_a_vanished_one_does_not() {
    let mut world = World::new(&[("a", ""), ("b", ""), ("c", "")]);
    world.apply();
    world.declare(&[("c", "")]);
    world
        .cloud
        .act("delete", "a", Act::Fail(ErrorClass::Denied));
    world
        .cloud
        .act("delete", "b", Act::Fail(ErrorClass::NotFound));
    let report = world.apply();
    assert_eq!(endings(&report), ["b success", "a delete-failed"]);
    assert_eq!(world.records().into_keys().collect::<Vec<_>>(), ["a", "c"]);
}

#[test]
fn a_replace_whose_delete_fails_never_creates() {
    let mut world = World::new(&[("db", "region: fra")]);
    world.apply();
    world.declare(&[("db", "region: nyc")]);
    world.cloud.calls();
    world
        .cloud
        .act("delete", "db", Act::Fail(ErrorClass::Conflict));
    let report = world.apply();
    assert_eq!(endings(&report), ["db delete-failed"]);
    assert_eq!(world.cloud.calls(), ["delete db"]);
    assert_eq!(world.records()["db"].provider_id, "db-1");
}

#[test]
fn a_stop_between_the_halves_of_a_replace_creates_nothing() {
    let mut world = World::new(&[("db", "region: fra"), ("web", "")]);
    world.apply();
    world.declare(&[("db", "region: nyc"), ("web", "x: 1")]);
    world.parallelism = 1;
    world.cloud.calls();
    world.cloud.act("delete", "db", Act::Interrupt);
    let report = world.apply();
    assert!(report.interrupted);
    assert_eq!(endings(&report), ["db error", "web skipped"]);
    let said = &report.actions[0].message;
    assert!(
        said.contains("its old one is deleted, its new one was not made"),
        "{said}"
    );
    assert_eq!(world.cloud.calls(), ["delete db"]);
    assert!(!world.records().contains_key("db"), "the old one is gone");
    assert!(all_well(&world.apply()));
    assert_eq!(world.cloud.names(), ["db", "web"]);
}

#[test]
fn a_half_made_resource_is_recorded_and_finished_by_the_next_run() {
    let world = World::new(&[("db", "")]);
    world.cloud.act("create", "db", Act::Half);
    assert_eq!(endings(&world.apply()), ["db error"]);
    assert_eq!(world.records()["db"].status, "error");
    let (report, _) = world
        .try_apply(|survey| assert_eq!(planned(&survey.plan), ["db update"]))
        .unwrap();
    assert!(all_well(&report));
    assert_eq!(world.records()["db"].status, "active");
    assert_eq!(world.cloud.names(), ["db"]);
}

#[test]
fn an_answer_with_a_wrong_id_is_caught_and_taken_back() {
    let mut world = World::new(&[("db", "")]);
    world.cloud.ids = IdFormat::Uuid;
    world.cloud.act("create", "db", Act::AnswerId("db"));
    let report = world.apply();
    assert_eq!(endings(&report), ["db compensated"]);
    assert!(report.actions[0].message.contains("a UUID"));
    assert!(world.cloud.names().is_empty() && world.records().is_empty());

    world.cloud.act("create", "db", Act::AnswerId("db"));
    world
        .cloud
        .act("delete", "db", Act::Fail(ErrorClass::Denied));
    assert_eq!(endings(&world.apply()), ["db compensation-failed"]);
    // The intent stays open, so the next run finds it instead of making a second one.
    world.cloud.ids = IdFormat::Unknown;
    let (_, findings) = world.try_apply(|_| ()).unwrap();
    assert!(
        findings[0].contains("made but not recorded"),
        "{findings:?}"
    );
    assert_eq!(world.cloud.names().len(), 1);
}

#[test]
fn an_odd_id_on_record_is_worth_a_warning_and_is_healed() {
    let mut world = World::new(&[("db", "x: 1")]);
    world.apply();
    world.cloud.ids = IdFormat::Uuid;
    world.declare(&[("db", "x: 2")]);
    let healed = "11111111-2222-3333-4444-555555555555";
    world.cloud.act("update", "db", Act::AnswerId(healed));
    assert!(all_well(&world.apply()));
    assert_eq!(world.records()["db"].provider_id, healed);
    let warned = world.ear.0.lock().unwrap().iter().any(|event| {
        matches!(event, Event::Problem(report)
            if report.code == "apply/odd-id" && report.severity == Severity::Warning)
    });
    assert!(warned);
}

// === Answers that get lost ===

#[test]
fn a_create_whose_answer_is_lost_is_looked_up_before_anything_else() {
    for class in [ErrorClass::Unknown, ErrorClass::Transient] {
        let world = World::new(&[("db", "")]);
        world.cloud.act("create", "db", Act::LoseAnswer(class));
        let report = world.apply();
        assert!(all_well(&report), "{:?}", endings(&report));
        assert_eq!(world.cloud.calls(), ["create db", "read db"]);
        assert_eq!(world.records()["db"].provider_id, "db-1");
    }
}

#[test]
fn a_create_that_nobody_can_tell_of_is_left_for_the_next_run() {
    let world = World::new(&[("db", "")]);
    world
        .cloud
        .act("create", "db", Act::LoseAnswer(ErrorClass::Unknown));
    world.cloud.act("read", "db", Act::Fail(ErrorClass::Denied));
    assert_eq!(endings(&world.apply()), ["db error"]);
    assert!(world.records().is_empty());
    let (report, findings) = world.try_apply(|_| ()).unwrap();
    assert!(
        findings[0].contains("made but not recorded"),
        "{findings:?}"
    );
    assert!(all_well(&report));
    assert_eq!(world.cloud.names(), ["db"], "one, not two");
}

#[test]
fn a_call_without_an_end_is_given_up() {
    let mut world = World::new(&[("db", "")]);
    world.call_timeout = Duration::from_secs(90);
    world
        .cloud
        .act("create", "db", Act::Take(Duration::from_secs(3_600)));
    let report = world.apply();
    assert_eq!(endings(&report), ["db error"]);
    assert!(report.actions[0].message.contains("90 s"));
    assert!(report.actions[0].elapsed < Duration::from_secs(120));
}

// === Pace ===

#[test]
fn independent_actions_run_at_once_as_far_as_allowed() {
    let names: Vec<String> = (0..100).map(|n| format!("r{n:03}")).collect();
    let modules: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    for (parallelism, limit, rounds) in [(10, None, 10), (32, None, 4), (32, Some(5), 20)] {
        let mut world = World::new(&modules);
        world.cloud.pace = SECOND;
        world.cloud.limit = limit;
        world.parallelism = parallelism;
        let before = tidegate::clock::Clock::monotonic(&*world.clock);
        assert!(all_well(&world.apply()));
        let took = tidegate::clock::Clock::monotonic(&*world.clock) - before;
        assert!(
            took <= SECOND * rounds + Duration::from_millis(20),
            "{parallelism} at once took {took:?}"
        );
        let most = world.cloud.inner.lock().unwrap().most_running;
        assert_eq!(most, limit.unwrap_or(parallelism));
    }
}

#[test]
fn a_throttled_rush_slows_down_and_completes() {
    let names: Vec<String> = (0..30).map(|n| format!("r{n:03}")).collect();
    let modules: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    let world = World::new(&modules);
    for name in &names[..10] {
        for _ in 0..8 {
            world.cloud.act("create", name, Act::SlowDown(SECOND * 7));
        }
    }
    let report = world.apply();
    assert!(all_well(&report), "{:?}", endings(&report));
    let reads = world.cloud.calls();
    assert!(
        !reads.iter().any(|call| call.starts_with("read")),
        "what was refused was not begun: {reads:?}"
    );
    let elapsed = report.actions[0].elapsed;
    assert!(elapsed >= SECOND * 7, "Retry-After is obeyed: {elapsed:?}");
}

#[test]
fn transient_failures_are_repeated_a_few_times_only() {
    let world = World::new(&[("a", ""), ("b", "")]);
    for _ in 0..3 {
        world
            .cloud
            .act("create", "a", Act::Fail(ErrorClass::Transient));
    }
    for _ in 0..50 {
        world
            .cloud
            .act("create", "b", Act::Fail(ErrorClass::Transient));
    }
    let report = world.apply();
    assert_eq!(endings(&report), ["a success", "b error"]);
    let creates = world
        .cloud
        .calls()
        .iter()
        .filter(|call| *call == "create b")
        .count();
    assert_eq!(creates, 5);
}

// === State ===

#[test]
fn parallel_intents_share_one_flush() {
    let names: Vec<String> = (0..20).map(|n| format!("r{n:03}")).collect();
    let modules: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    let world = World::new(&modules);
    assert!(all_well(&world.apply()));
    let writes = world.store.journal_writes.lock().unwrap().clone();
    assert_eq!(writes.iter().sum::<usize>(), 40, "nothing is left out");
    assert_eq!(writes[0], 10, "the first ten intents are one write");
    assert!(writes.len() <= 20, "{writes:?}");
}

#[test]
fn a_state_that_cannot_be_written_stops_everything_and_deletes_nothing() {
    let mut world = World::new(&[("a", ""), ("b", ""), ("c", "")]);
    world.parallelism = 1;
    *world.store.refuse.lock().unwrap() = Some("a".to_owned());
    let report = world.apply();
    assert!(report.store_failed && !report.is_success());
    assert_eq!(endings(&report), ["a error", "b skipped", "c skipped"]);
    assert!(report.actions[0].message.contains("no space left"));
    assert_eq!(world.cloud.names(), ["a"], "made, and kept");
    *world.store.refuse.lock().unwrap() = None;
    let (report, findings) = world.try_apply(|_| ()).unwrap();
    assert!(findings[0].starts_with("a: it was made"), "{findings:?}");
    assert!(all_well(&report));
    assert_eq!(world.cloud.names(), ["a", "b", "c"]);
}

// === The new one first ===

#[test]
fn the_new_one_is_made_before_the_old_one_goes() {
    let keep = "lifecycle: {create_before_destroy: true}";
    let mut world = World::new(&[
        ("db", &format!("region: fra, {keep}")),
        ("web", "uses: \"${db.id}\""),
    ]);
    world.cloud.new_one_first = true;
    world.apply();
    world.cloud.calls();
    world.declare(&[
        ("db", &format!("region: nyc, {keep}")),
        ("web", "uses: \"${db.id}\""),
    ]);
    // The old one does not go at once: the next run finishes it.
    world
        .cloud
        .act("delete", "db", Act::Fail(ErrorClass::Denied));
    let report = world.apply();
    assert_eq!(endings(&report), ["db delete-failed", "web success"]);
    let calls = world.cloud.calls();
    let steps: Vec<&String> = calls.iter().filter(|call| !call.starts_with(' ')).collect();
    assert_eq!(steps, ["create db", "update web", "delete db"]);
    assert_ne!(world.records()["db"].provider_id, "db-1");
    assert_eq!(world.cloud.names(), ["db", "db", "web"]);
    let (report, findings) = world
        .try_apply(|survey| assert!(survey.plan.is_empty(), "{:?}", planned(&survey.plan)))
        .unwrap();
    assert!(report.actions.is_empty());
    assert_eq!(findings, ["db: the old `db-1` is gone"]);
    assert_eq!(world.cloud.names(), ["db", "web"]);
    assert_eq!(
        world.cloud.id_of("db").unwrap(),
        world.records()["db"].provider_id
    );
}

#[test]
fn a_new_one_that_fails_leaves_the_old_one_alone() {
    let keep = "lifecycle: {create_before_destroy: true}";
    let mut world = World::new(&[("db", &format!("region: fra, {keep}"))]);
    world.cloud.new_one_first = true;
    world.apply();
    world.declare(&[("db", &format!("region: nyc, {keep}"))]);
    world
        .cloud
        .act("create", "db", Act::Fail(ErrorClass::Denied));
    assert_eq!(endings(&world.apply()), ["db error"]);
    assert_eq!(world.records()["db"].provider_id, "db-1");
    assert_eq!(world.cloud.names(), ["db"]);
    assert!(all_well(&world.apply()));
    assert_eq!(world.cloud.names(), ["db"]);
    assert_ne!(world.records()["db"].provider_id, "db-1");
}
