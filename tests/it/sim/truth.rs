//! What is really the case: what the cloud holds and what the disk holds, told apart from what any
//! run believes. Every effect passes through here, and after every one the invariants are checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate::provider::ErrorClass;
use tidegate::resource::{ActionKind, Address, PublicMap};
use tidegate::state::{Entry, Record};

use super::defects::Defect;
use super::dice::Dice;
use super::lock;
use super::time::Actor;

/// A secret that every life knows and nobody may write down.
pub(super) const CANARY: &str = "canary-7f3a91c25be04d68";

/// A live resource.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) name: String,
    pub(super) config: PublicMap,
    /// Made in this order.
    pub(super) number: u64,
    /// It was there before anybody asked for it.
    pub(super) foreign: bool,
    /// The cloud said that it had changed it, and had not.
    pub(super) lied: bool,
}

/// What a request asks of the cloud.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Create { name: String, config: PublicMap },
    Update { id: String, config: PublicMap },
    Delete { name: String, id: String },
}

/// A request on its way.
#[derive(Debug)]
struct Request {
    due: Duration,
    operation: String,
    wish: Wish,
}

/// What the state store holds, as far as invariants need it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) provider_id: String,
    pub(super) tainted: bool,
    pub(super) dependencies: Vec<Address>,
}

/// What goes wrong next with one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Answer {
    Honest,
    /// This class, and whether it was done all the same.
    Fail(ErrorClass),
    Throttle(Option<Duration>),
    Half,
    OddId,
    EmptyId,
    HalfWithoutId,
    Lie,
    Never,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    pub(super) happens: bool,
    pub(super) answer: Answer,
    /// Until the cloud does it.
    pub(super) before: Duration,
    /// Until the answer is there.
    pub(super) after: Duration,
}

/// What goes wrong with one call of the store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Trouble {
    None,
    Before,
    After,
    Delay(Duration),
    Never,
}

/// What happens to the run at its next step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Blow {
    Crash,
    Cancel,
    Sleep(Duration),
    Outage(Duration),
    Vanish,
}

#[derive(Debug)]
pub(super) struct Truth {
    pub(super) dice: Dice,
    pub(super) defect: Option<Defect>,
    /// Nothing goes wrong any more.
    pub(super) calm: bool,
    /// Faults in a thousand provider calls, and in a thousand store calls.
    pub(super) fault_rate: u64,
    pub(super) store_fault_rate: u64,
    /// A second create of one name makes a second one.
    pub(super) doubles: bool,
    /// What happens at which step.
    pub(super) blows: BTreeMap<u64, Blow>,
    pub(super) steps: u64,
    outage_until: Duration,

    pub(super) objects: BTreeMap<String, Object>,
    /// Deleted because a run asked for it.
    pub(super) buried: BTreeSet<String>,
    /// Known to be out of step with the state: it vanished, or the cloud lied about it.
    pub(super) lost: BTreeSet<Address>,
    made_by: BTreeMap<String, String>,
    made: u64,
    tickets: u64,
    requests: BTreeMap<u64, Request>,
    results: BTreeMap<u64, Result<String, ErrorClass>>,

    pub(super) records: BTreeMap<Address, Seen>,
    pub(super) open: BTreeMap<String, (Address, ActionKind)>,
    pub(super) deposed: BTreeSet<Address>,
    writers: BTreeMap<u64, String>,
    last_fence: u64,
    /// The fence of the last lock that was given.
    pub(super) granted: u64,

    /// The first broken invariant.
    pub(super) broken: Option<String>,
    pub(super) counts: BTreeMap<String, u64>,
    /// A digest of everything that happened: two lives of one seed have the same.
    pub(super) trace: u64,
    pub(super) log: Option<Vec<String>>,
}

