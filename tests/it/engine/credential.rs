//! A credential's rotation with one thing going wrong: at every operation of it, before or after the
//! effect, once or for ever (the run dies there). Whatever happens, the credential in use works, and
//! after the next run there is exactly one, in the state and in its store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tidegate::apply::secrets::{SecretStores, generate, known};
use tidegate::apply::values::Declared;
use tidegate::apply::{Engine, Providers, credential, execute};
use tidegate::cancel;
use tidegate::clock::{Clock as _, rfc3339};
use tidegate::config::{Config, Half};
use tidegate::provider::ability::Ability;
use tidegate::provider::{
    Driver, DriverError, DriverResult, ErrorClass, Health, Operation, Provider,
};
use tidegate::random::SeededRandom;
use tidegate::report::Report;
use tidegate::resource::{
    Diff, Kind, Observed, Output, Outputs, Private, ProviderId, Recorded, Spec,
};
use tidegate::secret::source::SecretStore;
use tidegate::secret::{Keyring, Masker, Secret};
use tidegate::state::{Holder, Store};

use super::world::{Ear, Faults, VirtualClock, World, load, run};

const CONFIG: &str = "\
modules:
  - {name: cloud, type: iac.provider, config: {provider: local}}
secretStores:
  vault: {provider: file, config: {path: vault}}
secrets:
  generate:
    - {key: KEY, type: provider_credential, source: cloud.spaces, name: shop, store: vault}
";

const KIND: &str = "infra.spaces_key";

/// Makes credentials; may have a way of its own to revoke them.
#[derive(Clone, Debug)]
struct Mint {
    live: Arc<Mutex<BTreeMap<String, String>>>,
    faults: Arc<Faults>,
    clock: Arc<VirtualClock>,
    revokes: bool,
    looks: bool,
}

impl Mint {
    fn observed(&self, id: &str) -> Observed {
        Observed {
            provider_id: id.to_owned(),
            outputs: Outputs::from([
                (
                    "access_key".to_owned(),
                    Output::Public(json!(format!("ak-{id}"))),
                ),
                (
                    "secret_key".to_owned(),
                    Output::Public(json!(format!("sk-{id}"))),
                ),
                (
                    "created_at".to_owned(),
                    Output::Public(json!(rfc3339(self.clock.now()))),
                ),
            ]),
            status: String::new(),
            private: Private::default(),
        }
    }

    fn ids(&self) -> BTreeSet<String> {
        self.live.lock().unwrap().values().cloned().collect()
    }

    fn end(&self, id: &str) -> DriverResult<()> {
        self.faults.wrap(unclear, || {
            self.live.lock().unwrap().retain(|_, live| live != id);
            Ok(())
        })
    }
}

fn unclear() -> DriverError {
    DriverError::new(ErrorClass::Unknown, "nobody answered")
}

#[async_trait]
impl Driver for Mint {
    async fn create(&self, _: &Operation, desired: &Spec) -> DriverResult<Observed> {
        self.faults.wrap(unclear, || {
            let name = desired.address.as_str();
            let mut live = self.live.lock().unwrap();
            if live.contains_key(name) {
                return Err(DriverError::new(ErrorClass::AlreadyExists, "it exists"));
            }
            let id = format!("{name}.{}", live.len());
            live.insert(name.to_owned(), id.clone());
            Ok(self.observed(&id))
        })
    }
    async fn read(&self, prior: &Recorded) -> DriverResult<Observed> {
        let found = self
            .live
            .lock()
            .unwrap()
            .get(prior.address.as_str())
            .cloned();
        self.faults.wrap(unclear, || match found {
            Some(id) => Ok(self.observed(&id)),
            None => Err(DriverError::new(ErrorClass::NotFound, "it is not there")),
        })
    }
    async fn update(&self, _: &Operation, _: &Recorded, _: &Spec) -> DriverResult<Observed> {
        Err(unclear())
    }
    async fn delete(&self, _: &Operation, prior: &Recorded) -> DriverResult<()> {
        self.end(&prior.provider_id)
    }
    async fn diff(&self, _: &Recorded, _: &Spec) -> DriverResult<Diff> {
        Err(unclear())
    }
    async fn health(&self, _: &Recorded) -> DriverResult<Health> {
        Err(unclear())
    }
    fn is_sensitive(&self, _: &str) -> Option<bool> {
        Some(true)
    }
    fn check(&self, _: &Spec) -> Vec<(String, String)> {
        Vec::new()
    }
    fn can_adopt(&self, _: &Kind) -> bool {
        self.looks
    }
}

