//! What a plugin prints: read for ever so that it never blocks, shown with limits through the one
//! writer, and its last lines kept for the report of a failure.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::report::{Event, Reporter};

/// A longer line is not shown at all: a piece of one could hold a piece of a secret, which no
/// filter would know.
const LINE_BYTES_MAX: usize = 4 * 1024;
/// How much one plugin may say in one run.
const SHOWN_BYTES_MAX: usize = 256 * 1024;
/// How many lines a failure report repeats.
const TAIL_LINES: usize = 5;
const CHUNK_BYTES: usize = 16 * 1024;

/// Takes a plugin's lines.
pub(super) struct Relay {
    source: String,
    reporter: Arc<dyn Reporter>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    shown: usize,
    is_full: bool,
    tail: VecDeque<String>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relay({})", self.source)
    }
}

impl Relay {
    pub(super) fn new(plugin: &str, reporter: Arc<dyn Reporter>) -> Arc<Self> {
        Arc::new(Self {
            source: format!("plugin {plugin}"),
            reporter,
            state: Mutex::default(),
        })
    }

    /// One whole line, without its end; `None` stands for one that was too long.
    fn line(&self, line: Option<&[u8]>) {
        let text = match line {
            Some(bytes) => match understood(&String::from_utf8_lossy(bytes)) {
                Some(text) => text,
                None => return,
            },
            None => format!("(a line of more than {LINE_BYTES_MAX} bytes is left out)"),
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.tail.len() == TAIL_LINES {
            state.tail.pop_front();
        }
        state.tail.push_back(text.clone());
        let text = if state.shown + text.len() <= SHOWN_BYTES_MAX {
            state.shown += text.len();
            text
        } else if state.is_full {
            return;
        } else {
            state.is_full = true;
            format!("(it said more than {SHOWN_BYTES_MAX} bytes; the rest is left out)")
        };
        drop(state);
        self.reporter.say(Event::Relayed {
            source: self.source.clone(),
            text,
        });
    }

    /// The last lines it said.
    pub(super) fn tail(&self) -> Vec<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tail.iter().cloned().collect()
    }
}

/// What a person should see of a log line; `None` for what is only said to a debugger.
///
/// Go plugins log JSON objects; `@level` and `@message` count only when they are text.
fn understood(line: &str) -> Option<String> {
    let line = line.trim_end();
    if line.is_empty() || line.starts_with("[TRACE]") || line.starts_with("[DEBUG]") {
        return None;
    }
    let text = |value: Option<serde_json::Value>| match value {
        Some(serde_json::Value::String(text)) => Some(text),
        _ => None,
    };
    let Ok(mut fields) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(line)
    else {
        return Some(line.to_owned());
    };
    let Some(level) = text(fields.remove("@level")) else {
        return Some(line.to_owned());
    };
    if level == "trace" || level == "debug" {
        return None;
    }
    let mut said = format!(
        "[{}] {}",
        level.to_uppercase(),
        text(fields.remove("@message")).unwrap_or_default()
    );
    fields.remove("@timestamp");
    for (name, value) in fields {
        let value = match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        said.push_str(&format!(" {}={value}", name.trim_start_matches('@')));
    }
    Some(said)
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pending: Vec<u8>,
    is_too_long: bool,
}

impl Lines {
    pub(super) fn push(&mut self, bytes: &[u8], relay: &Relay) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (piece, ends) = match piece.strip_suffix(b"\n") {
                Some(piece) => (piece, true),
                None => (piece, false),
            };
            if self.pending.len() + piece.len() > LINE_BYTES_MAX {
                self.is_too_long = true;
                self.pending.clear();
            } else if !self.is_too_long {
                self.pending.extend_from_slice(piece);
            }
            if ends {
                self.finish(relay);
            }
        }
    }

    /// The end of a line, or of the stream.
    pub(super) fn finish(&mut self, relay: &Relay) {
        if self.is_too_long {
            relay.line(None);
        } else if !self.pending.is_empty() {
            relay.line(Some(&self.pending));
        }
        self.pending.clear();
        self.is_too_long = false;
    }
}

/// Reads a pipe to its end, which may never come.
pub(super) async fn drain(mut pipe: impl AsyncRead + Unpin, begun: Vec<u8>, relay: Arc<Relay>) {
    let mut lines = Lines::default();
    lines.push(&begun, &relay);
    let mut chunk = vec![0_u8; CHUNK_BYTES];
    loop {
        match pipe.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(read) => lines.push(&chunk[..read], &relay),
        }
        // A flood must not keep everybody else from running.
        tokio::task::yield_now().await;
    }
    lines.finish(&relay);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Said(Mutex<Vec<String>>);

    impl Reporter for Said {
        fn say(&self, event: Event) {
            if let Event::Relayed { text, .. } = event {
                self.0.lock().unwrap().push(text);
            }
        }
    }

    fn said(chunks: &[&[u8]]) -> Vec<String> {
        let all = Arc::new(Said::default());
        let relay = Relay::new("x", Arc::clone(&all) as Arc<dyn Reporter>);
        let mut lines = Lines::default();
        for chunk in chunks {
            lines.push(chunk, &relay);
        }
        lines.finish(&relay);
        all.0.lock().unwrap().clone()
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        assert_eq!(
            said(&[b"one\ntw", b"o\r\n\nth", b"ree"]),
            ["one", "two", "three"]
        );
        assert_eq!(said(&[b"\xff\xfeodd\n"]), ["\u{fffd}\u{fffd}odd"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_left_out_whole() {
        let long = vec![b'x'; LINE_BYTES_MAX];
        let all = said(&[&long, b"y", b"z\nnext\n"]);
        assert_eq!(all.len(), 2);
        assert!(!all[0].contains('x') && all[1] == "next", "{all:?}");
    }

    #[test]
    fn a_flood_is_cut_and_says_so() {
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        let all = said(&vec![line.as_slice(); 1000]);
        let bytes: usize = all.iter().map(String::len).sum();
        assert!(bytes < SHOWN_BYTES_MAX + 200, "{bytes}");
        assert!(all.last().unwrap().contains("left out"));
    }

    #[test]
    fn log_lines_of_go_plugins_are_understood() {
        let line = |text: &str| understood(text);
        assert_eq!(
            line(r#"{"@level":"debug","@message":"plugin address","address":"/s"}"#),
            None
        );
        assert_eq!(
            line(r#"{"@level":"warn","@message":"slow","@timestamp":"t","@module":"api","n":2}"#),
            Some("[WARN] slow module=api n=2".to_owned())
        );
        // Not text: no log line of that format, and nothing to crash on.
        let odd = r#"{"@level":3,"@message":"x"}"#;
        assert_eq!(line(odd), Some(odd.to_owned()));
        assert_eq!(line("[DEBUG] noise"), None);
        assert_eq!(line("panic: oh no"), Some("panic: oh no".to_owned()));
    }
}
