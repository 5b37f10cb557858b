//! What can happen between us and a server: a proxy on loopback that cuts, delays, repeats and loses
//! whole HTTP messages, and one for bytes that looks for a word.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::http::Message;

/// What becomes of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It goes through.
    Nothing,
    /// It goes through, later.
    Late(Duration),
    /// The connection breaks before the server hears of it.
    CutBefore,
    /// The server does it, and the answer is lost with the connection.
    LoseAnswer,
    /// The server does it, and says that it could not.
    AnswerAfter(u16, &'static str),
    /// The server never hears of it; this is the answer.
    Answer(u16, &'static str),
    /// The server hears of it twice; the second answer counts.
    Twice,
}

type Judge = dyn Fn(&Message) -> Fault + Send + Sync;

/// A proxy in front of an HTTP server.
pub(super) struct Proxy {
    pub(super) endpoint: String,
    /// Faults that were done.
    pub(super) done: Arc<AtomicUsize>,
    /// Most requests that were under way at once.
    pub(super) peak: Arc<AtomicUsize>,
    judge: Arc<Mutex<Arc<Judge>>>,
}

impl Proxy {
    /// In front of `http://host:port…`. Nothing goes wrong until [`Proxy::judge`] is called.
    pub(super) fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let rest = upstream.strip_prefix("http://").expect("plain HTTP");
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let proxy = Self {
            endpoint: format!("http://{address}/{path}")
                .trim_end_matches('/')
                .to_owned(),
            done: Arc::default(),
            peak: Arc::default(),
            judge: Arc::new(Mutex::new(Arc::new(|_: &Message| Fault::Nothing))),
        };
        let (host, judge) = (host.to_owned(), Arc::clone(&proxy.judge));
        let (done, peak) = (Arc::clone(&proxy.done), Arc::clone(&proxy.peak));
        let now = Arc::new(AtomicUsize::new(0));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (host, judge) = (host.clone(), Arc::clone(&judge));
                let (done, peak) = (Arc::clone(&done), Arc::clone(&peak));
                let now = Arc::clone(&now);
                std::thread::spawn(move || {
                    let relay = Relay {
                        host,
                        judge,
                        done,
                        peak,
                        now,
                    };
                    // Either side may hang up whenever it likes.
                    drop(relay.run(&stream));
                    drop(stream.shutdown(Shutdown::Both));
                });
            }
        });
        proxy
    }

    /// Decides about every request from now on.
    pub(super) fn judge(&self, judge: impl Fn(&Message) -> Fault + Send + Sync + 'static) {
        *self.judge.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(judge);
    }
}

struct Relay {
    host: String,
    judge: Arc<Mutex<Arc<Judge>>>,
    done: Arc<AtomicUsize>,
    peak: Arc<AtomicUsize>,
    now: Arc<AtomicUsize>,
}

impl Relay {
    fn run(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream.try_clone()?;
        while let Some(request) = Message::read(&mut reader, true)? {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.peak.fetch_max(now, Ordering::SeqCst);
            let answered = self.answer(&request);
            self.now.fetch_sub(1, Ordering::SeqCst);
            let Some(answer) = answered? else {
                return Ok(());
            };
            let length = answer.header("content-length").map(str::to_owned);
            let length = length.filter(|_| request.method() == "HEAD");
            answer.write(&mut writer, length.as_deref())?;
        }
        Ok(())
    }

    fn answer(&self, request: &Message) -> std::io::Result<Option<Message>> {
        let judge = Arc::clone(&*self.judge.lock().unwrap_or_else(PoisonError::into_inner));
        let fault = judge(request);
        if fault != Fault::Nothing {
            self.done.fetch_add(1, Ordering::SeqCst);
        }
        Ok(match fault {
            Fault::Nothing => Some(self.forward(request)?),
            Fault::Late(time) => {
                std::thread::sleep(time);
                Some(self.forward(request)?)
            }
            Fault::CutBefore => None,
            Fault::LoseAnswer => {
                self.forward(request)?;
                None
            }
            Fault::AnswerAfter(status, body) => {
                self.forward(request)?;
                Some(Message::answer(status, &[], body))
            }
            Fault::Answer(status, body) => Some(Message::answer(status, &[], body)),
            Fault::Twice => {
                self.forward(request)?;
                Some(self.forward(request)?)
            }
        })
    }

    fn forward(&self, request: &Message) -> std::io::Result<Message> {
        let mut upstream = TcpStream::connect(&self.host)?;
        request.write(&mut upstream, None)?;
        let mut reader = BufReader::new(upstream);
        Message::read(&mut reader, request.method() != "HEAD")?
            .ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }
}

/// A proxy for bytes. When a client first sends `word`, `trap` is sprung, before the server sees it.
pub(super) struct Tripwire {
    pub(super) port: u16,
}

impl Tripwire {
    pub(super) fn start(
        upstream: u16,
        word: &'static str,
        trap: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let trap = Arc::new(trap);
        let is_sprung = Arc::new(AtomicBool::new(false));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)) else {
                    continue;
                };
                let mut back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || {
                    drop(std::io::copy(&mut back.0, &mut back.1));
                    drop(back.1.shutdown(Shutdown::Both));
                });
                let (trap, is_sprung) = (Arc::clone(&trap), Arc::clone(&is_sprung));
                std::thread::spawn(move || {
                    let (mut client, mut server) = (client, server);
                    let mut buffer = vec![0; 256 * 1024];
                    while let Ok(count @ 1..) = client.read(&mut buffer) {
                        let is_it = buffer[..count]
                            .windows(word.len())
                            .any(|window| window == word.as_bytes());
                        if is_it && !is_sprung.swap(true, Ordering::SeqCst) {
                            trap();
                        }
                        if server.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    drop(server.shutdown(Shutdown::Both));
                    drop(client.shutdown(Shutdown::Both));
                });
            }
        });
        Self { port }
    }
}