#[async_trait]
impl Provider for Mint {
    fn name(&self) -> &str {
        "mint"
    }
    fn version(&self) -> &str {
        "1.0.0"
    }
    fn kinds(&self) -> Vec<Kind> {
        vec![Kind::new(KIND)]
    }
    fn driver(&self, kind: &Kind) -> Option<&dyn Driver> {
        (kind.as_str() == KIND).then_some(self)
    }
    fn is_local(&self) -> bool {
        false
    }
    async fn close(&self) {}
    fn abilities(&self) -> BTreeSet<Ability> {
        self.revokes
            .then_some(Ability::RevokeCredential)
            .into_iter()
            .collect()
    }
    async fn revoke_credential(&self, source: &str, id: &str) -> DriverResult<()> {
        assert_eq!(source, "cloud.spaces");
        self.end(id)
    }
}

/// The secret store.
#[derive(Debug)]
struct Shelf {
    held: Mutex<BTreeMap<String, String>>,
    faults: Arc<Faults>,
}

impl Shelf {
    /// The ids that both halves are of.
    fn ids(&self) -> Vec<String> {
        let held = self.held.lock().unwrap();
        [("KEY_access_key", "ak-"), ("KEY_secret_key", "sk-")]
            .iter()
            .filter_map(|(name, half)| Some(held.get(*name)?.strip_prefix(half)?.to_owned()))
            .collect()
    }
}

fn shelf_broke() -> Report {
    Report::error("secret/store-file", "the shelf broke")
}

#[async_trait]
impl SecretStore for Shelf {
    fn place(&self) -> String {
        "shelf".to_owned()
    }
    async fn get(&self, _: &str) -> Result<Option<Secret>, Report> {
        Err(shelf_broke())
    }
    async fn exists(&self, _: &str) -> Result<bool, Report> {
        Err(shelf_broke())
    }
    async fn set(&self, key: &str, value: &Secret) -> Result<(), Report> {
        self.faults.wrap(shelf_broke, || {
            let mut held = self.held.lock().unwrap();
            held.insert(key.to_owned(), value.expose().to_owned());
            Ok(())
        })
    }
    async fn remove(&self, key: &str) -> Result<(), Report> {
        self.faults.wrap(shelf_broke, || {
            self.held.lock().unwrap().remove(key);
            Ok(())
        })
    }
}

/// Everything that outlives a run.
struct Life {
    world: World,
    mint: Mint,
    shelf: Arc<Shelf>,
    config: Config,
    random: Arc<SeededRandom>,
}

impl Life {
    fn new(revokes: bool, looks: bool) -> Self {
        let world = World::new(&[]);
        let faults = Arc::clone(&world.store.faults);
        Self {
            mint: Mint {
                live: Arc::default(),
                faults: Arc::clone(&faults),
                clock: Arc::clone(&world.clock),
                revokes,
                looks,
            },
            shelf: Arc::new(Shelf {
                held: Mutex::default(),
                faults,
            }),
            world,
            config: load(CONFIG),
            random: Arc::new(SeededRandom::new(7)),
        }
    }

