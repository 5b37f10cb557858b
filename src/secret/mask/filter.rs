//! The streaming filter: bytes in, bytes out, every hit replaced, however the bytes are cut.

use std::sync::PoisonError;

use zeroize::{Zeroize as _, Zeroizing};

use super::Masker;
use tidegate_matcher::{Matcher, Pending};

/// What stands where a secret stood.
pub const MASK: &[u8] = b"***";

/// Masks a stream. Whatever may be the beginning of a secret is held back until the next bytes
/// decide it, so no cut through the stream can carry a secret past the filter. Overlapping and
/// touching hits become one `***`; line breaks inside a hit stay where they are.
///
/// What is held is never longer than the longest pattern.
pub struct Filter {
    masker: Masker,
    /// Bytes not decided yet, preceded by `emitted` bytes that are out but may still turn out to
    /// be the beginning of a secret.
    buffer: Zeroizing<Vec<u8>>,
    emitted: usize,
    /// So many bytes at the front of `buffer` lie inside a hit that began earlier.
    covered: usize,
    /// The last thing put out is a mask that a touching hit would extend.
    open: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Release {
    /// Only what is decided.
    Decided,
    /// Also short beginnings: an end of message.
    Message,
    /// Everything: nothing will follow.
    All,
}

impl Filter {
    /// A filter for one stream, over the secrets `masker` knows now and learns later.
    pub fn new(masker: Masker) -> Self {
        Self {
            masker,
            buffer: Zeroizing::default(),
            emitted: 0,
            covered: 0,
            open: false,
        }
    }

    /// Takes bytes and appends what is decided to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.buffer.extend_from_slice(bytes);
        self.release(Release::Decided, out);
    }

    /// Ends a message: bytes that agree with the beginning of a secret by less than eight bytes
    /// are let go (a line that happens to end in the letter some secret begins with must not wait
    /// for the next line). They are remembered: should the secret continue, its rest is masked.
    pub fn end_message(&mut self, out: &mut Vec<u8>) {
        self.release(Release::Message, out);
    }

    /// Ends the stream and lets everything go.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.release(Release::All, out);
        self.buffer.zeroize();
        self.emitted = 0;
        self.covered = 0;
        self.open = false;
    }

    /// True when nothing waits to be decided.
    pub fn is_idle(&self) -> bool {
        self.buffer.len() == self.emitted
    }

    fn release(&mut self, release: Release, out: &mut Vec<u8>) {
        if self.buffer.is_empty() {
            return;
        }
        let masker = self.masker.clone();
        let matcher = masker
            .inner
            .matcher
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let text = self.buffer.as_slice();
        let mut paint = Paint {
            text,
            at: self.emitted,
            open: self.open,
            out,
        };
        let mut runs = Runs::starting(self.covered);
        let pending = matcher.search(text, &mut |start, end| runs.add(start, end));
        drop(matcher);
        let keep = pending.any;
        let until = match release {
            Release::Decided => keep.max(self.emitted),
            Release::Message => pending.long.max(self.emitted),
            Release::All => text.len(),
        };
        for &(start, end) in &runs.found {
            paint.plain(start.min(until));
            paint.masked(end.min(until));
        }
        paint.plain(until);
        self.open = paint.open;
        // A hit may reach past what is kept for later; remember how far.
        let reach = runs.reach_from_before(keep).max(self.covered);
        let (length, tail) = (text.len(), text.len() - keep);
        self.buffer.copy_within(keep..length, 0);
        // What is cut off stays in the spare capacity until the buffer is dropped, which zeroes
        // all of it; zeroing on every push would cost more than the search.
        self.buffer.truncate(tail);
        self.emitted = until - keep;
        self.covered = reach.saturating_sub(keep);
    }
}

/// Hits joined into runs that neither overlap nor touch, ascending.
struct Runs {
    found: Vec<(usize, usize)>,
    /// Every hit that reaches further than all before it: starts and ends both ascend.
    reaching: Vec<(usize, usize)>,
}

impl Runs {
    fn starting(covered: usize) -> Self {
        let mut runs = Self {
            found: Vec::new(),
            reaching: Vec::new(),
        };
        if covered > 0 {
            runs.add(0, covered);
        }
        runs
    }

    fn add(&mut self, start: usize, end: usize) {
        match self.found.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => self.found.push((start, end)),
        }
        if self.reaching.last().is_none_or(|last| last.1 < end) {
            self.reaching.push((start, end));
        }
    }

    /// The furthest end of a hit that begins before `position`.
    fn reach_from_before(&self, position: usize) -> usize {
        let split = self.reaching.partition_point(|hit| hit.0 < position);
        self.reaching[..split].last().map_or(0, |hit| hit.1)
    }
}

/// Writes plain and masked stretches of a text in order.
struct Paint<'a> {
    text: &'a [u8],
    at: usize,
    open: bool,
    out: &'a mut Vec<u8>,
}

impl Paint<'_> {
    fn plain(&mut self, until: usize) {
        if self.at < until {
            self.out.extend_from_slice(&self.text[self.at..until]);
            self.at = until;
            self.open = false;
        }
    }

    fn masked(&mut self, until: usize) {
        while self.at < until {
            let byte = self.text[self.at];
            if byte == b'\n' || byte == b'\r' {
                self.out.push(byte);
                self.open = false;
            } else if !self.open {
                self.out.extend_from_slice(MASK);
                self.open = true;
            }
            self.at += 1;
        }
    }
}

/// Masks a whole text at once; `None` when nothing was found.
pub(super) fn mask_whole(matcher: &Matcher, text: &[u8]) -> Option<Vec<u8>> {
    let mut runs = Runs::starting(0);
    let _: Pending = matcher.search(text, &mut |start, end| runs.add(start, end));
    if runs.found.is_empty() {
        return None;
    }
    let mut out = Vec::with_capacity(text.len());
    let mut paint = Paint {
        text,
        at: 0,
        open: false,
        out: &mut out,
    };
    for &(start, end) in &runs.found {
        paint.plain(start);
        paint.masked(end);
    }
    paint.plain(text.len());
    Some(out)
}
