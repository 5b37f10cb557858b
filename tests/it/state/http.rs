//! HTTP/1.1 as far as fakes and a proxy on loopback need it: whole messages, read and written.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;

/// Longest line, and most lines, of a head.
const HEAD_LIMIT: usize = 64 * 1024;

/// A request or an answer, whole.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// `GET /path HTTP/1.1` or `HTTP/1.1 200 OK`.
    pub(super) first: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// An answer with a body.
    pub(super) fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        Self {
            first: format!("HTTP/1.1 {status} Answer"),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            body: body.as_bytes().to_vec(),
        }
    }

    pub(super) fn header(&self, wanted: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.as_str())
    }

    /// Of a request.
    pub(super) fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    /// Of a request: path and query.
    pub(super) fn target(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }

    /// Of an answer.
    pub(super) fn status(&self) -> u16 {
        let word = self.first.split(' ').nth(1).unwrap_or_default();
        word.parse().unwrap_or_default()
    }

    /// The next message; `None` when the other side has closed. `has_body` is false for an answer
    /// to `HEAD`.
    pub(super) fn read(
        reader: &mut BufReader<TcpStream>,
        has_body: bool,
    ) -> io::Result<Option<Self>> {
        let mut message = Self {
            first: String::new(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        let mut total = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            total += line.len();
            assert!(total < HEAD_LIMIT, "a head without end");
            let line = line.trim_end();
            if message.first.is_empty() {
                line.clone_into(&mut message.first);
            } else if line.is_empty() {
                break;
            } else if let Some((name, value)) = line.split_once(':') {
                let header = (name.to_owned(), value.trim().to_owned());
                message.headers.push(header);
            }
        }
        let is_answer = message.first.starts_with("HTTP/");
        let is_bare = !has_body || matches!(message.status(), 204 | 304);
        if is_answer && is_bare {
            return Ok(Some(message));
        }
        let is_chunked = message
            .header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        if is_chunked {
            message.read_chunks(reader)?;
        } else if let Some(length) = message.header("content-length") {
            message.body = vec![0; length.parse().expect("a length")];
            reader.read_exact(&mut message.body)?;
        } else if is_answer {
            reader.read_to_end(&mut message.body)?;
        }
        Ok(Some(message))
    }

    fn read_chunks(&mut self, reader: &mut BufReader<TcpStream>) -> io::Result<()> {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = line.trim().split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
            let start = self.body.len();
            // A chunk, the last one too, ends with an empty line.
            self.body.resize(start + size + 2, 0);
            reader.read_exact(&mut self.body[start..])?;
            self.body.truncate(start + size);
            if size == 0 {
                return Ok(());
            }
        }
    }

    /// Sends it, with the length of its body and nothing chunked. `length` overrides what an answer
    /// to `HEAD` says.
    pub(super) fn write(&self, stream: &mut TcpStream, length: Option<&str>) -> io::Result<()> {
        let mut bytes = format!("{}\r\n", self.first).into_bytes();
        for (name, value) in &self.headers {
            let is_framing = ["content-length", "transfer-encoding", "connection"]
                .iter()
                .any(|framing| name.eq_ignore_ascii_case(framing));
            if !is_framing {
                bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
        }
        let own = self.body.len().to_string();
        let length = length.unwrap_or(&own);
        bytes.extend_from_slice(format!("content-length: {length}\r\n\r\n").as_bytes());
        bytes.extend_from_slice(&self.body);
        stream.write_all(&bytes)
    }
}

/// `%41` and `+` as the characters they stand for.
pub(super) fn unescape(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_encoding::percent_decode_str(&text)
        .decode_utf8()
        .expect("UTF-8")
        .into_owned()
}
