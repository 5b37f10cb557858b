//! One output stream behind the filter: whole lines out, one write each, and a reader that went
//! away is no error.

use std::io::{self, Write};

use crate::actions::command::Command;
use crate::report::text::guard_line;
use crate::secret::Masker;
use crate::secret::mask::Filter;

/// A filtered stream.
pub(super) struct Stream {
    writer: Box<dyn Write + Send>,
    filter: Filter,
    /// Filtered bytes of a line that is not complete yet (guarded streams only).
    line: Vec<u8>,
    /// The runner reads this stream: complete lines only, none of which may be a command.
    is_guarded: bool,
    /// The reader is gone; nothing is written any more.
    is_closed: bool,
    error: Option<io::Error>,
}

impl Stream {
    pub(super) fn new(writer: Box<dyn Write + Send>, masker: &Masker, is_guarded: bool) -> Self {
        Self {
            writer,
            filter: masker.filter(),
            line: Vec::new(),
            is_guarded,
            is_closed: false,
            error: None,
        }
    }

    /// Writes ordinary text: masked, and guarded when the runner reads.
    pub(super) fn text(&mut self, text: &str) {
        let mut out = std::mem::take(&mut self.line);
        self.filter.push(text.as_bytes(), &mut out);
        self.filter.end_message(&mut out);
        self.pass_on(out);
    }

    /// Writes text as it is: not masked (it was, or must not be), but still guarded.
    pub(super) fn unmasked(&mut self, text: &str) {
        if self.is_guarded {
            for line in text.lines() {
                self.guarded_line(line);
            }
        } else {
            self.write(text.as_bytes());
        }
    }

    /// Writes control sequences of ours.
    pub(super) fn control(&mut self, sequence: &str) {
        debug_assert!(!self.is_guarded, "the runner is sent no control sequences");
        self.write(sequence.as_bytes());
    }

    /// Writes a workflow command: the only line that passes unguarded.
    pub(super) fn command(&mut self, command: &Command) {
        let mut line = command.as_str().to_owned();
        line.push('\n');
        self.write(line.as_bytes());
        zeroize::Zeroize::zeroize(&mut line);
    }

    /// Lets go of everything held back. An incomplete line is completed.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let mut out = std::mem::take(&mut self.line);
        self.filter.finish(&mut out);
        if self.is_guarded && !out.is_empty() && !out.ends_with(b"\n") {
            out.push(b'\n');
        }
        self.pass_on(out);
        match self.error.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn pass_on(&mut self, out: Vec<u8>) {
        if !self.is_guarded {
            self.write(&out);
            return;
        }
        let complete = memchr::memrchr(b'\n', &out).map_or(0, |at| at + 1);
        for line in String::from_utf8_lossy(&out[..complete]).lines() {
            self.guarded_line(line);
        }
        // Bytes, not text: a cut may fall inside a character.
        self.line.extend_from_slice(&out[complete..]);
    }

    fn guarded_line(&mut self, line: &str) {
        // `lines` leaves lone carriage returns inside, and the runner ends a line at each.
        for part in line.split('\r') {
            let mut part = guard_line(part).into_owned();
            part.push('\n');
            self.write(part.as_bytes());
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.is_closed || bytes.is_empty() {
            return;
        }
        let written = self
            .writer
            .write_all(bytes)
            .and_then(|()| self.writer.flush());
        if let Err(error) = written {
            self.is_closed = true;
            // `tidegate … | head` is a success.
            if error.kind() != io::ErrorKind::BrokenPipe {
                self.error = Some(error);
            }
        }
    }
}
