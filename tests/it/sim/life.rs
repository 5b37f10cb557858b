//! One life: a config that changes, runs that are hit by every kind of fault, and the calm after
//! it, in which everything must come right.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tidegate::apply::survey::survey_within;
use tidegate::apply::values::Values;
use tidegate::apply::{ApplyReport, Engine, Providers, deposed, execute, recover, refresh};
use tidegate::cancel;
use tidegate::clock::Clock;
use tidegate::config::{Config, ProviderDeclaration, Resource};
use tidegate::random::{Random, SeededRandom};
use tidegate::report::{Event, Outcome, Reporter, Span};
use tidegate::resource::{ActionKind, Address, Kind, Part, ProviderId, Reference, Template, Value};
use tidegate::secret::{Keyring, Masker};
use tidegate::state::{Holder, Lease, Memory, Store, StoreError, memory};

use super::cloud::{Cloud, Sky};
use super::defects::Defect;
use super::dice::Dice;
use super::lock;
use super::storage::Line;
use super::time::{Actor, End, Task, VirtualClock, drive};
use super::truth::{Blow, CANARY, Shared, Truth};

/// What a life told us.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) broken: Option<String>,
    pub(super) counts: BTreeMap<String, u64>,
    pub(super) trace: u64,
    pub(super) log: Vec<String>,
}

#[derive(Debug)]
struct Deaf;

impl Reporter for Deaf {
    fn say(&self, _: Event) {}
}

/// One resource as the config has it.
#[derive(Clone, Debug, PartialEq)]
struct Module {
    size: u64,
    region: u64,
    uses: BTreeSet<usize>,
    waits_for: BTreeSet<usize>,
    adopt: bool,
    new_one_first: bool,
    secret: bool,
}

fn name(number: usize) -> String {
    format!("r{number}")
}

fn provider_of(number: usize) -> ProviderId {
    ProviderId::new(if number.is_multiple_of(2) {
        "cloud"
    } else {
        "other"
    })
}

struct World {
    truth: Shared,
    clock: Arc<VirtualClock>,
    state: memory::Shared,
    new_one_first: bool,
    uuids: bool,
    limit: Option<usize>,
    parallelism: usize,
    runs: u64,
    seed: u64,
}

