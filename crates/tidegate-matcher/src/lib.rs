//! Finds every occurrence of every pattern, in one pass, at hundreds of megabytes a second.
//!
//! Why not an automaton: a secret and its encodings are about twenty patterns, so a thousand
//! secrets make an Aho-Corasick automaton of well over half a million states. It no longer fits a
//! cache, it must be rebuilt whenever a secret is learnt in the middle of a run, and its
//! leftmost-longest search skips hits that overlap an earlier one, which would leak their tail.
//!
//! Instead: every pattern of eight bytes or more is found by looking at every fourth position of
//! the text only. One of these positions must fall on the pattern's first four bytes, and the five
//! bytes from there on are known, so a bitmap over the hashes of each pattern's first four
//! five-byte windows rejects almost all of them with one load. The few that remain are tested
//! against a bitmap of whole eight-byte beginnings, and then looked up in a bucket of patterns
//! that share their first four bytes, sorted, where the longest match is a binary search. Patterns
//! of four to seven bytes have a bitmap of their own, and cost a look at every position only when
//! there are any. Adding a pattern is one insertion. `benches/filter.rs` measures both designs.
//!
//! Line breaks do not exist here: patterns are stored without CR and LF and the text is compared
//! as if it had none. That finds a Base64 text wrapped at any column, a key printed with other
//! line ends, and a value cut by a terminal, with no pattern more.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use zeroize::Zeroizing;

/// Patterns shorter than this are never accepted: they would shred ordinary text.
pub const PATTERN_BYTES_MIN: usize = 4;

/// Patterns this long are found by sampling.
const LONG_BYTES: usize = 8;

/// Distance of the positions looked at.
const STRIDE: usize = 4;

/// Bytes looked at there: what is sure to lie within a long pattern's beginning.
const SAMPLE_BYTES: usize = LONG_BYTES - (STRIDE - 1);

/// Multiplier of Fibonacci hashing: spreads neighbouring words over the whole table.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// A set of hashed words: says "surely not" or "perhaps".
struct Bitmap {
    /// A power of two of words, never empty.
    bits: Vec<u64>,
    shift: u32,
}

impl Default for Bitmap {
    fn default() -> Self {
        Self::with_bits(64)
    }
}

impl Bitmap {
    fn with_bits(bits: usize) -> Self {
        let bits = bits.next_power_of_two().clamp(64, 1 << 26);
        Self {
            bits: vec![0; bits / 64],
            shift: 64 - bits.trailing_zeros(),
        }
    }

    fn insert(&mut self, word: u64) {
        let slot = word.wrapping_mul(MULTIPLIER) >> self.shift;
        if let Some(bits) = self.bits.get_mut((slot >> 6) as usize) {
            *bits |= 1 << (slot & 63);
        }
    }

    #[inline(always)]
    fn may_hold(&self, word: u64) -> bool {
        let slot = word.wrapping_mul(MULTIPLIER) >> self.shift;
        // The mask only tells the compiler what the shift already ensures.
        self.bits[(slot >> 6) as usize & (self.bits.len() - 1)] >> (slot & 63) & 1 != 0
    }
}

/// The bitmaps over all patterns, sized for a number of them.
#[derive(Default)]
struct Sieve {
    /// How many patterns the sizes are good for.
    capacity: usize,
    /// Windows of [`SAMPLE_BYTES`] in the beginnings of long patterns.
    samples: Bitmap,
    /// The beginnings of long patterns, [`LONG_BYTES`] each.
    long: Bitmap,
    /// The first four bytes of the other patterns.
    short: Bitmap,
    has_short: bool,
    /// Beginnings of one to seven bytes, for the very end of a text.
    beginnings: Bitmap,
}

impl Sieve {
    fn with_capacity(capacity: usize) -> Self {
        Self {
            capacity,
            samples: Bitmap::with_bits(capacity * STRIDE * 16),
            long: Bitmap::with_bits(capacity * 16),
            short: Bitmap::with_bits(capacity * 16),
            has_short: false,
            beginnings: Bitmap::with_bits(capacity * (LONG_BYTES - 1) * 8),
        }
    }

    fn insert(&mut self, pattern: &[u8]) {
        if let Some(first) = pattern.first_chunk::<LONG_BYTES>() {
            let word = u64::from_le_bytes(*first);
            self.long.insert(word);
            for offset in 0..STRIDE {
                self.samples.insert(sample(word >> (8 * offset)));
            }
        } else if let Some(first) = pattern.first_chunk::<PATTERN_BYTES_MIN>() {
            self.has_short = true;
            self.short.insert(u64::from(u32::from_le_bytes(*first)));
        }
        for length in 1..pattern.len().min(LONG_BYTES) {
            self.beginnings.insert(beginning(&pattern[..length]));
        }
    }

