//! The four cloud stores, each through the real plugin as a process of its own: the contract on
//! S3 and Spaces (moto), Azure (azurite) and Google Cloud Storage (a fake that enforces generations).

use std::collections::HashMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use tidegate::clock::{ManualClock, SystemClock};
use tidegate::command::shelf::PluginShelf;
use tidegate::disk::SystemDisk;
use tidegate::process::SystemProcesses;
use tidegate::provider::plugin::{Deadlines, Places, StateBackend, Tools};
use tidegate::random::SystemRandom;
use tidegate::report::{Event, Reporter};
use tidegate::resource::{Map, Value};
use tidegate::secret::Masker;
use tidegate::state::served::{Before, Object, Served, Shelf};
use tidegate::state::{Record, Store, StoreResult, name};
use tidegate::variables::Variables;

use super::contract::{Bench, store_contract};
use super::gcs::FakeGcs;
use super::{manual_clock, run};
use crate::harness;

const PLUGIN: &str = "tidegate-plugin-cloud";
/// Reads `gcs_base_url` from here, as users of emulators give it.
const GCS_KEY: &str = r#"{"disable_oauth": true, "client_email": "", "private_key": "",
    "private_key_id": "", "gcs_base_url": "@"}"#;

/// A program that listens on a port of its own. Ends with this value.
#[derive(Debug)]
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Program {
    /// Starts `command`, which has been told to listen on `port`.
    fn start(command: &mut Command, port: u16) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let program = Self(child);
        for _ in 0..1200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return program;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("waited a minute for port {port}");
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn curl(arguments: &[&str], url: &str) -> String {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "60"])
        .args(arguments)
        .arg(url)
        .output()
        .expect("curl runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// moto's S3 server, with one bucket: `bucket`.
#[derive(Debug)]
pub(super) struct Moto {
    program: Program,
    pub(super) endpoint: String,
}

impl Moto {
    pub(super) fn start() -> Option<Self> {
        let port = free_port();
        let Some(path) = harness::lab_tool("aws/bin/moto_server") else {
            harness::skip_without("moto_server");
            return None;
        };
        let mut command = Command::new(path);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let endpoint = format!("http://127.0.0.1:{port}");
        let program = Program::start(&mut command, port);
        curl(&["-X", "PUT"], &format!("{endpoint}/bucket"));
        Some(Self { program, endpoint })
    }

    /// One request about an object, signed.
    fn ask(&self, key: &str, arguments: &[&str]) -> String {
        let signed = [
            "--aws-sigv4",
            "aws:amz:us-east-1:s3",
            "--user",
            "AKIAIOSFODNN7EXAMPLE:test-0123456789",
        ];
        let arguments = [arguments, &signed].concat();
        curl(&arguments, &format!("{}/bucket/{key}", self.endpoint))
    }

    pub(super) fn get(&self, key: &str) -> String {
        self.ask(key, &[])
    }

    pub(super) fn put(&self, key: &str, content: &str) {
        self.ask(key, &["-X", "PUT", "--data-binary", content]);
    }

    pub(super) fn delete(&self, key: &str) {
        self.ask(key, &["-X", "DELETE"]);
    }

    /// The keys of all objects.
    pub(super) fn keys(&self) -> Vec<String> {
        let text = curl(&[], &format!("{}/bucket?list-type=2", self.endpoint));
        text.split("<Key>")
            .skip(1)
            .filter_map(|rest| rest.split_once("</Key>"))
            .map(|(key, _)| key.to_owned())
            .collect()
    }
}

/// One of the four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    S3,
    Spaces,
    Gcs,
    /// The same without credentials.
    Anonymous,
    Azure,
}

impl Kind {
    fn backend(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Spaces => "spaces",
            Self::Gcs | Self::Anonymous => "gcs",
            Self::Azure => "azure_blob",
        }
    }
}

/// A server of the kind, with an empty bucket.
pub(super) struct Server {
    pub(super) endpoint: String,
    // Held for its drop.
    _program: Option<Program>,
}

impl Server {
    pub(super) fn start(kind: Kind) -> Option<Self> {
        match kind {
            Kind::S3 | Kind::Spaces => {
                let moto = Moto::start()?;
                Some(Self {
                    endpoint: moto.endpoint,
                    _program: Some(moto.program),
                })
            }
            Kind::Gcs | Kind::Anonymous => Some(Self {
                endpoint: FakeGcs::start().endpoint,
                _program: None,
            }),
            Kind::Azure => azurite(),
        }
    }