impl Truth {
    pub(super) fn new(seed: u64, defect: Option<Defect>, log: bool) -> Self {
        Self {
            dice: Dice::new(seed),
            defect,
            calm: false,
            fault_rate: 0,
            store_fault_rate: 0,
            doubles: false,
            blows: BTreeMap::new(),
            steps: 0,
            outage_until: Duration::ZERO,
            objects: BTreeMap::new(),
            buried: BTreeSet::new(),
            lost: BTreeSet::new(),
            made_by: BTreeMap::new(),
            made: 0,
            tickets: 0,
            requests: BTreeMap::new(),
            results: BTreeMap::new(),
            records: BTreeMap::new(),
            open: BTreeMap::new(),
            deposed: BTreeSet::new(),
            writers: BTreeMap::new(),
            last_fence: 0,
            granted: 0,
            broken: None,
            counts: BTreeMap::new(),
            trace: 0xcbf2_9ce4_8422_2325,
            log: log.then(Vec::new),
        }
    }

    pub(super) fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        // Only what is said for people costs time; the digest is fed from small numbers elsewhere.
        if let Some(log) = &mut self.log {
            log.push(text());
        }
    }

    fn digest(&mut self, text: &str) {
        for byte in text.bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) fn count(&mut self, what: &str) {
        self.digest(what);
        match self.counts.get_mut(what) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert(what.to_owned(), 1);
            }
        }
    }

    pub(super) fn violated(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.note(|| format!("BROKEN {what}"));
        self.broken.get_or_insert(what);
    }

    /// One step of a run: a call that is made, or an answer that arrives. Here fate strikes.
    pub(super) fn step(&mut self, actor: &Actor, now: Duration, what: &str) {
        self.steps += 1;
        self.digest(what);
        let steps = self.steps;
        self.note(|| format!("{steps} {now:?} {}: {what}", actor.run_id));
        // A request to the store that is never answered costs eleven thousand: the lock is renewed
        // every 15 s of the day until such a run is stopped, and a life may have several.
        if self.steps > 100_000 {
            self.violated("I12: more than 100,000 steps");
            actor.dead.store(true, std::sync::atomic::Ordering::SeqCst);
        }
        let Some(blow) = self.blows.remove(&self.steps) else {
            return;
        };
        self.note(|| format!("   {blow:?}"));
        match blow {
            Blow::Crash => {
                self.count("fate: the process is killed");
                actor.dead.store(true, std::sync::atomic::Ordering::SeqCst);
            }
            Blow::Cancel => {
                self.count("fate: asked to stop");
                if !self.has(Defect::DeafToSignals) {
                    actor.cancel();
                }
                actor
                    .cancelled
                    .store(true, std::sync::atomic::Ordering::SeqCst);
            }
            Blow::Sleep(long) => {
                self.count("fate: paused for longer than its lease");
                *lock(&actor.asleep_until) = Some(now + long);
            }
            Blow::Outage(long) => {
                self.count("fate: the provider is out of order");
                self.outage_until = now + long;
            }
            Blow::Vanish => {
                let ids: Vec<String> = self.objects.keys().cloned().collect();
                if !ids.is_empty() {
                    let at = usize::try_from(self.dice.below(ids.len() as u64)).unwrap();
                    if let Some(object) = self.objects.remove(&ids[at]) {
                        self.count("fate: a resource vanishes");
                        self.lost.insert(Address::new(&object.name));
                        // Taken away before its maker had seen it: looked up, it is not there, and
                        // asking again makes no second one.
                        self.made_by.retain(|_, made| *made != ids[at]);
                    }
                }
            }
        }
    }

    /// What goes wrong with a request that changes something.
    pub(super) fn course(&mut self, now: Duration, is_create: bool) -> Course {
        let mut course = Course {
            happens: true,
            answer: Answer::Honest,
            before: Duration::ZERO,
            after: Duration::ZERO,
        };
        if self.calm {
            return course;
        }
        course.before = self.dice.millis(0, 300);
        course.after = self.dice.millis(0, 300);
        if now < self.outage_until {
            self.count("fault: out of order");
            course.happens = false;
            course.answer = Answer::Fail(ErrorClass::Transient);
            return course;
        }
        if !self.dice.chance(self.fault_rate) {
            return course;
        }
        match self.dice.below(if is_create { 13 } else { 8 }) {
            0 => {
                let class = self.dice.pick(&[
                    ErrorClass::Denied,
                    ErrorClass::Invalid,
                    ErrorClass::Conflict,
                ]);
                self.count("fault: refused");
                course.happens = false;
                course.answer = Answer::Fail(class);
            }
            1 => {
                self.count("fault: flaky");
                course.happens = false;
                course.answer = Answer::Fail(ErrorClass::Transient);
            }
            2 => {
                self.count("fault: nobody knows, not done");
                course.happens = false;
                course.answer = Answer::Fail(ErrorClass::Unknown);
            }
            3 => {
                self.count("fault: answer lost, done");
                let class = self
                    .dice
                    .pick(&[ErrorClass::Transient, ErrorClass::Unknown]);
                course.answer = Answer::Fail(class);
            }
            4 => {
                self.count("fault: throttled");
                course.happens = false;
                let wait = self.dice.millis(1, 400_000);
                course.answer = Answer::Throttle(self.dice.chance(500).then_some(wait));
            }
            5 => {
                self.count("fault: slow");
                course.before = self.dice.millis(0, 50_000);
                course.after = self.dice.millis(0, 3 * 3_600_000);
            }
            6 => {
                self.count("fault: no answer");
                course.happens = self.dice.chance(500);
                course.before = self.dice.millis(0, 50_000);
                course.answer = Answer::Never;
            }
            7 | 12 => {
                // A lie about a delete leaves something nobody can find; it is not told here.
                self.count("fault: lies about success");
                course.answer = Answer::Lie;
            }
            8 => {
                self.count("fault: half done");
                course.answer = Answer::Half;
            }
            9 => {
                self.count("fault: odd id");
                course.answer = Answer::OddId;
            }
            10 => {
                self.count("fault: no id");
                course.answer = Answer::EmptyId;
            }
            _ => {
                self.count("fault: half done, no id");
                course.answer = Answer::HalfWithoutId;
            }
        }
        course
    }

    /// What goes wrong with a read.
    pub(super) fn reading(&mut self, now: Duration) -> Course {
        let mut course = Course {
            happens: true,
            answer: Answer::Honest,
            before: Duration::ZERO,
            after: Duration::ZERO,
        };
        if self.calm {
            return course;
        }
        course.after = self.dice.millis(0, 100);
        if now < self.outage_until {
            course.answer = Answer::Fail(ErrorClass::Transient);
            return course;
        }
        if self.dice.chance(self.fault_rate) {
            self.count("fault: read fails");
            course.answer = match self.dice.below(5) {
                0 => Answer::Never,
                1 => Answer::Fail(ErrorClass::Denied),
                2 => Answer::Fail(ErrorClass::Throttled),
                _ => Answer::Fail(ErrorClass::Transient),
            };
        }
        course
    }

    /// What goes wrong with a call of the store.
    pub(super) fn trouble(&mut self) -> Trouble {
        if self.calm || !self.dice.chance(self.store_fault_rate) {
            return Trouble::None;
        }
        match self.dice.below(9) {
            0..=2 => {
                self.count("store: refuses");
                Trouble::Before
            }
            3..=5 => {
                self.count("store: writes, and says that it could not");
                Trouble::After
            }
            6 | 7 => {
                self.count("store: is slow");
                Trouble::Delay(self.dice.millis(10, 40_000))
            }
            _ => {
                self.count("store: never answers");
                Trouble::Never
            }
        }
    }

    /// A request reaches the cloud's door. By now its intent must be durable, and so must
    /// everything it stands on.
    pub(super) fn arrives(
        &mut self,
        actor: &Actor,
        operation: &str,
        address: &Address,
        dependencies: &BTreeSet<Address>,
        is_delete: bool,
    ) {
        let is_old_one = is_delete && self.deposed.contains(address);
        if !is_old_one && !self.open.contains_key(operation) {
            self.violated(format!(
                "I6: {} asks for a change of `{address}` whose intent is not durable",
                actor.run_id
            ));
        }
        for below in dependencies {
            let held_up = self
                .open
                .values()
                .any(|(address, action)| address == below && *action != ActionKind::Delete);
            let seen = self.records.get(below);
            if !self.lost.contains(below) && (held_up || seen.is_none_or(|seen| seen.tainted)) {
                self.violated(format!(
                    "I6: `{address}` is worked on before `{below}`, which it needs, is on record"
                ));
            }
        }
        if is_delete && !is_old_one {
            // Nobody may still stand on what goes, unless it will be there again.
            let orphans: Vec<String> = self
                .records
                .iter()
                .filter(|(_, seen)| seen.dependencies.contains(address))
                .map(|(name, _)| name.to_string())
                .collect();
            self.note(|| format!("   deletes {address}; stands under {orphans:?}"));
        }
    }

    /// Sends a request on its way.
    pub(super) fn submit(&mut self, due: Duration, operation: &str, wish: Wish) -> u64 {
        self.tickets += 1;
        self.requests.insert(
            self.tickets,
            Request {
                due,
                operation: operation.to_owned(),
                wish,
            },
        );
        self.tickets
    }

    /// The one who asked is gone: what it asked for may have been on its way, or not.
    pub(super) fn abandoned(&mut self, ticket: u64) {
        if self.requests.contains_key(&ticket) && self.dice.chance(500) {
            self.requests.remove(&ticket);
        }
        self.results.remove(&ticket);
    }

    /// What is still on its way arrives before anybody looks again.
    pub(super) fn hurry(&mut self, ticket: u64) {
        if let Some(request) = self.requests.get_mut(&ticket) {
            request.due = Duration::ZERO;
        }
    }

    pub(super) fn result(&mut self, ticket: u64) -> Option<Result<String, ErrorClass>> {
        self.results.remove(&ticket)
    }

    /// The cloud does what is due.
    pub(super) fn settle(&mut self, now: Duration) {
        loop {
            let due = self
                .requests
                .iter()
                .filter(|(_, request)| request.due <= now)
                .min_by_key(|(ticket, request)| (request.due, **ticket))
                .map(|(ticket, _)| *ticket);
            let Some(ticket) = due else { return };
            if let Some(request) = self.requests.remove(&ticket) {
                let result = self.effect(&request.operation, request.wish);
                self.results.insert(ticket, result);
                self.check();
            }
        }
    }

    /// The newest live one of that name.
    pub(super) fn named(&self, name: &str) -> Option<(&String, &Object)> {
        self.objects
            .iter()
            .filter(|(_, object)| object.name == name)
            .max_by_key(|(_, object)| object.number)
    }

    fn effect(&mut self, operation: &str, wish: Wish) -> Result<String, ErrorClass> {
        self.note(|| format!("   cloud: {wish:?} for {operation}"));
        match wish {
            Wish::Create { name, config } => {
                if !self.doubles && self.named(&name).is_some() {
                    return Err(ErrorClass::AlreadyExists);
                }
                let id = self.dice.uuid();
                self.made += 1;
                if let Some(first) = self.made_by.insert(operation.to_owned(), id.clone()) {
                    self.violated(format!(
                        "I2: operation {operation} made both {first} and {id} (`{name}`)"
                    ));
                }
                self.count("cloud: made");
                self.objects.insert(
                    id.clone(),
                    Object {
                        name,
                        config,
                        number: self.made,
                        foreign: false,
                        lied: false,
                    },
                );
                Ok(id)
            }
            Wish::Update { id, config } => match self.objects.get_mut(&id) {
                Some(object) => {
                    object.config = config;
                    self.count("cloud: changed");
                    Ok(id)
                }
                None => Err(ErrorClass::NotFound),
            },
            Wish::Delete { name, id } => {
                // Many clouds take a name for an id.
                let real = if id == name {
                    self.named(&name).map(|(id, _)| id.clone())
                } else {
                    Some(id)
                };
                match real.and_then(|real| self.objects.remove(&real).map(|_| real)) {
                    Some(real) => {
                        self.count("cloud: deleted");
                        self.buried.insert(real.clone());
                        Ok(real)
                    }
                    None => Err(ErrorClass::NotFound),
                }
            }
        }
    }

    /// Something was there before anybody asked.
    pub(super) fn plant(&mut self, name: &str) {
        let id = self.dice.uuid();
        self.made += 1;
        self.objects.insert(
            id,
            Object {
                name: name.to_owned(),
                config: PublicMap::new(),
                number: self.made,
                foreign: true,
                lied: false,
            },
        );
    }

    // What the store did. Called for what is durable, by whoever made it so.

    /// A write was accepted.
    pub(super) fn accepted(&mut self, run_id: &str, fence: u64) {
        if fence < self.last_fence {
            let last = self.last_fence;
            self.violated(format!(
                "I4: {run_id} wrote under fence {fence} after fence {last}"
            ));
        }
        self.last_fence = self.last_fence.max(fence);
        let first = self
            .writers
            .entry(fence)
            .or_insert_with(|| run_id.to_owned());
        if first != run_id {
            let what = format!("I4: {first} and {run_id} both wrote under fence {fence}");
            self.violated(what);
        }
    }

    pub(super) fn wrote(&mut self, record: &Record) {
        self.records.insert(
            record.resource_id.clone(),
            Seen {
                provider_id: record.provider_id.clone(),
                tainted: record.status == "error",
                dependencies: record.dependencies.clone(),
            },
        );
    }

    pub(super) fn journaled(&mut self, entries: &[Entry]) {
        for entry in entries {
            match entry {
                Entry::Intent {
                    operation,
                    address,
                    action,
                    ..
                } => {
                    self.open
                        .insert(operation.clone(), (address.clone(), *action));
                }
                Entry::Outcome { operation, .. } => {
                    self.open.remove(operation);
                }
                Entry::Begin { .. } | Entry::End { .. } => {}
            }
        }
    }

    pub(super) fn leaks(&mut self, where_: &str, text: &str) {
        if text.contains(CANARY) {
            self.violated(format!("I11: the secret is in {where_}"));
        }
    }

    /// I1 and I2, after every effect of any kind.
    pub(super) fn check(&mut self) {
        let mut wrong = None;
        for (id, object) in &self.objects {
            let address = Address::new(&object.name);
            let recorded = self
                .records
                .get(&address)
                .is_some_and(|seen| seen.provider_id == *id);
            let intended = || self.open.values().any(|(open, _)| *open == address);
            let kept = self.deposed.contains(&address);
            if !object.foreign && !recorded && !kept && !intended() {
                wrong = Some(format!(
                    "I1: `{address}` ({id}) is live, and neither a record nor an open intent knows it"
                ));
            }
            let others = self
                .objects
                .values()
                .filter(|other| other.name == object.name && !other.foreign)
                .count();
            if others > 1 && !kept {
                wrong = Some(format!("I2: there are {others} of `{address}`"));
            }
        }
        if let Some(wrong) = wrong {
            self.violated(wrong);
        }
    }

    /// I3, right after the recovery of the run under `fence`.
    pub(super) fn check_recovered(&mut self, fence: u64) {
        if fence < self.granted {
            // Another run has taken over meanwhile; this one's next write tells it so.
            return;
        }
        let dead: Vec<String> = self
            .records
            .iter()
            .filter(|(address, seen)| {
                self.buried.contains(&seen.provider_id) && !self.lost.contains(*address)
            })
            .map(|(address, seen)| format!("`{address}` ({})", seen.provider_id))
            .collect();
        if !dead.is_empty() {
            self.violated(format!(
                "I3: the state refers to what was deleted: {}",
                dead.join(", ")
            ));
        }
        if !self.open.is_empty() {
            let open = format!("{:?}", self.open);
            self.violated(format!("I10: recovery left intents open: {open}"));
        }
    }
}

pub(super) type Shared = Arc<std::sync::Mutex<Truth>>;