    /// True when a pattern may begin with these eight bytes, the first lowest.
    #[inline(always)]
    fn may_begin(&self, word: u64) -> bool {
        self.long.may_hold(word) || self.has_short && self.short.may_hold(word & 0xFFFF_FFFF)
    }
}

/// The low [`SAMPLE_BYTES`] of a word.
#[inline(always)]
fn sample(word: u64) -> u64 {
    word << (64 - 8 * SAMPLE_BYTES)
}

#[inline(always)]
fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk::<LONG_BYTES>()
        .map(|bytes| u64::from_le_bytes(*bytes))
}

/// Hashes a four-byte prefix by one multiplication: the keys are few and not chosen by anyone who
/// could gain from a collision.
#[derive(Default)]
struct PrefixHasher(u64);

impl Hasher for PrefixHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_u32(&mut self, word: u32) {
        self.0 = u64::from(word).wrapping_mul(MULTIPLIER);
        self.0 ^= self.0 >> 32;
    }
}

/// Where a search through a text ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// First position from which a pattern may begin that the text is too short to decide.
    pub any: usize,
    /// The same, counting only beginnings of at least [`Pending::LONG_BYTES`] bytes.
    pub long: usize,
}

impl Pending {
    /// A beginning this long is no coincidence.
    pub const LONG_BYTES: usize = 8;
}

enum End {
    /// The whole pattern stands in the text and ends before this index.
    Matched(usize),
    /// The text ended (or its permitted part did) inside the pattern.
    TextEnded,
    /// They differ; this is how the text compares with the pattern.
    Differs(Ordering),
}

/// The set of patterns.
#[derive(Default)]
pub struct Matcher {
    patterns: Vec<Zeroizing<Vec<u8>>>,
    /// Four-byte prefix → indices into `patterns`, sorted by their bytes.
    buckets: HashMap<u32, Vec<u32>, BuildHasherDefault<PrefixHasher>>,
    sieve: Sieve,
}

fn is_break(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}

/// Up to seven bytes as a word; their number is in it, so that a NUL is not taken for a gap.
fn beginning(bytes: &[u8]) -> u64 {
    bytes.iter().fold(bytes.len() as u64, |word, byte| {
        word << 8 | u64::from(*byte)
    })
}

/// Compares `pattern` with the text from `at` on, line breaks left out, looking at no more than
/// `limit` text bytes. Also says how many bytes agreed.
fn walk(text: &[u8], mut at: usize, limit: usize, pattern: &[u8]) -> (End, usize) {
    /// Compared at once: long repetitive secrets in long repetitive texts must stay cheap.
    const BLOCK: usize = 32;
    let comparable = pattern.len().min(limit);
    let mut agreed = 0;
    while agreed < comparable {
        if let (Some(ours), Some(theirs)) = (
            text.get(at..at + BLOCK),
            pattern[..comparable].get(agreed..agreed + BLOCK),
        ) && ours == theirs
        {
            at += BLOCK;
            agreed += BLOCK;
            continue;
        }
        for expected in &pattern[agreed..comparable.min(agreed + BLOCK)] {
            while at < text.len() && is_break(text[at]) {
                at += 1;
            }
            if at == text.len() {
                return (End::TextEnded, agreed);
            }
            match text[at].cmp(expected) {
                Ordering::Equal => at += 1,
                other => return (End::Differs(other), agreed),
            }
            agreed += 1;
        }
    }
    if agreed == pattern.len() {
        (End::Matched(at), agreed)
    } else {
        (End::TextEnded, agreed)
    }
}

impl Matcher {
    /// Adds a pattern, its line breaks left out. False when it is too short or already known.
    pub fn insert(&mut self, pattern: &[u8]) -> bool {
        let mut bytes = Zeroizing::new(Vec::with_capacity(pattern.len()));
        bytes.extend(pattern.iter().copied().filter(|byte| !is_break(*byte)));
        let Some(&[a, b, c, d]) = bytes.first_chunk::<PATTERN_BYTES_MIN>() else {
            return false;
        };
        let Ok(index) = u32::try_from(self.patterns.len()) else {
            return false;
        };
        let prefix = u32::from_le_bytes([a, b, c, d]);
        let patterns = &self.patterns;
        let bucket = self.buckets.entry(prefix).or_default();
        let place = bucket
            .binary_search_by(|&other| patterns[other as usize].as_slice().cmp(bytes.as_slice()));
        let Err(place) = place else {
            return false;
        };
        bucket.insert(place, index);
        self.patterns.push(bytes);
        if self.patterns.len() > self.sieve.capacity {
            self.sieve = Sieve::with_capacity((self.patterns.len() * 2).max(256));
            for pattern in &self.patterns {
                self.sieve.insert(pattern);
            }
        } else if let Some(pattern) = self.patterns.last() {
            self.sieve.insert(pattern);
        }
        true
    }