    /// One for all tests that run at the same time; it ends with the last of them.
    fn shared(kind: Kind) -> Option<Arc<Self>> {
        static SHARED: Mutex<[Weak<Server>; 3]> =
            Mutex::new([Weak::new(), Weak::new(), Weak::new()]);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = match kind {
            Kind::S3 | Kind::Spaces => 0,
            Kind::Gcs | Kind::Anonymous => 1,
            Kind::Azure => 2,
        };
        if let Some(server) = shared[slot].upgrade() {
            return Some(server);
        }
        let server = Arc::new(Self::start(kind)?);
        shared[slot] = Arc::downgrade(&server);
        Some(server)
    }
}

fn azurite() -> Option<Server> {
    let Some(path) = harness::lab_tool("az/node_modules/.bin/azurite-blob") else {
        harness::skip_without("azurite-blob");
        return None;
    };
    let account = Account::AZURE_ACCOUNT;
    let port = free_port();
    let mut command = Command::new(path);
    command
        .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
        .args(["--inMemoryPersistence", "--silent", "--skipApiVersionCheck"]);
    let program = Program::start(&mut command, port);
    let endpoint = format!("http://127.0.0.1:{port}/{account}");
    // A container is made by a signed request.
    let (date, version) = ("Tue, 02 Jan 2024 03:04:05 GMT", "2021-08-06");
    let key = base64::prelude::BASE64_STANDARD
        .decode(Account::AZURE_KEY)
        .unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).expect("any length fits");
    mac.update(
        format!(
            "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{version}\n\
             /{account}/{account}/bucket\nrestype:container"
        )
        .as_bytes(),
    );
    let signature = base64::prelude::BASE64_STANDARD.encode(mac.finalize().into_bytes());
    curl(
        &[
            "-X",
            "PUT",
            "-H",
            &format!("x-ms-date: {date}"),
            "-H",
            &format!("x-ms-version: {version}"),
            "-H",
            &format!("Authorization: SharedKey {account}:{signature}"),
            "-H",
            "Content-Length:",
        ],
        &format!("{endpoint}/bucket?restype=container"),
    );
    Some(Server {
        endpoint,
        _program: Some(program),
    })
}

/// Everything the plugin says, unheard.
struct Deaf;

impl Reporter for Deaf {
    fn say(&self, _event: Event) {}
}

/// A place in a server's bucket, and a plugin folder to reach it with.
pub(super) struct Account {
    kind: Kind,
    folder: tempfile::TempDir,
    settings: Map,
    variables: Variables,
}

impl Account {
    /// The account every azurite has, and its key. Published by its makers.
    pub(super) const AZURE_ACCOUNT: &'static str = "devstoreaccount1";
    pub(super) const AZURE_KEY: &'static str =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

    /// With a prefix that nobody else uses.
    pub(super) fn new(kind: Kind, endpoint: &str) -> Option<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let prefix = format!("t{}/", NUMBER.fetch_add(1, Ordering::Relaxed));
        Self::at(kind, endpoint, &prefix)
    }

    pub(super) fn at(kind: Kind, endpoint: &str, prefix: &str) -> Option<Self> {
        let folder = plugin_folder()?;
        let text = |text: &str| Value::String(text.to_owned());
        let mut settings = Map::new();
        settings.insert("prefix".to_owned(), text(prefix));
        settings.insert("bucket".to_owned(), text("bucket"));
        let mut variables = vec![("PATH", std::env::var("PATH").unwrap_or_default())];
        match kind {
            Kind::S3 => {
                settings.insert("region".to_owned(), text("us-east-1"));
                settings.insert("endpoint".to_owned(), text(endpoint));
                variables.push(("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE".to_owned()));
                variables.push(("AWS_SECRET_ACCESS_KEY", "test-0123456789".to_owned()));
            }
            Kind::Spaces => {
                settings.insert("region".to_owned(), text("nyc3"));
                settings.insert("endpoint".to_owned(), text(endpoint));
                variables.push(("DO_SPACES_ACCESS_KEY", "DO00EXAMPLE".to_owned()));
                variables.push(("DO_SPACES_SECRET_KEY", "test-0123456789".to_owned()));
            }
            Kind::Gcs => {
                let key = GCS_KEY.replace('@', endpoint);
                settings.insert("service_account_key".to_owned(), text(&key));
                settings.insert("endpoint".to_owned(), text(endpoint));
            }
            Kind::Anonymous => {
                settings.insert("anonymous".to_owned(), Value::Bool(true));
                settings.insert("endpoint".to_owned(), text(endpoint));
            }
            Kind::Azure => {
                settings.insert("endpoint".to_owned(), text(endpoint));
                settings.insert("account".to_owned(), text(Self::AZURE_ACCOUNT));
                variables.push(("AZURE_STORAGE_ACCOUNT_KEY", Self::AZURE_KEY.to_owned()));
            }
        }
        Some(Self {
            kind,
            folder,
            settings,
            variables: variables
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        })
    }

    /// A plugin of its own, configured.
    pub(super) async fn open(&self) -> StateBackend {
        let tools = Tools {
            disk: Arc::new(SystemDisk),
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SystemRandom),
            processes: Arc::new(SystemProcesses::with_shim(harness::binary())),
            masker: Masker::default(),
            reporter: Arc::new(Deaf),
            variables: self.variables.clone(),
            deadlines: Deadlines::default(),
            cancel: tidegate::cancel::pair().1,
        };
        let folder = self.folder.path();
        StateBackend::open(
            self.kind.backend(),
            &self.settings,
            Places {
                folders: &[folder],
                beside: None,
            },
            folder,
            tools,
        )
        .await
        .unwrap_or_else(|problem| panic!("{problem:?}"))
    }

    /// Every object below the prefix.
    async fn all(backend: &StateBackend) -> Vec<String> {
        let all = backend.list(HashMap::new()).await;
        let all = all.unwrap_or_else(|error| panic!("{error:?}"));
        all.into_iter().map(|record| record.resource_id).collect()
    }
}

