//! A shop of two services in one small program, for the quickstart.
//!
//! `ROLE=api` (the default) keeps orders; `ROLE=web` is the face and asks the api. Both answer
//! `GET /healthz` with their version and revision once everything they need is there.
//!
//! There is nothing to shut down: an order is one append of one line, so the process may be
//! stopped at any moment.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

mod http;

use http::{Answer, Request};

/// Connections answered at the same time.
const WORKERS: usize = 8;

/// How long a peer may keep a worker waiting.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest order, in bytes.
const ORDER_BYTES_MAX: usize = 1_000;

/// What the environment says.
struct Settings {
    role: Role,
    port: u16,
    version: String,
    revision: String,
    stage: String,
}

enum Role {
    Api(Api),
    Web(Web),
}

struct Api {
    database: PathBuf,
    uploads: PathBuf,
    /// The key itself is of no use here; that it arrived is.
    has_session_key: bool,
}

struct Web {
    /// `host:port` of the api.
    api: String,
}

impl Settings {
    fn from_environment() -> Result<Self, String> {
        let need = |name: &str| {
            env::var(name)
                .ok()
                .filter(|value| !value.is_empty())
                .ok_or_else(|| format!("the variable {name} is not set"))
        };
        let or = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
        let role = match or("ROLE", "api").as_str() {
            "api" => Role::Api(Api {
                database: need("DATABASE_PATH")?.into(),
                uploads: need("UPLOADS")?.into(),
                has_session_key: need("SESSION_KEY").is_ok(),
            }),
            "web" => {
                let url = need("API_URL")?;
                let api = url
                    .strip_prefix("http://")
                    .ok_or("API_URL does not start with http://")?;
                Role::Web(Web {
                    api: api.trim_end_matches('/').to_owned(),
                })
            }
            other => return Err(format!("ROLE is `{other}`, which is neither api nor web")),
        };
        Ok(Self {
            role,
            port: need("PORT")?
                .parse()
                .map_err(|_| "PORT is not a port number")?,
            version: or("VERSION", "unknown"),
            // What the provider calls this exact configuration; the gate waits for it.
            revision: or("TIDEGATE_REVISION", "unknown"),
            stage: or("STAGE", "none"),
        })
    }

    fn answer(&self, request: &Request) -> Answer {
        match (request.method.as_str(), request.path.as_str(), &self.role) {
            ("GET" | "HEAD", "/healthz", _) => self.health(),
            ("GET" | "HEAD", "/", Role::Api(_)) => Answer::text(
                200,
                &format!(
                    "Welcome to the shop, version {} ({}).\nGET /orders lists orders, POST /orders \
                     takes one line.\n",
                    self.version, self.stage
                ),
            ),
            ("GET" | "HEAD", "/orders", Role::Api(api)) => api.orders().unwrap_or_else(failed),
            ("POST", "/orders", Role::Api(api)) => {
                api.take_order(&request.body).unwrap_or_else(failed)
            }
            (_, _, Role::Api(_)) => Answer::text(404, "There is nothing here.\n"),
            (_, _, Role::Web(web)) => web
                .ask(&request.method, &request.path, &request.body)
                .unwrap_or_else(|_| Answer::text(502, "The api does not answer.\n")),
        }
    }

    /// Healthy when everything this role needs is there; says what is missing otherwise.
    fn health(&self) -> Answer {
        let missing = match &self.role {
            Role::Api(api) => api.missing(),
            Role::Web(web) => web.missing(),
        };
        let (status, word) = match missing {
            None => (200, "ok"),
            Some(_) => (503, "unhealthy"),
        };
        let mut json = format!(
            "{{\"status\":{},\"version\":{},\"revision\":{}",
            quote(word),
            quote(&self.version),
            quote(&self.revision)
        );
        if let Some(missing) = missing {
            json.push_str(&format!(",\"missing\":{}", quote(missing)));
        }
        json.push_str("}\n");
        Answer::json(status, &json)
    }
}

impl Api {
    fn missing(&self) -> Option<&'static str> {
        if !self.has_session_key {
            return Some("session key");
        }
        if !is_database(&self.database).unwrap_or(false) {
            return Some("database");
        }
        if !self.uploads.is_dir() {
            return Some("uploads");
        }
        None
    }

    fn ledger(&self) -> PathBuf {
        self.uploads.join("orders.txt")
    }

    fn orders(&self) -> io::Result<Answer> {
        match fs::read_to_string(self.ledger()) {
            Ok(orders) => Ok(Answer::text(200, &orders)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Answer::text(200, "")),
            Err(error) => Err(error),
        }
    }

    fn take_order(&self, body: &[u8]) -> io::Result<Answer> {
        let order = match std::str::from_utf8(body).map(str::trim) {
            Ok(order)
                if !order.is_empty()
                    && order.len() <= ORDER_BYTES_MAX
                    && !order.contains(char::is_control) =>
            {
                order
            }
            _ => return Ok(Answer::text(400, "An order is one line of text.\n")),
        };
        // One write, so that orders taken at the same time do not mix.
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.ledger())?
            .write_all(format!("{order}\n").as_bytes())?;
        Ok(Answer::text(201, "Thank you.\n"))
    }
}