/// How one run ended.
#[derive(Debug)]
enum RunEnd {
    NotLocked,
    NotSettled(#[expect(dead_code, reason = "shown when a life fails")] String),
    NotPlanned(#[expect(dead_code, reason = "shown when a life fails")] String),
    Applied(Box<ApplyReport>),
}

impl RunEnd {
    fn is_success(&self) -> bool {
        matches!(self, Self::Applied(report) if report.is_success())
    }

    fn is_idle(&self) -> bool {
        matches!(self, Self::Applied(report) if report.is_success() && report.actions.is_empty())
    }
}

fn span() -> Span {
    Span {
        path: PathBuf::from("infra.yaml"),
        line: 1,
        column: 1,
        width: 1,
        excerpt: String::new(),
    }
}

fn config(modules: &BTreeMap<usize, Module>, masker: &Masker) -> Config {
    let resources = modules
        .iter()
        .map(|(&number, module)| {
            let mut config = BTreeMap::from([
                ("size".to_owned(), Value::Number(module.size.into())),
                ("region".to_owned(), Value::Number(module.region.into())),
            ]);
            for below in &module.uses {
                config.insert(
                    format!("uses_{below}"),
                    Value::Template(Template {
                        parts: vec![Part::Reference(Reference {
                            address: Address::new(name(*below)),
                            field: "url".to_owned(),
                        })],
                        secret: false,
                    }),
                );
            }
            if module.secret {
                config.insert(
                    "password".to_owned(),
                    Value::Secret(masker.admit("PASSWORD", CANARY.to_owned())),
                );
            }
            Resource {
                base_name: name(number),
                address: Address::new(name(number)),
                kind: Kind::new("infra.storage"),
                provider: provider_of(number),
                config,
                depends_on: module
                    .uses
                    .iter()
                    .chain(&module.waits_for)
                    .map(|below| Address::new(name(*below)))
                    .collect(),
                protected: false,
                adopt_existing: module.adopt,
                size: None,
                hints: tidegate::config::SizeHints::default(),
                create_before_destroy: module.new_one_first,
                outputs: BTreeMap::new(),
                at: span(),
            }
        })
        .collect();
    let providers = ["cloud", "other"]
        .into_iter()
        .map(|id| {
            (
                ProviderId::new(id),
                ProviderDeclaration {
                    provider: "simulated".to_owned(),
                    config: BTreeMap::new(),
                    at: span(),
                },
            )
        })
        .collect();
    Config {
        path: PathBuf::from("infra.yaml"),
        directory: PathBuf::from("."),
        environment: "dev".to_owned(),
        resources,
        providers,
        state: None,
        generate: Vec::new(),
        credentials: Vec::new(),
        entries: Vec::new(),
        secret_stores: BTreeMap::new(),
        gates: Vec::new(),
        digest: String::new(),
        variables: BTreeSet::new(),
        environments: Vec::new(),
        unknown_environment: None,
    }
}

impl World {
    /// A run of the program, ready to be driven.
    fn run<'a>(
        &mut self,
        modules: &BTreeMap<usize, Module>,
        prune: bool,
        twice: bool,
    ) -> Task<'a, RunEnd> {
        self.runs += 1;
        let number = self.runs;
        let (canceller, cancel) = cancel::pair();
        let actor = Actor::new(format!("run{number}"), canceller);
        let modules = modules.clone();
        let cloud = Arc::new(Cloud {
            truth: Arc::clone(&self.truth),
            clock: Arc::clone(&self.clock),
            actor: Arc::clone(&actor),
            new_one_first: self.new_one_first,
            uuids: self.uuids,
            limit: self.limit,
        });
        let random: Arc<dyn Random> =
            Arc::new(SeededRandom::new(self.seed.wrapping_mul(1009) ^ number));
        let memory = Memory::open(
            self.state.clone(),
            "dev",
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Arc::clone(&random),
        )
        .unwrap();
        let line: Arc<dyn Store> = Arc::new(Line::new(
            memory,
            Arc::clone(&self.truth),
            Arc::clone(&self.clock),
            Arc::clone(&actor),
        ));
        let truth = Arc::clone(&self.truth);
        let clock = Arc::clone(&self.clock);
        let parallelism = self.parallelism;
        let run_id = actor.run_id.clone();
        let future = Box::pin(async move {
            let masker = Masker::default();
            let config = config(&modules, &masker);
            masker.admit("PASSWORD", CANARY.to_owned());
            let providers: Providers = ["cloud", "other"]
                .into_iter()
                .map(|id| {
                    let provider: Arc<dyn tidegate::provider::Provider> =
                        Arc::new(Sky(Arc::clone(&cloud)));
                    (ProviderId::new(id), provider)
                })
                .collect();
            let holder = Holder {
                run_id,
                who: "test@here".to_owned(),
                process_id: 1,
                command: "test".to_owned(),
                run_url: None,
                job: String::new(),
                since: String::new(),
                mark: String::new(),
            };
            let Ok(lease) = line.lock(&holder, Duration::from_secs(600)).await else {
                return RunEnd::NotLocked;
            };
            let Ok(Some(key)) = line.key(true).await else {
                return RunEnd::NotLocked;
            };
            let engine = Engine {
                config: &config,
                store: Arc::clone(&line),
                providers: &providers,
                keyring: Keyring::new(&key),
                masker,
                clock,
                random,
                reporter: &Deaf,
                cancel,
                parallelism,
                call_timeout: execute::CALL_TIMEOUT,
            };
            let end = work(&engine, &lease, &truth, prune, twice).await;
            // A command gives the lock back on every way out, and lives with it when it cannot.
            if let Err(StoreError::Storage(_)) = line.unlock(&lease).await {
                lock(&truth).count("store: a lock was not given back");
            }
            end
        });
        Task { actor, future }
    }
}