    /// Number of patterns.
    pub fn count(&self) -> usize {
        self.patterns.len()
    }

    /// The longest match that begins at `at`, as the index after its last byte; and whether some
    /// pattern agrees with the whole rest of the text and is longer than it.
    fn look(&self, text: &[u8], at: usize, prefix: u32) -> (Option<usize>, bool) {
        let Some(bucket) = self.buckets.get(&prefix) else {
            return (None, false);
        };
        let mut limit = usize::MAX;
        let mut range = bucket.as_slice();
        let mut undecided = false;
        loop {
            // Patterns that sort at or before the text. Every pattern that is a prefix of the
            // text is among them, and the last of them has each such pattern as its own prefix.
            let split = range.partition_point(|&index| {
                match walk(text, at, limit, &self.patterns[index as usize]).0 {
                    End::Matched(_) | End::Differs(Ordering::Greater) => true,
                    End::TextEnded | End::Differs(_) => false,
                }
            });
            if limit == usize::MAX {
                undecided = range.get(split).is_some_and(|&index| {
                    matches!(
                        walk(text, at, limit, &self.patterns[index as usize]).0,
                        End::TextEnded
                    )
                });
            }
            let Some((&last, before)) = range[..split].split_last() else {
                return (None, undecided);
            };
            match walk(text, at, limit, &self.patterns[last as usize]) {
                (End::Matched(end), _) => return (Some(end), undecided),
                (_, agreed) => {
                    // A shorter pattern can only lie within what agreed.
                    limit = agreed;
                    range = before;
                }
            }
        }
    }