/// The cloud plugin in a plugin folder of its own.
fn plugin_folder() -> Option<tempfile::TempDir> {
    let built = harness::binary().with_file_name(PLUGIN);
    if !built.exists() {
        harness::skip_without(PLUGIN);
        return None;
    }
    // Beside the build, so that it is linked and not copied.
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    install(&built, root.path());
    Some(root)
}

/// Puts the plugin and its manifest where a host looks for them.
pub(super) fn install(built: &Path, plugins: &Path) {
    let folder = plugins.join(PLUGIN);
    std::fs::create_dir_all(&folder).unwrap();
    harness::place(built, &folder.join(PLUGIN));
    let manifest = Command::new(built).arg("--manifest").output().unwrap();
    assert!(manifest.status.success(), "{manifest:?}");
    std::fs::write(folder.join("plugin.json"), manifest.stdout).unwrap();
}

/// A shelf whose plugin starts with the first question.
pub(super) struct Lazy {
    account: Arc<Account>,
    shelf: tokio::sync::OnceCell<PluginShelf>,
}

impl std::fmt::Debug for Lazy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lazy").finish_non_exhaustive()
    }
}

impl Lazy {
    pub(super) fn new(account: &Arc<Account>) -> Arc<Self> {
        Arc::new(Self {
            account: Arc::clone(account),
            shelf: tokio::sync::OnceCell::new(),
        })
    }

    async fn shelf(&self) -> &PluginShelf {
        self.shelf
            .get_or_init(|| async {
                let shelf = PluginShelf::new(self.account.open().await, "the bucket".to_owned());
                assert!(shelf.compares(), "the plugin cannot compare");
                shelf
            })
            .await
    }
}

#[async_trait]
impl Shelf for Lazy {
    fn place(&self) -> String {
        "the bucket".to_owned()
    }

    fn compares(&self) -> bool {
        true
    }

    async fn get(&self, id: &str) -> StoreResult<Option<Object>> {
        self.shelf().await.get(id).await
    }

    async fn children(&self, parent: &str) -> StoreResult<Vec<Object>> {
        self.shelf().await.children(parent).await
    }

    async fn under(&self, ancestor: &str) -> StoreResult<Vec<String>> {
        self.shelf().await.under(ancestor).await
    }

    async fn save_if(&self, object: &Object, before: Before<'_>) -> StoreResult<bool> {
        self.shelf().await.save_if(object, before).await
    }

    async fn save(&self, object: &Object) -> StoreResult<()> {
        self.shelf().await.save(object).await
    }

    async fn delete(&self, id: &str) -> StoreResult<()> {
        self.shelf().await.delete(id).await
    }

    async fn lock(&self, id: &str) -> StoreResult<()> {
        self.shelf().await.lock(id).await
    }

    async fn unlock(&self, id: &str) -> StoreResult<()> {
        self.shelf().await.unlock(id).await
    }
}