/// Recovery, plan, apply; what every command that writes does.
async fn work(
    engine: &Engine<'_>,
    lease: &Lease,
    truth: &Shared,
    prune: bool,
    twice: bool,
) -> RunEnd {
    let settled = match recover::recover(engine, lease).await {
        Ok(settled) => settled,
        Err(problem) => return RunEnd::NotSettled(problem.message),
    };
    {
        let mut truth = lock(truth);
        for one in &settled {
            truth.count(&format!("recovery: {}", one.finding));
        }
        truth.check_recovered(lease.fence);
    }
    if twice {
        let before = lock(truth).records.clone();
        match recover::recover(engine, lease).await {
            Ok(again) if again.is_empty() && lock(truth).records == before => {}
            Ok(again) => lock(truth).violated(format!("I10: a second recovery did {again:?}")),
            Err(problem) => return RunEnd::NotSettled(problem.message),
        }
    }
    if prune && let Err(problem) = forget_ghosts(engine, lease, truth).await {
        return RunEnd::NotPlanned(problem);
    }
    let values = Values::new(BTreeMap::new(), engine.masker.clone());
    let survey = match survey_within(engine, values, &[]).await {
        Ok(survey) => survey,
        Err(problems) => {
            let problems: Vec<String> = problems
                .iter()
                .map(|problem| format!("{} {:?}", problem.message, problem.because))
                .collect();
            return RunEnd::NotPlanned(problems.join("; "));
        }
    };
    let needs: BTreeMap<Address, BTreeSet<Address>> = survey
        .plan
        .actions
        .iter()
        .map(|action| (action.address.clone(), action.depends_on.clone()))
        .collect();
    let pairs: BTreeSet<Address> = survey
        .plan
        .actions
        .iter()
        .filter(|action| action.create_before_destroy)
        .map(|action| action.address.clone())
        .collect();
    lock(truth).note(|| {
        let actions: Vec<String> = survey
            .plan
            .actions
            .iter()
            .map(|action| format!("{} {}", action.address, action.action.word()))
            .collect();
        format!("plan: {}", actions.join(", "))
    });
    let scope = survey.scope.clone();
    let (report, _) = execute::execute(engine, lease, survey).await;
    // What it says of a store that is down is said by whatever comes next, too.
    if let Ok(old) = deposed::finish(engine, lease, &scope, &report).await {
        let mut truth = lock(truth);
        for _ in &old.gone {
            truth.count("an old one goes later");
        }
    }
    check_report(&report, &needs, &pairs, &mut lock(truth));
    RunEnd::Applied(Box::new(report))
}

/// What `infra refresh --prune` does.
async fn forget_ghosts(engine: &Engine<'_>, lease: &Lease, truth: &Shared) -> Result<(), String> {
    let looked = refresh::read_all(engine)
        .await
        .map_err(|problem| problem.message)?;
    for one in looked {
        match one.fate {
            refresh::Fate::Ghost => {
                engine
                    .store
                    .delete(lease, &one.address)
                    .await
                    .map_err(|error| error.to_string())?;
                lock(truth).count("prune: a ghost is forgotten");
            }
            refresh::Fate::Failed(why) => return Err(why),
            refresh::Fate::Changed | refresh::Fate::Unchanged => {}
        }
    }
    Ok(())
}

/// I7: what needs a failed one was skipped; and every action has one ending.
fn check_report(
    report: &ApplyReport,
    needs: &BTreeMap<Address, BTreeSet<Address>>,
    pairs: &BTreeSet<Address>,
    truth: &mut Truth,
) {
    // What stands on a pair needs the new one only; that the old one is not gone yet is another
    // matter.
    let endings: BTreeMap<&Address, Outcome> = report
        .actions
        .iter()
        .map(|action| match action.outcome {
            Outcome::DeleteFailed if pairs.contains(&action.address) => {
                (&action.address, Outcome::Success)
            }
            outcome => (&action.address, outcome),
        })
        .collect();
    if endings.len() != report.actions.len() {
        truth.violated("an action has two endings");
    }
    for action in &report.actions {
        truth.count(&format!("outcome: {}", action.outcome.word()));
        truth.note(|| {
            format!(
                "end: {} {} {}",
                action.address,
                action.outcome.word(),
                action.message
            )
        });
        if action.outcome == Outcome::Skipped {
            continue;
        }
        // The old one goes before what it stands on is touched, so a replacement that failed may have
        // come no further (of a pair the old one goes last). That its new one was not asked for too
        // early is I6, looked at when it is asked for.
        let is_half = action.action == ActionKind::Replace && action.outcome != Outcome::Success;
        if is_half && !pairs.contains(&action.address) {
            if action.message.starts_with("its old one is deleted") {
                truth.count("run: a replacement stopped half-way");
            }
            continue;
        }
        let below = needs.get(&action.address).into_iter().flatten();
        for below in below {
            if endings
                .get(below)
                .is_some_and(|outcome| *outcome != Outcome::Success)
            {
                truth.violated(format!(
                    "I7: `{}` was worked on although `{below}`, which it needs, did not succeed",
                    action.address
                ));
            }
        }
    }
}