    /// Calls `hit(start, end)` for the longest match at every position where one begins, in
    /// ascending order of `start`; overlapping matches are all reported. Says from where the text
    /// is too short to decide.
    pub fn search(&self, text: &[u8], hit: &mut dyn FnMut(usize, usize)) -> Pending {
        let mut pending = Pending {
            any: text.len(),
            long: text.len(),
        };
        if self.patterns.is_empty() {
            return pending;
        }
        let mut found = |at: usize, prefix: u32| {
            let (end, undecided) = self.look(text, at, prefix);
            if let Some(end) = end {
                hit(at, end);
            }
            if undecided {
                pending.any = pending.any.min(at);
                let shown = text[at..].iter().filter(|byte| !is_break(**byte));
                if shown.take(Pending::LONG_BYTES).count() == Pending::LONG_BYTES {
                    pending.long = pending.long.min(at);
                }
            }
        };
        let sieve = &self.sieve;
        let mut short_end = text.len();
        let mut start = 0;
        while start < text.len() {
            let end = memchr::memchr2(b'\n', b'\r', &text[start..])
                .map_or(text.len(), |length| start + length);
            let line = &text[start..end];
            // Beginnings that lie within the line by eight bytes.
            if sieve.has_short {
                for (offset, bytes) in line.windows(LONG_BYTES).enumerate() {
                    if let Some(word) = word_at(bytes, 0)
                        && sieve.may_begin(word)
                    {
                        found(start + offset, word as u32);
                    }
                }
            } else {
                let mut at = 0;
                while let Some(word) = word_at(line, at) {
                    if sieve.samples.may_hold(sample(word)) {
                        for at in at.saturating_sub(STRIDE - 1)..=at {
                            if let Some(word) = word_at(line, at)
                                && sieve.long.may_hold(word)
                            {
                                found(start + at, word as u32);
                            }
                        }
                    }
                    at += STRIDE;
                }
                // The last sample of the line has less than eight bytes after it.
                for at in at.saturating_sub(STRIDE - 1)..(line.len() + 1).saturating_sub(LONG_BYTES)
                {
                    if let Some(word) = word_at(line, at)
                        && sieve.long.may_hold(word)
                    {
                        found(start + at, word as u32);
                    }
                }
            }
            // Beginnings in its last seven bytes go on in the next line, or end with the text.
            let edge = (end + 1).saturating_sub(LONG_BYTES).max(start);
            let mut bytes = [0_u8; 2 * LONG_BYTES];
            let mut filled = end - edge;
            bytes[..filled].copy_from_slice(&text[edge..end]);
            let wanted = filled + LONG_BYTES - 1;
            for byte in text[end..].iter().filter(|byte| !is_break(**byte)) {
                if filled == wanted {
                    break;
                }
                bytes[filled] = *byte;
                filled += 1;
            }
            // Two samples stand for all seven positions when each has a window to itself.
            let is_settled = !sieve.has_short
                && filled == wanted
                && !word_at(&bytes, 3).is_some_and(|word| sieve.samples.may_hold(sample(word)))
                && !word_at(&bytes, 6).is_some_and(|word| sieve.samples.may_hold(sample(word)));
            start = end + 1;
            if is_settled {
                continue;
            }
            for (offset, at) in (edge..end).enumerate() {
                let rest = &bytes[offset..filled];
                match word_at(rest, 0) {
                    Some(word) if sieve.may_begin(word) => found(at, word as u32),
                    Some(_) => {}
                    None => {
                        let first = rest.first_chunk::<PATTERN_BYTES_MIN>();
                        let first = first.map(|bytes| u32::from_le_bytes(*bytes));
                        let may_continue = sieve.beginnings.may_hold(beginning(rest));
                        match first {
                            Some(prefix)
                                if may_continue || sieve.short.may_hold(u64::from(prefix)) =>
                            {
                                found(at, prefix);
                            }
                            None if may_continue => short_end = short_end.min(at),
                            _ => {}
                        }
                    }
                }
            }
        }
        pending.any = pending.any.min(short_end);
        pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(patterns: &[&str], text: &str, expected: &[(usize, usize)], pending: usize) {
        let mut matcher = Matcher::default();
        for pattern in patterns {
            matcher.insert(pattern.as_bytes());
        }
        let mut hits = Vec::new();
        let rest = matcher.search(text.as_bytes(), &mut |start, end| hits.push((start, end)));
        assert_eq!(hits, expected, "{patterns:?} in {text:?}");
        assert_eq!(rest.any, pending, "undecided for {patterns:?} in {text:?}");
    }

    #[test]
    fn every_overlapping_match_is_found_with_its_longest_end() {
        check(&["abcd"], "xxabcdyy", &[(2, 6)], 8);
        check(&["abcd", "abcdef"], "abcdefg", &[(0, 6)], 7);
        check(&["abcd", "abcdefgh"], "abcdefgx", &[(0, 4)], 8);
        check(&["abcd", "abcdef", "abcdefgh"], "abcdefgx", &[(0, 6)], 8);
        check(&["abcd", "cdef"], "abcdefx", &[(0, 4), (2, 6)], 7);
        check(&["aaaa"], "aaaaaa", &[(0, 4), (1, 5), (2, 6)], 3);
        check(&["abcd", "abce", "abcz"], "abceabcz", &[(0, 4), (4, 8)], 8);
    }

    #[test]
    fn line_breaks_are_looked_through() {
        check(&["abcd"], "ab\ncd.", &[(0, 5)], 6);
        check(&["ab\ncd"], "abcd.", &[(0, 4)], 5);
        check(&["abcdefgh"], "abcde\r\n\r\nfgh.", &[(0, 12)], 13);
        check(&["abcd"], "a\nb\rc\n\nd.", &[(0, 8)], 9);
    }

    #[test]
    fn an_undecided_end_is_named_from_its_first_byte() {
        check(&["abcd"], "xyza", &[], 3);
        check(&["abcd"], "xyzab", &[], 3);
        check(&["abcdef"], "xyzabcde", &[], 3);
        check(&["abcdef"], "xyzabcd\n", &[], 3);
        check(&["abcd"], "xyz\n", &[], 4);
        check(&["abcd", "abcdef"], "abcd", &[(0, 4)], 0);
    }

    #[test]
    fn short_and_repeated_patterns_are_refused() {
        let mut matcher = Matcher::default();
        assert!(!matcher.insert(b"abc"));
        assert!(!matcher.insert(b"a\nb\nc"));
        assert!(matcher.insert(b"abcd"));
        assert!(!matcher.insert(b"ab\ncd"));
        assert_eq!(matcher.count(), 1);
    }

    #[test]
    fn the_bitmap_grows_without_losing_patterns() {
        let mut matcher = Matcher::default();
        let words: Vec<String> = (0..5_000).map(|n| format!("{n:04x}-secret")).collect();
        for word in &words {
            assert!(matcher.insert(word.as_bytes()));
        }
        for word in &words {
            let mut hits = 0;
            matcher.search(word.as_bytes(), &mut |_, _| hits += 1);
            assert_eq!(hits, 1, "{word}");
        }
    }
}