    /// One bootstrap; what it answers, and the id of the credential that is in use afterwards.
    fn bootstrap(&self, rotates: bool) -> (Result<(), Report>, Vec<String>) {
        let providers: Providers = [(
            ProviderId::new("cloud"),
            Arc::new(self.mint.clone()) as Arc<dyn Provider>,
        )]
        .into();
        let stores: SecretStores = [(
            "vault".to_owned(),
            Arc::clone(&self.shelf) as Arc<dyn SecretStore>,
        )]
        .into();
        let store: Arc<dyn Store> = Arc::clone(&self.world.store) as _;
        let (_canceller, cancel) = cancel::pair();
        let ear = Ear::default();
        run(&self.world.clock, async {
            let holder = Holder {
                run_id: "run".to_owned(),
                who: "test@here".to_owned(),
                process_id: 1,
                command: "test".to_owned(),
                run_url: None,
                job: String::new(),
                since: String::new(),
                mark: String::new(),
            };
            let lease = store.lock(&holder, Duration::ZERO).await.unwrap();
            let key = store.key(true).await.unwrap().unwrap();
            let engine = Engine {
                config: &self.config,
                store: Arc::clone(&store),
                providers: &providers,
                keyring: Keyring::new(&key),
                masker: Masker::default(),
                clock: Arc::clone(&self.world.clock) as _,
                random: Arc::clone(&self.random) as _,
                reporter: &ear,
                cancel,
                parallelism: 1,
                call_timeout: execute::CALL_TIMEOUT,
            };
            let done = async {
                let mut values = known(&engine, &stores)
                    .await
                    .map_err(|mut all| all.remove(0))?;
                if rotates {
                    for half in Half::BOTH {
                        values.set_declared(&half.of("KEY"), Declared::Pending);
                    }
                }
                let generated = generate(&engine, &lease, &mut values, &stores).await?;
                if let Some((_, problem)) = generated.problems.into_iter().next() {
                    return Err(problem);
                }
                drop(credential::retire(&engine, &lease, |_| true).await);
                Ok(())
            }
            .await;
            // What a later look finds; the lock of a dead run goes another way.
            let in_use = credential::in_use(&engine).await.unwrap();
            store.unlock(&lease).await.unwrap();
            let ids = in_use.into_iter().map(|(_, label)| label.provider_id);
            (done, ids.collect())
        })
    }
}

/// Rotates (or makes the first) with this fault, then runs once more without any. False when the
/// run had no such operation.
fn survives(life: &Life, rotates: bool, (at, after, dies): (usize, bool, bool)) -> bool {
    let faults = &life.world.store.faults;
    let what = format!(
        "rotates {rotates}, looks {}, revokes {}: operation {at}, after {after}, dies {dies}",
        life.mint.looks, life.mint.revokes
    );
    if rotates {
        life.bootstrap(false).0.unwrap();
    }
    faults.set(Some(at), after, dies);
    let (done, in_use) = life.bootstrap(rotates);
    let hit = faults.was_hit();
    faults.set(None, false, false);
    let live = life.mint.ids();
    for id in &in_use {
        assert!(live.contains(id), "{what}: {id} is in use and revoked");
    }
    let held = life.shelf.ids();
    if !dies && (done.is_ok() || rotates) {
        assert_eq!(held.len(), 2, "{what}: {held:?}");
        assert_eq!(held[0], held[1], "{what}");
        assert!(
            live.contains(&held[0]),
            "{what}: the store holds a dead one"
        );
    }
    let (done, in_use) = life.bootstrap(false);
    assert!(done.is_ok(), "{what}: {done:?}");
    assert_eq!(in_use.len(), 1, "{what}: {in_use:?}");
    assert_eq!(life.shelf.ids(), [&*in_use[0], &*in_use[0]], "{what}");
    let live: Vec<String> = life.mint.ids().into_iter().collect();
    if life.mint.looks || !hit {
        assert_eq!(live, in_use, "{what}");
    } else {
        // Who cannot be asked by name cannot be told of one whose answer was lost: it is said.
        assert!(
            live.len() <= 2 && live.contains(&in_use[0]),
            "{what}: {live:?}"
        );
    }
    hit
}

#[test]
fn a_rotation_survives_every_single_fault() {
    let mut faults = 0;
    for (revokes, looks) in [(false, true), (true, true), (true, false)] {
        for rotates in [false, true] {
            for (after, dies) in [(false, false), (true, false), (false, true), (true, true)] {
                let mut at = 0;
                while survives(&Life::new(revokes, looks), rotates, (at, after, dies)) {
                    at += 1;
                    faults += 1;
                    assert!(at < 100, "a rotation ends");
                }
                assert!(at >= 6, "{at} operations");
            }
        }
    }
    assert!(faults > 150, "{faults} faults");
}
