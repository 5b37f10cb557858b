//! Servers that play a script over raw TCP, with or without TLS.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use Act::{Close, Drip, Pause, Reset, Sever};

/// One thing a server does on a connection after the request was read.
#[derive(Clone)]
pub(super) enum Act {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends this text byte by byte, with a pause after each.
    Drip(Vec<u8>, Duration),
    /// Waits (until the server is dropped, at most).
    Pause(Duration),
    /// Closes in order (FIN; with TLS, close_notify first).
    Close,
    /// Closes the TCP connection without TLS's goodbye.
    Sever,
    /// Tears the connection (RST).
    Reset,
}

pub(super) fn send(text: &str) -> Act {
    Act::Send(text.as_bytes().to_vec())
}

pub(super) const HANG: Act = Pause(Duration::from_secs(3_600));

/// A scripted server: connection `n` plays script `n`, the last script for all that follow.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
    is_over: Arc<AtomicBool>,
}

/// How a server treats TLS.
pub(super) type Tls = Option<Arc<rustls::ServerConfig>>;

impl Server {
    pub(super) fn start(scripts: Vec<Vec<Act>>) -> Self {
        Self::start_with(scripts, None)
    }

    pub(super) fn start_with(scripts: Vec<Vec<Act>>, tls: Tls) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let server = Self {
            address,
            connections: Arc::clone(&connections),
            requests: Arc::clone(&requests),
            is_over: Arc::clone(&is_over),
        };
        thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let number = connections.fetch_add(1, Ordering::SeqCst);
                let script = scripts[number.min(scripts.len() - 1)].clone();
                let (tls, requests, is_over) =
                    (tls.clone(), Arc::clone(&requests), Arc::clone(&is_over));
                thread::spawn(move || serve(stream, &script, tls, &requests, &is_over));
            }
        });
        server
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/healthz", self.address)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the accept loop.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(
    stream: TcpStream,
    script: &[Act],
    tls: Tls,
    requests: &Mutex<Vec<String>>,
    is_over: &AtomicBool,
) {
    drop(stream.set_nodelay(true));
    drop(stream.set_read_timeout(Some(Duration::from_secs(5))));
    match tls {
        None => play(&mut &stream, &stream, script, requests, is_over),
        Some(config) => {
            let Ok(connection) = rustls::ServerConnection::new(config) else {
                return;
            };
            let mut secured = rustls::StreamOwned::new(connection, stream.try_clone().unwrap());
            let is_severed = script.iter().any(|act| matches!(act, Sever | Reset));
            play(&mut secured, &stream, script, requests, is_over);
            if !is_severed {
                secured.conn.send_close_notify();
                drop(secured.flush());
                drop(stream.shutdown(Shutdown::Both));
            }
        }
    }
}

fn play<S: Read + Write>(
    stream: &mut S,
    socket: &TcpStream,
    script: &[Act],
    requests: &Mutex<Vec<String>>,
    is_over: &AtomicBool,
) {
    let mut request = Vec::new();
    let mut buffer = [0_u8; 4096];
    while !is_complete(&request) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => request.extend_from_slice(&buffer[..count]),
        }
    }
    requests
        .lock()
        .unwrap()
        .push(String::from_utf8_lossy(&request).into_owned());
    let pause = |duration: Duration| {
        let until = Instant::now() + duration;
        while Instant::now() < until && !is_over.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5).min(duration));
        }
    };
    for act in script {
        let result = match act {
            Act::Send(bytes) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Drip(bytes, gap) => bytes.iter().try_for_each(|byte| {
                pause(*gap);
                stream.write_all(&[*byte]).and_then(|()| stream.flush())
            }),
            Pause(duration) => {
                pause(*duration);
                Ok(())
            }
            Close | Sever => return,
            Reset => {
                // Zero linger turns the close into a reset.
                rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO)).unwrap();
                return;
            }
        };
        if result.is_err() {
            return;
        }
    }
}

/// True when the head and the announced body of a request are there.
fn is_complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length: usize = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0);
    body.len() >= length
}

pub(super) fn answer(status: &str, headers: &str, body: &str) -> Vec<Act> {
    vec![
        send(&format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        )),
        Close,
    ]
}

pub(super) fn ok(body: &str) -> Vec<Act> {
    answer("200 OK", "", body)
}

pub(super) fn raw(text: &str) -> Vec<Act> {
    vec![send(text), Close]
}

/// The head of an answer that announces this many bytes.
pub(super) fn head_of(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")
}

/// One chunk of a chunked body.
pub(super) fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// The head of a chunked answer.
pub(super) const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