fn grow(dice: &mut Dice, modules: &mut BTreeMap<usize, Module>, new_one_first: bool) {
    let number = usize::try_from(dice.below(6)).unwrap();
    let mut below = BTreeSet::new();
    let mut uses = BTreeSet::new();
    for &other in modules.keys().filter(|other| **other < number) {
        if dice.chance(350) {
            uses.insert(other);
        } else if dice.chance(200) {
            below.insert(other);
        }
    }
    modules.insert(
        number,
        Module {
            size: dice.below(3),
            region: dice.below(2),
            uses,
            waits_for: below,
            // A name that somebody else may have taken, in a cloud where names are unique.
            adopt: number == 1 && !new_one_first,
            new_one_first: new_one_first && dice.chance(800),
            secret: dice.chance(300),
        },
    );
}

/// Somebody edits the config.
fn edit(dice: &mut Dice, modules: &mut BTreeMap<usize, Module>, new_one_first: bool) {
    for _ in 0..=dice.below(3) {
        let numbers: Vec<usize> = modules.keys().copied().collect();
        match dice.below(5) {
            0 if numbers.len() > 1 => {
                let gone = dice.pick(&numbers);
                modules.remove(&gone);
                for module in modules.values_mut() {
                    module.uses.remove(&gone);
                    module.waits_for.remove(&gone);
                }
            }
            1 => {
                if let Some(module) = modules.get_mut(&dice.pick(&numbers)) {
                    module.size = dice.below(3);
                }
            }
            2 | 3 => {
                if let Some(module) = modules.get_mut(&dice.pick(&numbers)) {
                    module.region = dice.below(2);
                }
            }
            _ => grow(dice, modules, new_one_first),
        }
    }
}

/// Lives one life.
pub(super) fn live(seed: u64, defect: Option<Defect>, log: bool) -> Told {
    let mut truth = Truth::new(seed, defect, log);
    let mut dice = Dice::new(seed ^ 0xA5A5_5A5A);
    truth.doubles = dice.chance(500);
    truth.fault_rate = dice.pick(&[0, 30, 120, 300]);
    truth.store_fault_rate = dice.pick(&[0, 0, 10, 40]);
    let doubles = truth.doubles;
    let new_one_first = doubles && dice.chance(700);
    let mut world = World {
        truth: Arc::new(Mutex::new(truth)),
        clock: Arc::new(VirtualClock::default()),
        state: memory::Shared::default(),
        new_one_first,
        uuids: dice.chance(500),
        limit: dice.chance(200).then_some(1),
        parallelism: dice.pick(&[1, 2, 10]),
        runs: 0,
        seed,
    };
    let mut modules = BTreeMap::new();
    for _ in 0..=dice.below(4) {
        grow(&mut dice, &mut modules, new_one_first);
    }
    for (number, module) in &modules {
        if module.adopt && !doubles && dice.chance(500) {
            lock(&world.truth).plant(&name(*number));
        }
    }
    for _ in 0..=dice.below(3) {
        storm(&mut world, &mut dice, &modules);
        if lock(&world.truth).broken.is_some() {
            break;
        }
        if dice.chance(800) {
            edit(&mut dice, &mut modules, new_one_first);
        }
    }
    if lock(&world.truth).broken.is_none() {
        calm(&mut world, &modules);
    }
    let mut truth = lock(&world.truth);
    Told {
        broken: truth.broken.take(),
        counts: std::mem::take(&mut truth.counts),
        trace: truth.trace,
        log: truth.log.take().unwrap_or_default(),
    }
}

/// One run, perhaps with a rival, in bad weather.
fn storm(world: &mut World, dice: &mut Dice, modules: &BTreeMap<usize, Module>) {
    let rival = dice.chance(250);
    {
        let mut truth = lock(&world.truth);
        truth.blows.clear();
        let at = truth.steps + 1;
        for _ in 0..dice.below(3) {
            let blow = match dice.below(10) {
                0..=4 => Blow::Crash,
                5 => Blow::Cancel,
                6 | 7 => Blow::Sleep(dice.millis(1_000, 400_000)),
                8 => Blow::Outage(dice.millis(1_000, 600_000)),
                _ => Blow::Vanish,
            };
            let step = at + dice.below(70);
            truth.blows.insert(step, blow);
        }
        truth.note(|| format!("--- storm over {modules:?}"));
    }
    if dice.chance(100) {
        let off_by = i64::try_from(dice.below(200_000)).unwrap() - 100_000;
        world.clock.set_wrong(off_by);
        lock(&world.truth).count("fate: the wall clock jumps");
    }
    let mut tasks = vec![world.run(modules, false, false)];
    if rival {
        lock(&world.truth).count("fate: a second run at the same time");
        tasks.push(world.run(modules, false, false));
    }
    drive_them(world, tasks);
}

