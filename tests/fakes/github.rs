//! A stateful GitHub on loopback: real X25519 keys, real boxes opened with a library that is not
//! ours, GitHub's rules for names, sizes and keys. Answers can be scripted, delayed and limited.
//!
//! Used inside tests (`crate::github::fake`) and as the executable `fake-github`.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dryoc::classic::crypto_box::{crypto_box_keypair, crypto_box_seal_open};
use serde_json::{Value, json};

/// GitHub's limit for a plaintext, in bytes.
const PLAINTEXT_BYTES_MAX: usize = 49_152;

/// GitHub's cap of secrets per repository or environment; the fake can lift it.
const SECRETS_MAX: usize = 100;

/// 900 points a minute at 5 a write.
const WRITES_PER_MINUTE: usize = 180;

/// What time it is, as the rate limiter sees it.
pub(crate) type Time = Arc<dyn Fn() -> Duration + Send + Sync>;

/// How the fake behaves.
#[derive(Clone)]
pub(crate) struct Options {
    /// The only token accepted; `None` accepts any that is not empty.
    pub(crate) token: Option<String>,
    /// The token may write repository secrets.
    pub(crate) may_write_secrets: bool,
    /// The token may list secrets.
    pub(crate) may_list: bool,
    /// The token may write environment secrets.
    pub(crate) may_write_environments: bool,
    /// Repositories that exist; `None` for all.
    pub(crate) repositories: Option<Vec<String>>,
    /// Environments that exist; `None` for all.
    pub(crate) environments: Option<Vec<String>>,
    /// A new key after so many accepted writes to a scope.
    pub(crate) rotate_every: Option<usize>,
    /// Answer 201 with an empty body instead of `{}`.
    pub(crate) empty_created_body: bool,
    /// Secrets a scope can hold.
    pub(crate) secrets_max: usize,
    /// Enforce the documented pace of writes, by this clock.
    pub(crate) pace: Option<Time>,
    /// Every answer takes this long.
    pub(crate) delay: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: None,
            may_write_secrets: true,
            may_list: true,
            may_write_environments: true,
            repositories: None,
            environments: None,
            rotate_every: None,
            empty_created_body: false,
            secrets_max: SECRETS_MAX,
            pace: None,
            delay: Duration::ZERO,
        }
    }
}

/// An answer given instead of the real one, once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scripted {
    /// Only for this method; empty for any.
    pub(crate) method: &'static str,
    /// HTTP status; 0 closes the connection without an answer.
    pub(crate) status: u16,
    /// Header lines.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: String,
    /// Wait before answering.
    pub(crate) delay: Duration,
    /// Do the real work first, then give this answer: a write that was heard but not confirmed.
    pub(crate) after_effect: bool,
}