/// A prefix of its own on the shared server, with two plugin processes.
struct InCloud {
    // Held for its drop.
    _server: Arc<Server>,
    account: Arc<Account>,
    here: Arc<Lazy>,
    elsewhere: Arc<Lazy>,
    clock: ManualClock,
}

impl InCloud {
    fn new(kind: Kind) -> Option<Self> {
        let server = Server::shared(kind)?;
        let account = Arc::new(Account::new(kind, &server.endpoint)?);
        Some(Self {
            _server: server,
            here: Lazy::new(&account),
            elsewhere: Lazy::new(&account),
            account,
            clock: manual_clock(),
        })
    }

    fn store(&self, shelf: &Arc<Lazy>, environment: &str) -> Arc<dyn Store> {
        let shelf: Arc<dyn Shelf> = Arc::clone(shelf) as _;
        let clock = Arc::new(self.clock.clone());
        let store = Served::open(shelf, "shop", environment, clock, Arc::new(SystemRandom));
        Arc::new(store.expect("a store"))
    }

    /// Asks the bucket through a third plugin. Called from within a runtime, which must not be
    /// entered twice.
    fn by_hand<T: Send + 'static>(
        &self,
        work: impl AsyncFnOnce(PluginShelf, Vec<String>) -> T + Send + 'static,
    ) -> T {
        let account = Arc::clone(&self.account);
        let thread = std::thread::spawn(move || {
            run(async {
                let backend = account.open().await;
                let all = Account::all(&backend).await;
                work(PluginShelf::new(backend, "the bucket".to_owned()), all).await
            })
        });
        thread.join().expect("the plugin answers")
    }

    /// Changes the stored form of a record.
    fn rewrite(
        &self,
        environment: &str,
        name: &str,
        change: impl FnOnce(String) -> String + Send + 'static,
    ) {
        let room = format!("!room!{}!", name::encode(environment));
        let end = format!("!record!{}", name::encode(name));
        self.by_hand(async move |shelf, all| {
            let id = all
                .iter()
                .find(|id| id.contains(&room) && id.ends_with(&end));
            let mut object = shelf.get(id.expect("the record")).await.unwrap().unwrap();
            object.content = object.content.map(change);
            shelf.save(&object).await.unwrap();
        });
    }
}

impl Bench for InCloud {
    fn clock(&self) -> &ManualClock {
        &self.clock
    }

    fn open(&self, environment: &str) -> Arc<dyn Store> {
        self.store(&self.here, environment)
    }

    fn open_elsewhere(&self, environment: &str) -> Arc<dyn Store> {
        self.store(&self.elsewhere, environment)
    }

    fn damage(&self, environment: &str, name: &str) {
        self.rewrite(environment, name, |mut content| {
            content.truncate(content.len() / 2);
            content
        });
    }

    fn replace(&self, environment: &str, record: &Record) {
        use sha2::Digest as _;
        let text = serde_json::to_string_pretty(record).unwrap();
        let body = text.strip_suffix("\n}").unwrap();
        let sum = tidegate::random::encode_hex(&sha2::Sha256::digest(body.as_bytes()));
        let text = format!("{body},\n  \"tidegate_checksum\": \"{sum}\"\n}}\n");
        self.rewrite(environment, record.resource_id.as_str(), |_| text);
    }

    fn is_gone(&self) -> bool {
        self.by_hand(async |_, all| all.is_empty())
    }

    fn is_remote(&self) -> bool {
        true
    }
}

mod s3 {
    use super::store_contract;
    store_contract!(super::InCloud::new(super::Kind::S3));
}

mod spaces {
    use super::store_contract;
    store_contract!(super::InCloud::new(super::Kind::Spaces));
}

mod gcs {
    use super::store_contract;
    store_contract!(super::InCloud::new(super::Kind::Gcs));
}

#[test]
fn who_is_nobody_writes_where_nobody_is_asked() {
    let Some(bench) = InCloud::new(Kind::Anonymous) else {
        return;
    };
    run(async {
        let store = bench.open("dev");
        let lease = store
            .lock(&super::holder("r1"), super::NO_WAIT)
            .await
            .unwrap();
        store.put(&lease, &super::record("a", "one")).await.unwrap();
        store.put(&lease, &super::record("a", "two")).await.unwrap();
        assert_eq!(bench.open("dev").list().await.unwrap().len(), 1);
        store.wipe(lease).await.unwrap();
    });
}

mod azure_blob {
    use super::store_contract;
    store_contract!(super::InCloud::new(super::Kind::Azure));
}