impl Web {
    fn missing(&self) -> Option<&'static str> {
        match self.ask("GET", "/healthz", &[]) {
            Ok(answer) if answer.status == 200 => None,
            _ => Some("api"),
        }
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        let mut stream = TcpStream::connect(&self.api)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        http::ask(&mut stream, &self.api, method, path, body)
    }
}

/// True when a SQLite database can be read there; a fresh one may still be empty.
fn is_database(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(16).read_to_end(&mut start)?;
    Ok(start.is_empty() || start == b"SQLite format 3\0")
}

fn failed(error: io::Error) -> Answer {
    eprintln!("shop: {error}");
    Answer::text(500, "That did not work; the log says why.\n")
}

/// A JSON string.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            letter if letter.is_control() => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

fn serve(settings: &Settings, mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let (answer, is_head) = match http::read_request(&mut stream)? {
        Ok(request) => (settings.answer(&request), request.method == "HEAD"),
        Err(refusal) => (refusal, false),
    };
    stream.write_all(&answer.bytes(is_head))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("shop: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let settings = Settings::from_environment()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, settings.port))
        .map_err(|error| format!("cannot listen on port {}: {error}", settings.port))?;
    println!(
        "shop: version {}, revision {}, listening on 127.0.0.1:{}",
        settings.version, settings.revision, settings.port
    );
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| work(&settings, &listener));
        }
    });
    Ok(())
}

fn work(settings: &Settings, listener: &TcpListener) -> ! {
    loop {
        // A connection that fails concerns its client alone.
        match listener.accept() {
            Ok((stream, _)) => drop(serve(settings, stream)),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn api(name: &str) -> (PathBuf, Settings) {
        let folder = env::temp_dir().join(format!("shop-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("db"), b"SQLite format 3\0more").unwrap();
        let settings = Settings {
            role: Role::Api(Api {
                database: folder.join("db"),
                uploads: folder.clone(),
                has_session_key: true,
            }),
            port: 0,
            version: "1.\"0".to_owned(),
            revision: "4f2a".to_owned(),
            stage: "test".to_owned(),
        };
        (folder, settings)
    }

    fn ask(settings: &Settings, method: &str, path: &str, body: &str) -> (u16, String) {
        let answer = settings.answer(&Request {
            method: method.to_owned(),
            path: path.to_owned(),
            body: body.as_bytes().to_vec(),
        });
        (answer.status, String::from_utf8(answer.body).unwrap())
    }

    #[test]
    fn health_follows_what_is_there() {
        let (folder, mut settings) = api("health");
        assert_eq!(
            ask(&settings, "GET", "/healthz", ""),
            (
                200,
                "{\"status\":\"ok\",\"version\":\"1.\\\"0\",\"revision\":\"4f2a\"}\n".to_owned()
            )
        );
        fs::write(folder.join("db"), b"not a database").unwrap();
        let (status, body) = ask(&settings, "GET", "/healthz", "");
        assert_eq!(status, 503);
        assert!(body.contains("\"missing\":\"database\""));
        fs::remove_file(folder.join("db")).unwrap();
        assert_eq!(ask(&settings, "GET", "/healthz", "").0, 503);
        if let Role::Api(api) = &mut settings.role {
            api.has_session_key = false;
        }
        assert!(
            ask(&settings, "GET", "/healthz", "")
                .1
                .contains("session key")
        );
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn orders_are_kept_line_by_line() {
        let (folder, settings) = api("orders");
        assert_eq!(ask(&settings, "GET", "/orders", ""), (200, String::new()));
        assert_eq!(ask(&settings, "POST", "/orders", "two apples\n").0, 201);
        assert_eq!(ask(&settings, "POST", "/orders", "one\ntwo").0, 400);
        assert_eq!(ask(&settings, "POST", "/orders", "").0, 400);
        assert_eq!(
            ask(&settings, "GET", "/orders", ""),
            (200, "two apples\n".to_owned())
        );
        assert_eq!(ask(&settings, "DELETE", "/orders", "").0, 404);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_web_role_is_as_healthy_as_its_api() {
        let (folder, settings) = api("web");
        let settings = Arc::new(settings);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = Arc::clone(&settings);
        thread::spawn(move || {
            for stream in listener.incoming().take(3) {
                serve(&server, stream.unwrap()).unwrap();
            }
        });
        let web = Settings {
            role: Role::Web(Web { api: address }),
            port: 0,
            version: "1".to_owned(),
            revision: "77aa".to_owned(),
            stage: "test".to_owned(),
        };
        let (status, body) = ask(&web, "GET", "/healthz", "");
        assert_eq!(status, 200);
        assert!(body.contains("77aa"));
        assert!(ask(&web, "GET", "/", "").1.starts_with("Welcome"));
        fs::remove_file(folder.join("db")).unwrap();
        let (status, body) = ask(&web, "GET", "/healthz", "");
        assert_eq!(status, 503);
        assert!(body.contains("\"missing\":\"api\""));
        // The api is gone: three connections were all it took.
        assert_eq!(ask(&web, "GET", "/", "").0, 502);
        fs::remove_dir_all(folder).unwrap();
    }
}