impl Scripted {
    /// A JSON message with a status.
    pub(crate) fn message(method: &'static str, status: u16, message: &str) -> Self {
        Self {
            method,
            status,
            body: json!({"message": message}).to_string(),
            ..Self::default()
        }
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// A request as it came, and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query, undecoded.
    pub(crate) path: String,
    /// Header names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) status: u16,
    /// A box was opened with our private key.
    pub(crate) decrypted: bool,
}

type KeyPair = ([u8; 32], [u8; 32]);

#[derive(Default)]
struct Vault {
    keys: Vec<KeyPair>,
    /// Plaintext by stored (upper-case) name.
    secrets: BTreeMap<String, Vec<u8>>,
    /// When they were last written, where a test says so.
    updated: BTreeMap<String, String>,
    writes: usize,
}

struct State {
    options: Options,
    vaults: BTreeMap<String, Vault>,
    script: VecDeque<Scripted>,
    seen: Vec<Seen>,
    raw: Vec<u8>,
    key_serial: u64,
    write_times: VecDeque<Duration>,
    writing: usize,
    writing_max: usize,
    log: Option<Box<dyn Write + Send>>,
}

/// A running fake. Stops when dropped.
pub(crate) struct Fake {
    url: String,
    address: Option<SocketAddr>,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
}

impl Fake {
    /// Starts on a free loopback port.
    pub(crate) fn start(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let fake = Self {
            url: format!("http://{address}"),
            address: Some(address),
            state: Arc::new(Mutex::new(State::new(options))),
            stop: Arc::default(),
        };
        let (state, stop) = (Arc::clone(&fake.state), Arc::clone(&fake.stop));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                if let Ok(stream) = stream {
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || serve_tcp(&stream, &state));
                }
            }
        });
        fake
    }

    /// Starts on a Unix socket, the way `gh` can be pointed at it. Lives until the process ends.
    pub(crate) fn start_unix(path: &Path, options: Options) -> Self {
        let listener = UnixListener::bind(path).expect("the socket's path is free");
        let state = Arc::new(Mutex::new(State::new(options)));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || {
                    if let Ok(reader) = stream.try_clone() {
                        drop(serve(reader, &stream, &state));
                    }
                });
            }
        });
        Self {
            url: format!("unix:{}", path.display()),
            address: None,
            state,
            stop: Arc::default(),
        }
    }

    /// The address to put into `GITHUB_API_URL`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Writes one line per request to `log`.
    pub(crate) fn log_to(&self, log: Box<dyn Write + Send>) {
        lock(&self.state).log = Some(log);
    }

    /// Queues answers; each is given once, to the next request whose method fits.
    pub(crate) fn script(&self, answers: impl IntoIterator<Item = Scripted>) {
        lock(&self.state).script.extend(answers);
    }

    /// Replaces the key of a scope (`o/r` or `o/r#environment`).
    pub(crate) fn rotate(&self, scope: &str) {
        lock(&self.state).rotate(scope);
    }

    /// Makes the key of a scope this one, whatever it is.
    pub(crate) fn set_public_key(&self, scope: &str, public: [u8; 32]) {
        let mut state = lock(&self.state);
        state.rotate(scope);
        if let Some(pair) = state.vault(scope).keys.last_mut() {
            pair.0 = public;
        }
    }

    /// Stores a value as if somebody had written it.
    pub(crate) fn seed(&self, scope: &str, name: &str, value: &[u8]) {
        let mut state = lock(&self.state);
        state
            .vault(scope)
            .secrets
            .insert(name.to_uppercase(), value.to_vec());
    }

    /// Takes a secret away, as somebody does in the settings of the repository.
    pub(crate) fn forget(&self, scope: &str, name: &str) {
        lock(&self.state)
            .vault(scope)
            .secrets
            .remove(&name.to_uppercase());
    }

    /// Says when a secret was last written, as listings tell it from now on.
    pub(crate) fn touch(&self, scope: &str, name: &str, updated_at: &str) {
        lock(&self.state)
            .vault(scope)
            .updated
            .insert(name.to_uppercase(), updated_at.to_owned());
    }

    /// The plaintext of a stored secret.
    pub(crate) fn secret(&self, scope: &str, name: &str) -> Option<Vec<u8>> {
        let mut state = lock(&self.state);
        state
            .vault(scope)
            .secrets
            .get(&name.to_uppercase())
            .cloned()
    }

    /// How many secrets a scope holds.
    pub(crate) fn count(&self, scope: &str) -> usize {
        lock(&self.state).vault(scope).secrets.len()
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.state).seen.clone()
    }

    /// How many requests of a method were answered so far.
    pub(crate) fn requests(&self, method: &str) -> usize {
        self.seen()
            .iter()
            .filter(|seen| seen.method == method)
            .count()
    }

    /// Every byte received so far, over all connections.
    pub(crate) fn raw(&self) -> Vec<u8> {
        lock(&self.state).raw.clone()
    }

    /// The greatest number of writes that were in work at the same time.
    pub(crate) fn writes_in_flight_max(&self) -> usize {
        lock(&self.state).writing_max
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(address) = self.address {
            // Wakes the listener so that it sees the flag.
            drop(TcpStream::connect(address));
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve_tcp(stream: &TcpStream, state: &Mutex<State>) {
    if let Ok(reader) = stream.try_clone() {
        // A client that goes away in the middle is none of our business.
        drop(serve(reader, stream, state));
    }
}

struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    decrypted: bool,
}

impl Answer {
    fn new(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            decrypted: false,
        }
    }

    fn message(status: u16, message: &str) -> Self {
        Self::new(
            status,
            json!({
                "message": message,
                "documentation_url": "https://docs.github.com/rest",
                "status": status.to_string(),
            })
            .to_string(),
        )
    }

    fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

fn serve(reader: impl Read, mut writer: impl Write, state: &Mutex<State>) -> io::Result<()> {
    let mut reader = BufReader::new(reader);
    while let Some(request) = read_request(&mut reader, state)? {
        let (scripted, mut delay) = {
            let mut state = lock(state);
            let place = state
                .script
                .iter()
                .position(|answer| answer.method.is_empty() || answer.method == request.method);
            let writes = request.method != "GET";
            if writes {
                state.writing += 1;
                state.writing_max = state.writing_max.max(state.writing);
            }
            (
                place.and_then(|place| state.script.remove(place)),
                state.options.delay,
            )
        };
        delay += scripted
            .as_ref()
            .map(|answer| answer.delay)
            .unwrap_or_default();
        std::thread::sleep(delay);
        let mut shared = lock(state);
        let answer = match scripted {
            None => shared.answer(&request),
            Some(scripted) => {
                let decrypted = scripted.after_effect && shared.answer(&request).decrypted;
                Answer {
                    status: scripted.status,
                    headers: scripted.headers,
                    body: scripted.body,
                    decrypted,
                }
            }
        };
        if request.method != "GET" {
            shared.writing -= 1;
        }
        if let Some(log) = &mut shared.log {
            writeln!(
                log,
                "{} {} {} {}",
                request.method,
                request.path,
                answer.status,
                if answer.decrypted { "decrypted" } else { "-" }
            )?;
            log.flush()?;
        }
        shared.seen.push(Seen {
            method: request.method,
            path: request.path,
            headers: request.headers,
            body: request.body,
            status: answer.status,
            decrypted: answer.decrypted,
        });
        drop(shared);
        if answer.status == 0 {
            return Ok(());
        }
        let mut text = format!("HTTP/1.1 {} Fake\r\n", answer.status);
        for (name, value) in &answer.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !answer.body.is_empty() {
            text.push_str("Content-Type: application/json; charset=utf-8\r\n");
        }
        if answer.status != 204 {
            text.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
        }
        text.push_str("X-GitHub-Request-Id: FAKE:1\r\n\r\n");
        if answer.status != 204 {
            text.push_str(&answer.body);
        }
        writer.write_all(text.as_bytes())?;
        writer.flush()?;
    }
    Ok(())
}

fn read_request(
    reader: &mut impl io::BufRead,
    state: &Mutex<State>,
) -> io::Result<Option<Request>> {
    let mut raw = Vec::new();
    let line = |reader: &mut dyn io::BufRead, raw: &mut Vec<u8>| -> io::Result<String> {
        let start = raw.len();
        reader.take(64 * 1024).read_until(b'\n', raw)?;
        Ok(String::from_utf8_lossy(&raw[start..]).trim_end().to_owned())
    };
    let first = line(reader, &mut raw)?;
    let mut words = first.split(' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let text = line(reader, &mut raw)?;
        let Some((name, value)) = text.split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = Vec::new();
    if headers
        .get("transfer-encoding")
        .is_some_and(|value| value == "chunked")
    {
        loop {
            let size = line(reader, &mut raw)?;
            let size = usize::from_str_radix(size.split(';').next().unwrap_or(""), 16)
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            let mut chunk = vec![0; size];
            reader.read_exact(&mut chunk)?;
            raw.extend_from_slice(&chunk);
            body.extend_from_slice(&chunk);
            line(reader, &mut raw)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = headers
        .get("content-length")
        .and_then(|value| value.parse::<usize>().ok())
    {
        body = vec![0; length.min(8 * 1024 * 1024)];
        reader.read_exact(&mut body)?;
        raw.extend_from_slice(&body);
    }
    lock(state).raw.extend_from_slice(&raw);
    Ok(Some(Request {
        method,
        path,
        headers,
        body,
    }))
}

/// What a path is about: the scope, and the rest of it.
struct Route {
    scope: String,
    repository: String,
    environment: Option<String>,
    rest: Vec<String>,
}

fn route(path: &str) -> Option<Route> {
    let path = path.strip_prefix("/api/v3").unwrap_or(path);
    // Split before decoding: `%2F` is part of a name.
    let parts: Vec<String> = path.split('/').skip(1).map(decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (repository, environment, rest) = match parts.as_slice() {
        ["repos", owner, name, "actions", "secrets", rest @ ..] => {
            (format!("{owner}/{name}"), None, rest)
        }
        [
            "repos",
            owner,
            name,
            "environments",
            environment,
            "secrets",
            rest @ ..,
        ] => (
            format!("{owner}/{name}"),
            Some((*environment).to_owned()),
            rest,
        ),
        _ => return None,
    };
    Some(Route {
        scope: match &environment {
            Some(environment) => format!("{repository}#{environment}"),
            None => repository.clone(),
        },
        repository,
        environment,
        rest: rest.iter().map(|part| (*part).to_owned()).collect(),
    })
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}

impl State {
    fn new(options: Options) -> Self {
        Self {
            options,
            vaults: BTreeMap::new(),
            script: VecDeque::new(),
            seen: Vec::new(),
            raw: Vec::new(),
            key_serial: 568_250_167_242_549_743,
            write_times: VecDeque::new(),
            writing: 0,
            writing_max: 0,
            log: None,
        }
    }

    fn vault(&mut self, scope: &str) -> &mut Vault {
        let vault = self.vaults.entry(scope.to_owned()).or_default();
        if vault.keys.is_empty() {
            vault.keys.push(crypto_box_keypair());
        }
        vault
    }

    fn rotate(&mut self, scope: &str) {
        self.vault(scope).keys.push(crypto_box_keypair());
    }

    fn key_id(&mut self, scope: &str) -> String {
        let serial = self.key_serial;
        let vault = self.vault(scope);
        // Different in every scope, and after every rotation.
        let place = scope.bytes().map(u64::from).sum::<u64>() * 1_000;
        (serial + place + vault.keys.len() as u64).to_string()
    }

    fn answer(&mut self, request: &Request) -> Answer {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        if !request.headers.contains_key("user-agent") {
            return Answer::message(403, "Request forbidden by administrative rules.");
        }
        let token = request.headers.get("authorization").and_then(|value| {
            value
                .strip_prefix("Bearer ")
                .or(value.strip_prefix("token "))
        });
        let accepted = match (&self.options.token, token) {
            (Some(expected), Some(token)) => token == expected,
            (None, Some(token)) => !token.is_empty(),
            (_, None) => false,
        };
        if !accepted {
            return Answer::message(401, "Bad credentials");
        }
        let Some(route) = route(path) else {
            return Answer::message(404, "Not Found");
        };
        let unknown = |known: &Option<Vec<String>>, name: &str| {
            known
                .as_ref()
                .is_some_and(|known| !known.iter().any(|known| known == name))
        };
        if unknown(&self.options.repositories, &route.repository)
            || route
                .environment
                .as_ref()
                .is_some_and(|name| unknown(&self.options.environments, name))
        {
            return Answer::message(404, "Not Found");
        }
        let (allowed, permission) = match route.environment {
            Some(_) => (self.options.may_write_environments, "environments=write"),
            None => (self.options.may_write_secrets, "secrets=write"),
        };
        let rest: Vec<&str> = route.rest.iter().map(String::as_str).collect();
        if request.method != "GET" {
            if !allowed {
                return Answer::message(403, "Resource not accessible by personal access token")
                    .header("X-Accepted-GitHub-Permissions", permission);
            }
            if let Some(limited) = self.paced() {
                return limited;
            }
        }
        match (request.method.as_str(), rest.as_slice()) {
            ("GET", ["public-key"]) => {
                let key_id = self.key_id(&route.scope);
                let key = self.vault(&route.scope).keys.last().map(|pair| pair.0);
                Answer::new(
                    200,
                    json!({"key_id": key_id, "key": STANDARD.encode(key.unwrap_or_default())})
                        .to_string(),
                )
            }
            ("GET", []) if !self.options.may_list => {
                Answer::message(403, "Resource not accessible by personal access token")
                    .header("X-Accepted-GitHub-Permissions", "secrets=read")
            }
            ("GET", []) => self.list(&route, path, query),
            ("PUT", [name]) => self.put(&route, name, &request.body),
            ("DELETE", [name]) => {
                match self
                    .vault(&route.scope)
                    .secrets
                    .remove(&name.to_uppercase())
                {
                    Some(_) => Answer::new(204, ""),
                    None => Answer::message(404, "Not Found"),
                }
            }
            _ => Answer::message(404, "Not Found"),
        }
    }

    fn paced(&mut self) -> Option<Answer> {
        let now = self.options.pace.as_ref()?();
        while self
            .write_times
            .front()
            .is_some_and(|at| now.saturating_sub(*at) >= Duration::from_secs(60))
        {
            self.write_times.pop_front();
        }
        if self.write_times.len() >= WRITES_PER_MINUTE {
            return Some(
                Answer::message(403, "You have exceeded a secondary rate limit.")
                    .header("Retry-After", "60"),
            );
        }
        self.write_times.push_back(now);
        None
    }

    fn put(&mut self, route: &Route, name: &str, body: &[u8]) -> Answer {
        let legal = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !name.is_empty()
            && !name.as_bytes()[0].is_ascii_digit()
            && !name.to_uppercase().starts_with("GITHUB_");
        if !legal {
            return Answer::message(422, "Secret name is invalid");
        }
        let Ok(Value::Object(body)) = serde_json::from_slice::<Value>(body) else {
            return Answer::message(400, "Problems parsing JSON");
        };
        let text = |key: &str| body.get(key).and_then(Value::as_str);
        let (Some(sealed), Some(key_id)) = (text("encrypted_value"), text("key_id")) else {
            return Answer::message(422, "Invalid request.\n\n\"key_id\" wasn't supplied.");
        };
        let Ok(sealed) = STANDARD.decode(sealed) else {
            return Answer::message(422, "Invalid request.\n\nencrypted_value does not match");
        };
        let improper = || {
            Answer::message(
                422,
                "Bad request - validation failed due to an improperly encrypted secret",
            )
        };
        if key_id != self.key_id(&route.scope) || sealed.len() < 48 {
            return improper();
        }
        let secrets_max = self.options.secrets_max;
        let rotate_every = self.options.rotate_every;
        let empty_created_body = self.options.empty_created_body;
        let vault = self.vault(&route.scope);
        let Some((public, private)) = vault.keys.last().copied() else {
            return improper();
        };
        let mut plain = vec![0; sealed.len() - 48];
        if crypto_box_seal_open(&mut plain, &sealed, &public, &private).is_err() {
            return improper();
        }
        if plain.len() > PLAINTEXT_BYTES_MAX {
            return Answer::message(422, "Secret is too large");
        }
        let stored = name.to_uppercase();
        if !vault.secrets.contains_key(&stored) && vault.secrets.len() >= secrets_max {
            return Answer::message(422, "Too many secrets");
        }
        vault.updated.remove(&stored);
        let created = vault.secrets.insert(stored, plain).is_none();
        vault.writes += 1;
        if rotate_every.is_some_and(|every| vault.writes.is_multiple_of(every)) {
            vault.keys.push(crypto_box_keypair());
        }
        let mut answer = match created {
            true if empty_created_body => Answer::new(201, ""),
            true => Answer::new(201, "{}"),
            false => Answer::new(204, ""),
        };
        answer.decrypted = true;
        answer
    }

    fn list(&mut self, route: &Route, path: &str, query: &str) -> Answer {
        let number = |key: &str, default: usize| {
            query
                .split('&')
                .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
                .and_then(|value| value.parse().ok())
                .unwrap_or(default)
        };
        let per_page = number("per_page", 30).clamp(1, 100);
        let page = number("page", 1).max(1);
        let vault = self.vault(&route.scope);
        let total = vault.secrets.len();
        let secrets: Vec<Value> = vault
            .secrets
            .keys()
            .skip((page - 1) * per_page)
            .take(per_page)
            .map(|name| {
                json!({
                    "name": name,
                    "created_at": "2026-01-02T03:04:05Z",
                    "updated_at": vault
                        .updated
                        .get(name)
                        .map_or("2026-01-02T03:04:05Z", String::as_str),
                })
            })
            .collect();
        let answer = Answer::new(
            200,
            json!({"total_count": total, "secrets": secrets}).to_string(),
        );
        if page * per_page >= total {
            return answer;
        }
        // Relative, as the RFC allows: the fake does not know under which name it was asked.
        answer.header(
            "Link",
            format!(
                "<{path}?per_page={per_page}&page={}>; rel=\"next\", \
                 <{path}?per_page={per_page}&page={}>; rel=\"last\"",
                page + 1,
                total.div_ceil(per_page)
            ),
        )
    }
}

/// Time since the fake's process started, for [`Options::pace`].
#[allow(
    dead_code,
    reason = "only one of the two programs that include this file uses it"
)]
pub(crate) fn real_time() -> Time {
    let started = Instant::now();
    Arc::new(move || started.elapsed())
}
