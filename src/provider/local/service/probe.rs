//! One look at a running service, for the driver's health.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::provider::Health;

/// One look at a service on this machine: it accepts a connection and, when it has a health path,
/// answers it with a status below 400.
pub(super) async fn probe(port: u16, path: Option<&str>) -> Health {
    let unhealthy = |message: String| Health {
        healthy: false,
        message,
    };
    let mut stream = match tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(stream) => stream,
        Err(error) => return unhealthy(format!("127.0.0.1:{port}: {error}")),
    };
    let Some(path) = path else {
        return Health {
            healthy: true,
            message: format!("accepts connections at 127.0.0.1:{port}"),
        };
    };
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let asked = async {
        stream.write_all(request.as_bytes()).await?;
        stream.take(4096).read_to_end(&mut answer).await
    };
    // A reset after the status line is as good as an end.
    drop(asked.await);
    let status = answer
        .split(|byte| *byte == b' ')
        .nth(1)
        .and_then(|code| std::str::from_utf8(code).ok()?.parse::<u16>().ok())
        .filter(|_| answer.starts_with(b"HTTP/1."));
    match status {
        Some(code) => Health {
            healthy: (200..400).contains(&code),
            message: format!("{path} answers {code}"),
        },
        None => unhealthy(format!("{path} answers nothing that is HTTP")),
    }
}