fn drive_them(world: &World, tasks: Vec<Task<'_, RunEnd>>) -> Vec<RunEnd> {
    let truth = Arc::clone(&world.truth);
    let driven = drive(&world.clock, tasks, |now| lock(&truth).settle(now));
    let mut truth = lock(&world.truth);
    let answers = match driven {
        Ok((ends, nudges)) => {
            if nudges > 0 {
                truth.count("fate: somebody loses patience");
            }
            if nudges > 1 {
                truth.count("fate: somebody loses patience and kills it");
            }
            ends.into_iter()
                .filter_map(|end| match end {
                    End::Answer(answer) => Some(answer),
                    End::Killed => None,
                })
                .collect()
        }
        Err(problem) => {
            truth.violated(problem);
            Vec::new()
        }
    };
    for answer in &answers {
        truth.note(|| format!("run ended: {answer:?}"));
        if let RunEnd::Applied(report) = answer {
            if report.lost_lock {
                truth.count("run: lost its lock");
                let slept = truth
                    .counts
                    .contains_key("fate: paused for longer than its lease");
                if !slept && truth.store_fault_rate == 0 {
                    truth.violated("I8: a run that was awake all the time lost its lock");
                }
            }
            if report.interrupted {
                truth.count("run: stopped");
            }
            if report.store_failed {
                truth.count("run: the state could not be written");
            }
        }
    }
    answers
}

/// Nothing goes wrong any more: two runs must be enough, and a third has nothing to do.
fn calm(world: &mut World, modules: &BTreeMap<usize, Module>) {
    let prune = {
        let mut truth = lock(&world.truth);
        truth.calm = true;
        truth.blows.clear();
        truth.note(|| format!("--- calm over {modules:?}"));
        !truth.lost.is_empty()
    };
    let mut last = String::new();
    let mut settled = false;
    for _ in 0..3 {
        let task = world.run(modules, prune, true);
        let ends = drive_them(world, vec![task]);
        lock(&world.truth).lost.clear();
        last = format!("{ends:?}");
        if ends.iter().any(RunEnd::is_success) {
            settled = true;
            break;
        }
    }
    if !settled {
        lock(&world.truth).violated(format!("it never comes right: {last}"));
        return;
    }
    let task = world.run(modules, false, true);
    let ends = drive_them(world, vec![task]);
    let mut truth = lock(&world.truth);
    if !ends.iter().all(RunEnd::is_idle) || ends.is_empty() {
        truth.violated(format!("a second apply does something: {ends:?}"));
    }
    let there: Vec<String> = truth
        .objects
        .values()
        .map(|object| object.name.clone())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let wanted: Vec<String> = modules.keys().map(|number| name(*number)).collect();
    let foreign = |name: &String| {
        truth
            .objects
            .values()
            .any(|object| object.foreign && object.name == *name)
    };
    let there: Vec<String> = there
        .into_iter()
        .filter(|name| wanted.contains(name) || !foreign(name))
        .collect();
    if there != wanted || truth.objects.len() < wanted.len() {
        truth.violated(format!("wanted {wanted:?}, there is {there:?}"));
    }
    let mut wrong = Vec::new();
    for (id, object) in &truth.objects {
        let address = Address::new(&object.name);
        let Some((_, module)) = modules
            .iter()
            .find(|(number, _)| name(**number) == object.name)
        else {
            continue;
        };
        let is_right = object.config.get("size") == Some(&json!(module.size))
            && object.config.get("region") == Some(&json!(module.region));
        if !object.lied && !is_right {
            wrong.push(format!(
                "`{address}` is {:?}, not {module:?}",
                object.config
            ));
        }
        if truth.records.get(&address).map(|seen| &seen.provider_id) != Some(id) {
            wrong.push(format!("`{address}` ({id}) is not what is on record"));
        }
    }
    for wrong in wrong {
        truth.violated(wrong);
    }
}
