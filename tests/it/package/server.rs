//! A release server on loopback: GitHub's release API, the files behind it, ranges, redirects, and
//! the ways in which a download goes wrong.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::json;
use sha2::{Digest as _, Sha256};

/// One request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
}

#[derive(Default)]
struct World {
    files: BTreeMap<String, Vec<u8>>,
    redirects: BTreeMap<String, String>,
    /// Paths that need this `Authorization`, by their beginning.
    guarded: Option<(String, String)>,
    /// For paths with this end: body bytes to send before the connection is closed; one entry for
    /// each answer, the last for all that follow.
    cuts: BTreeMap<String, Vec<Option<usize>>>,
    seen: Vec<Seen>,
}

/// The server.
pub(super) struct Server {
    port: u16,
    world: Arc<Mutex<World>>,
    is_over: Arc<AtomicBool>,
}

impl Server {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let world: Arc<Mutex<World>> = Arc::default();
        let is_over = Arc::new(AtomicBool::new(false));
        let (shared, over) = (Arc::clone(&world), Arc::clone(&is_over));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&shared);
                thread::spawn(move || answer(stream, &shared));
            }
        });
        Self {
            port,
            world,
            is_over,
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) fn put(&self, path: &str, bytes: Vec<u8>) {
        self.world
            .lock()
            .unwrap()
            .files
            .insert(path.to_owned(), bytes);
    }

    pub(super) fn file(&self, path: &str) -> Vec<u8> {
        self.world.lock().unwrap().files[path].clone()
    }

    pub(super) fn redirect(&self, path: &str, to: String) {
        let mut world = self.world.lock().unwrap();
        world.redirects.insert(path.to_owned(), to);
    }

    pub(super) fn guard(&self, prefix: &str, authorization: &str) {
        self.world.lock().unwrap().guarded = Some((prefix.to_owned(), authorization.to_owned()));
    }

    pub(super) fn cut(&self, path: &str, cuts: Vec<Option<usize>>) {
        self.world
            .lock()
            .unwrap()
            .cuts
            .insert(path.to_owned(), cuts);
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.world.lock().unwrap().seen.clone()
    }

    /// Requests for paths that end like this.
    pub(super) fn seen_for(&self, end: &str) -> Vec<Seen> {
        self.seen()
            .into_iter()
            .filter(|seen| seen.path.ends_with(end))
            .collect()
    }

    pub(super) fn forget(&self) {
        self.world.lock().unwrap().seen.clear();
    }

    /// Publishes a release: archives by file name, and `checksums.txt` over them.
    pub(super) fn release(&self, repository: &str, tag: &str, archives: &[(String, Vec<u8>)]) {
        let sums: String = archives
            .iter()
            .map(|(file, bytes)| format!("{}  {file}\n", digest(bytes)))
            .collect();
        let mut files = archives.to_vec();
        files.push(("checksums.txt".to_owned(), sums.into_bytes()));
        let assets: Vec<serde_json::Value> = files
            .iter()
            .enumerate()
            .map(|(number, (file, bytes))| {
                let id = 1000 + number;
                let path = format!("/download/{repository}/{tag}/{file}");
                self.put(&path, bytes.clone());
                self.put(
                    &format!("/repos/{repository}/releases/assets/{id}"),
                    bytes.clone(),
                );
                json!({
                    "id": id,
                    "name": file,
                    "size": bytes.len(),
                    "digest": format!("sha256:{}", digest(bytes)),
                    "browser_download_url": format!("{}{path}", self.url()),
                })
            })
            .collect();
        let release = json!({ "tag_name": tag, "assets": assets });
        for end in [&format!("tags/{tag}"), "latest"] {
            self.put(
                &format!("/repos/{repository}/releases/{end}"),
                release.to_string().into_bytes(),
            );
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

pub(super) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn answer(mut stream: TcpStream, world: &Mutex<World>) {
    drop(stream.set_read_timeout(Some(Duration::from_secs(10))));
    let mut head = Vec::new();
    let mut byte = [0_u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let path = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .unwrap_or_default()
        .to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let (reply, body) = {
        let mut world = world.lock().unwrap();
        world.seen.push(Seen {
            path: path.clone(),
            headers: headers.clone(),
        });
        let refused = world.guarded.as_ref().is_some_and(|(prefix, expected)| {
            path.starts_with(prefix.as_str()) && headers.get("authorization") != Some(expected)
        });
        let wants_asset = headers
            .get("accept")
            .is_some_and(|accept| accept == "application/octet-stream");
        if refused || (path.contains("/releases/assets/") && !wants_asset) {
            plain("404 Not Found")
        } else if let Some(to) = world.redirects.get(&path) {
            (
                format!(
                    "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                ),
                Vec::new(),
            )
        } else if let Some(bytes) = world.files.get(&path) {
            let mut reply = whole_or_part(bytes, &headers);
            let length = reply.1.len();
            let cuts = world
                .cuts
                .iter_mut()
                .find(|(end, _)| path.ends_with(end.as_str()))
                .map(|(_, cuts)| cuts);
            if let Some(cuts) = cuts {
                let cut = if cuts.len() > 1 {
                    cuts.remove(0)
                } else {
                    cuts[0]
                };
                reply.1.truncate(cut.unwrap_or(length));
            }
            reply
        } else {
            plain("404 Not Found")
        }
    };
    drop(stream.write_all(reply.as_bytes()));
    drop(stream.write_all(&body));
}

fn plain(status: &str) -> (String, Vec<u8>) {
    (
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        Vec::new(),
    )
}

fn whole_or_part(bytes: &[u8], headers: &BTreeMap<String, String>) -> (String, Vec<u8>) {
    let etag = format!("\"{}\"", &digest(bytes)[..16]);
    let start = headers
        .get("range")
        .and_then(|range| range.strip_prefix("bytes="))
        .and_then(|range| range.strip_suffix('-'))
        .and_then(|start| start.parse::<usize>().ok())
        .filter(|_| headers.get("if-range") == Some(&etag));
    match start {
        Some(start) if start < bytes.len() => (
            format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\nETag: {etag}\r\nConnection: close\r\n\r\n",
                bytes.len() - start,
                bytes.len() - 1,
                bytes.len()
            ),
            bytes[start..].to_vec(),
        ),
        _ => (
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nETag: {etag}\r\nConnection: close\r\n\r\n",
                bytes.len()
            ),
            bytes.to_vec(),
        ),
    }
}
