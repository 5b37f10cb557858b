//! As much HTTP/1.1 as the shop needs: one request and one answer to a connection.

use std::io::{self, Read, Write};

/// The longest head of a request or answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The longest body taken in, in bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;

pub struct Request {
    pub method: String,
    pub path: String,
    pub body: Vec<u8>,
}

pub struct Answer {
    pub status: u16,
    kind: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(status: u16, body: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    pub fn json(status: u16, body: &str) -> Self {
        Self::new(status, "application/json", body)
    }

    fn new(status: u16, kind: &str, body: &str) -> Self {
        Self {
            status,
            kind: kind.to_owned(),
            body: body.as_bytes().to_vec(),
        }
    }

    /// The answer on the wire; the body is left out of the answer to HEAD.
    pub fn bytes(&self, is_head: bool) -> Vec<u8> {
        let reason = match self.status {
            200 => "OK",
            201 => "Created",
            400 => "Bad Request",
            404 => "Not Found",
            413 => "Content Too Large",
            500 => "Internal Server Error",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            _ => "",
        };
        let mut bytes = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: \
             no-store\r\nConnection: close\r\n\r\n",
            self.status,
            self.kind,
            self.body.len()
        )
        .into_bytes();
        if !is_head {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

/// Reads one request; the inner error is the answer to a request we do not understand.
pub fn read_request(stream: &mut impl Read) -> io::Result<Result<Request, Answer>> {
    let Some((head, mut body)) = read_head(stream)? else {
        return Ok(Err(Answer::text(400, "That is not HTTP.\n")));
    };
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0")) =
        (words.next(), words.next(), words.next())
    else {
        return Ok(Err(Answer::text(400, "That is not HTTP.\n")));
    };
    let path = target.split('?').next().unwrap_or_default();
    let Ok(length) = header(&head, "content-length")
        .unwrap_or("0")
        .parse::<usize>()
    else {
        return Ok(Err(Answer::text(400, "That is not a length.\n")));
    };
    if length > BODY_BYTES_MAX || header(&head, "transfer-encoding").is_some() {
        return Ok(Err(Answer::text(413, "That is too much.\n")));
    }
    let missing = length.saturating_sub(body.len());
    stream.take(missing as u64).read_to_end(&mut body)?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    body.truncate(length);
    Ok(Ok(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        body,
    }))
}

/// Sends one request and reads its answer.
pub fn ask(
    stream: &mut (impl Read + Write),
    host: &str,
    method: &str,
    path: &str,
    body: &[u8],
) -> io::Result<Answer> {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    stream.write_all(&request)?;
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    let (head, mut answer) = read_head(stream)?.ok_or_else(broken)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(broken)?;
    let length: usize = match method {
        "HEAD" => 0,
        _ => header(&head, "content-length")
            .and_then(|length| length.parse().ok())
            .filter(|length| *length <= BODY_BYTES_MAX)
            .ok_or_else(broken)?,
    };
    let missing = length.saturating_sub(answer.len());
    stream.take(missing as u64).read_to_end(&mut answer)?;
    if answer.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    answer.truncate(length);
    Ok(Answer {
        status,
        kind: header(&head, "content-type")
            .unwrap_or("text/plain")
            .to_owned(),
        body: answer,
    })
}

/// Everything up to the empty line, and what was read beyond it. `None` when it is too long, ends
/// too early or is not text.
fn read_head(stream: &mut impl Read) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut buffer = [0_u8; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            bytes.truncate(end);
            return Ok(String::from_utf8(bytes).ok().map(|head| (head, rest)));
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Ok(None);
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(None),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(String, String, String), u16> {
        match read_request(&mut text.as_bytes()).unwrap() {
            Ok(request) => Ok((
                request.method,
                request.path,
                String::from_utf8(request.body).unwrap(),
            )),
            Err(answer) => Err(answer.status),
        }
    }

    #[test]
    fn requests_are_read_or_refused() {
        let ok = |method: &str, path: &str, body: &str| {
            Ok((method.to_owned(), path.to_owned(), body.to_owned()))
        };
        for (text, expected) in [
            ("GET / HTTP/1.1\r\n\r\n", ok("GET", "/", "")),
            ("GET /a?b=c HTTP/1.0\r\nA: b\r\n\r\n", ok("GET", "/a", "")),
            (
                "POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi!",
                ok("POST", "/", "hi"),
            ),
            ("", Err(400)),
            ("GET /\r\n\r\n", Err(400)),
            ("GET / HTTP/2\r\n\r\n", Err(400)),
            ("GET / HTTP/1.1\r\n", Err(400)),
            ("GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", Err(400)),
            (
                "GET / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n",
                Err(413),
            ),
            (
                "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Err(413),
            ),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
        let torn = read_request(&mut "GET / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhi".as_bytes());
        assert!(torn.is_err());
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let answer = Answer::text(200, "hello");
        assert!(answer.bytes(false).ends_with(b"\r\n\r\nhello"));
        assert!(answer.bytes(true).ends_with(b"\r\n\r\n"));
    }
}
