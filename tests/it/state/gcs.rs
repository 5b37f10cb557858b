//! Google Cloud Storage as far as we use it, strict about the one thing the packaged emulators
//! ignore: a write with a generation precondition is done only if it holds.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use super::http::{Message, unescape};

/// Keys in one page of a list; small, so that paging is really used.
const PAGE: usize = 100;
const XML: (&str, &str) = ("content-type", "application/xml");
const MODIFIED: &str = "2024-01-02T03:04:05.000Z";

struct Stored {
    generation: u64,
    content: Vec<u8>,
}

/// Every object by `bucket/key`, and the last generation that was given out.
#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Stored>,
    generation: u64,
}

/// The server; its threads end with the process.
pub(super) struct FakeGcs {
    pub(super) endpoint: String,
}

impl FakeGcs {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let bucket = Arc::<Mutex<Bucket>>::default();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let bucket = Arc::clone(&bucket);
                std::thread::spawn(move || serve(&stream, &bucket));
            }
        });
        Self { endpoint }
    }
}

fn serve(stream: &TcpStream, bucket: &Mutex<Bucket>) {
    let mut writer = stream.try_clone().expect("a second handle");
    let mut reader = BufReader::new(stream.try_clone().expect("a third handle"));
    while let Ok(Some(request)) = Message::read(&mut reader, true) {
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answer = bucket.answer(&request);
        drop(bucket);
        let length = answer.body.len().to_string();
        if request.method() == "HEAD" {
            answer.body.clear();
        }
        if answer.write(&mut writer, Some(&length)).is_err() {
            return;
        }
    }
}

fn problem(status: u16, code: &str) -> Message {
    Message::answer(
        status,
        &[XML],
        &format!("<?xml version='1.0'?><Error><Code>{code}</Code></Error>"),
    )
}

impl Bucket {
    fn answer(&mut self, request: &Message) -> Message {
        let (path, query) = request
            .target()
            .split_once('?')
            .unwrap_or((request.target(), ""));
        let path = unescape(path.trim_start_matches('/'));
        let query: BTreeMap<String, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (unescape(name), unescape(value)))
            .collect();
        let Some((_, key)) = path.split_once('/') else {
            return self.list(&path, &query);
        };
        if key.is_empty() {
            return problem(400, "InvalidURI");
        }
        let now = self.objects.get(&path).map(|stored| stored.generation);
        // 0 stands for "there is no such object".
        if let Some(wanted) = request.header("x-goog-if-generation-match") {
            match wanted.parse::<u64>() {
                Ok(wanted) if wanted == now.unwrap_or(0) => {}
                Ok(_) => return problem(412, "PreconditionFailed"),
                Err(_) => return problem(400, "InvalidArgument"),
            }
        }
        match request.method() {
            "PUT" => {
                self.generation += 1;
                let stored = Stored {
                    generation: self.generation,
                    content: request.body.clone(),
                };
                let answer = stored.head(200);
                self.objects.insert(path, stored);
                answer
            }
            "GET" | "HEAD" => match self.objects.get(&path) {
                None => problem(404, "NoSuchKey"),
                Some(stored) => Message {
                    body: stored.content.clone(),
                    ..stored.head(200)
                },
            },
            "DELETE" => match self.objects.remove(&path) {
                None => problem(404, "NoSuchKey"),
                Some(_) => Message::answer(204, &[], ""),
            },
            _ => problem(405, "MethodNotAllowed"),
        }
    }

    fn list(&self, bucket: &str, query: &BTreeMap<String, String>) -> Message {
        let wanted = |name: &str| query.get(name).map(String::as_str);
        if wanted("list-type") != Some("2") {
            return problem(400, "InvalidArgument");
        }
        let start = format!("{bucket}/{}", wanted("prefix").unwrap_or_default());
        let after = wanted("continuation-token").or(wanted("start-after"));
        let found = self.objects.iter().filter(|(path, _)| {
            let key = &path[bucket.len().min(path.len())..];
            path.starts_with(&start)
                && after.is_none_or(|after| key.trim_start_matches('/') > after)
        });
        let mut page: Vec<(&String, &Stored)> = found.take(PAGE + 1).collect();
        let is_more = page.len() > PAGE;
        page.truncate(PAGE);
        let mut body = format!(
            "<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>\
             <IsTruncated>{is_more}</IsTruncated><KeyCount>{}</KeyCount>",
            page.len()
        );
        let mut last = "";
        for (path, stored) in page {
            last = &path[bucket.len() + 1..];
            body.push_str(&format!(
                "<Contents><Key>{}</Key><Size>{}</Size><LastModified>{MODIFIED}</LastModified>\
                 <ETag>\"g{}\"</ETag></Contents>",
                escape(last),
                stored.content.len(),
                stored.generation
            ));
        }
        if is_more {
            let token = escape(last);
            body.push_str(&format!(
                "<NextContinuationToken>{token}</NextContinuationToken>"
            ));
        }
        body.push_str("</ListBucketResult>");
        Message::answer(200, &[XML], &body)
    }
}

impl Stored {
    fn head(&self, status: u16) -> Message {
        let generation = self.generation.to_string();
        let tag = format!("\"g{generation}\"");
        let headers = [
            ("etag", tag.as_str()),
            ("x-goog-generation", &generation),
            ("last-modified", "Tue, 02 Jan 2024 03:04:05 GMT"),
        ];
        Message::answer(status, &headers, "")
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// The fake itself must refuse what it is there to refuse, or it judges nothing.
#[test]
fn a_write_with_a_wrong_generation_is_refused() {
    let mut bucket = Bucket::default();
    let mut ask = |method: &str, generation: Option<&str>, content: &str| {
        let generation = generation.map(|value| ("x-goog-if-generation-match", value));
        let request = Message {
            first: format!("{method} /bucket/a%2Fb HTTP/1.1"),
            ..Message::answer(0, generation.as_slice(), content)
        };
        let answer = bucket.answer(&request);
        (answer.status(), String::from_utf8(answer.body).unwrap())
    };
    assert_eq!(ask("GET", None, "").0, 404);
    assert_eq!(ask("PUT", Some("1"), "early").0, 412);
    assert_eq!(ask("PUT", Some("0"), "one").0, 200);
    assert_eq!(ask("PUT", Some("0"), "two").0, 412);
    assert_eq!(ask("PUT", Some("1"), "three").0, 200);
    assert_eq!(ask("PUT", Some("1"), "late").0, 412);
    assert_eq!(ask("GET", None, ""), (200, "three".to_owned()));
    assert_eq!(ask("DELETE", Some("1"), "").0, 412);
    assert_eq!(ask("DELETE", Some("2"), "").0, 204);
}
