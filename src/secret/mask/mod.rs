//! The masker: every live secret, in every encoding that could carry it, and the streaming filter
//! that keeps them out of everything we write.
//!
//! [`Masker::admit`] is the only mint of [`Secret`]: it registers a value with the filter, has
//! the mask commands written (inside GitHub Actions), and only then returns. What is deliberately
//! absent: any way to forget a secret, or to ask what the secrets are.

mod encode;
mod filter;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::Secret;
use crate::report::Report;
use tidegate_matcher::Matcher;

pub use filter::{Filter, MASK};

/// How many lines of one secret are announced to the runner, whose log handling slows down with
/// every mask. Our own filter knows all of them.
pub const ANNOUNCED_LINES_MAX: usize = 256;

/// Told about each new secret before anyone may hold it.
pub trait Announcer: Send + Sync {
    /// Registers masks with whoever else reads our output. Returns when they are written.
    fn announce(&self, masks: &[Zeroizing<String>]);
    /// Says that a value cannot be masked, or not everywhere.
    fn warn(&self, report: Report);
}

/// Knows every live secret of the process. Cheap to clone; all clones share one registry.
#[derive(Clone, Default)]
pub struct Masker {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    matcher: RwLock<Matcher>,
    /// Held from "is it new?" until it is announced, so that nobody gets a secret whose masks
    /// are still on their way.
    admission: Mutex<Admission>,
}

#[derive(Default)]
struct Admission {
    /// SHA-256 of each value seen.
    seen: HashSet<[u8; 32]>,
    announcer: Option<Arc<dyn Announcer>>,
    /// What an announcer that comes later must still hear.
    masks: Vec<Zeroizing<String>>,
    reports: Vec<Report>,
}

impl Masker {
    /// Turns plaintext into a [`Secret`], after registering it with the output filter and (inside
    /// GitHub Actions) after its mask commands were written. `label` names the secret in messages.
    ///
    /// A value that is too short or too common to mask is reported by its label
    /// (`secret/unmaskable`) instead of destroying the log.
    pub fn admit(&self, label: &str, plaintext: String) -> Secret {
        let mut admission = self
            .inner
            .admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let fingerprint: [u8; 32] = Sha256::digest(plaintext.as_bytes()).into();
        if !plaintext.is_empty() && admission.seen.insert(fingerprint) {
            if let Some(reason) = encode::unmaskable(&plaintext) {
                admission.warn(unmaskable(label, reason));
            } else {
                self.register(&plaintext);
                let (mut masks, is_cut) = encode::announced(&plaintext, ANNOUNCED_LINES_MAX);
                for part in encode::parts(&plaintext) {
                    self.register(&part);
                    masks.extend(encode::announced(&part, ANNOUNCED_LINES_MAX).0);
                }
                admission.announce(masks);
                if is_cut {
                    admission.warn(too_many_lines(label));
                }
            }
        }
        Secret::new(plaintext)
    }

    fn register(&self, plaintext: &str) {
        let mut matcher = self
            .inner
            .matcher
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for form in encode::all(plaintext).iter() {
            matcher.insert(form.as_bytes());
        }
    }

    /// Installs the announcer. It hears at once about every secret admitted before.
    pub fn set_announcer(&self, announcer: Arc<dyn Announcer>) {
        let mut admission = self
            .inner
            .admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let masks = std::mem::take(&mut admission.masks);
        let reports = std::mem::take(&mut admission.reports);
        admission.announcer = Some(announcer);
        admission.announce(masks);
        for report in reports {
            admission.warn(report);
        }
    }

    /// The text with every secret in it replaced by `***`.
    pub fn mask(&self, text: &str) -> String {
        let masked = {
            let matcher = self
                .inner
                .matcher
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            filter::mask_whole(&matcher, text.as_bytes())
        };
        // Patterns are UTF-8, so what is left between them is too.
        masked.map_or_else(
            || text.to_owned(),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// The beginning of a longer text, with every secret in it replaced. What may be the beginning of
    /// a secret that was cut is left out.
    pub fn mask_beginning(&self, text: &str) -> String {
        let mut out = Vec::new();
        self.filter().push(text.as_bytes(), &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// JSON with `***` wherever a secret stands in a text, a key or a number.
    pub fn mask_json(&self, value: &serde_json::Value) -> serde_json::Value {
        use serde_json::Value;
        match value {
            Value::Null | Value::Bool(_) => value.clone(),
            Value::Number(number) if self.is_sensitive(&number.to_string()) => Value::from("***"),
            Value::Number(_) => value.clone(),
            Value::String(text) => Value::from(self.mask(text)),
            Value::Array(values) => values.iter().map(|value| self.mask_json(value)).collect(),
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| (self.mask(key), self.mask_json(value)))
                .collect(),
        }
    }

    /// The beginning of a foreign text, for a sentence of ours: secrets are hidden before it is cut, or a
    /// cut could leave a piece of one that nobody recognises. Never cut such a text in any other way.
    pub fn excerpt(&self, text: &str, characters_max: usize) -> String {
        let masked = self.mask(text);
        match masked.char_indices().nth(characters_max) {
            Some((end, _)) => format!("{}…", &masked[..end]),
            None => masked,
        }
    }

    /// True when the text carries a secret in any form.
    pub fn is_sensitive(&self, text: &str) -> bool {
        let mut is_hit = false;
        self.inner
            .matcher
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .search(text.as_bytes(), &mut |_, _| is_hit = true);
        is_hit
    }

    /// True for a connection URL with a password in it, known or not.
    pub fn holds_password(&self, text: &str) -> bool {
        !encode::passwords(text).is_empty()
    }

    /// A streaming filter over the secrets known now and later.
    pub fn filter(&self) -> Filter {
        Filter::new(self.clone())
    }

    /// The masks that the runner is told of for a value, for a stream of its own.
    pub fn masks_of(&self, plaintext: &str) -> Vec<Zeroizing<String>> {
        if encode::unmaskable(plaintext).is_some() {
            return Vec::new();
        }
        let parts = encode::parts(plaintext);
        let texts = std::iter::once(plaintext).chain(parts.iter().map(|part| part.as_str()));
        texts
            .flat_map(|text| encode::announced(text, ANNOUNCED_LINES_MAX).0)
            .collect()
    }

    /// How many patterns the filter looks for.
    pub fn pattern_count(&self) -> usize {
        self.inner
            .matcher
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .count()
    }
}

impl Admission {
    fn announce(&mut self, masks: Vec<Zeroizing<String>>) {
        match &self.announcer {
            Some(announcer) if !masks.is_empty() => announcer.announce(&masks),
            Some(_) => {}
            None => self.masks.extend(masks),
        }
    }

    fn warn(&mut self, report: Report) {
        match &self.announcer {
            Some(announcer) => announcer.warn(report),
            None => self.reports.push(report),
        }
    }
}

fn unmaskable(label: &str, reason: &str) -> Report {
    Report::warning(
        "secret/unmaskable",
        format!("the value of `{label}` cannot be hidden in logs"),
    )
    .because(reason)
    .fix("use a longer, random value; until then treat every log of this run as containing it")
}

fn too_many_lines(label: &str) -> Report {
    Report::warning(
        "secret/many-lines",
        format!("the runner hides only the first {ANNOUNCED_LINES_MAX} lines of `{label}` in later steps"),
    )
    .because("the runner slows down with every mask; Tidegate's own output hides all of it")
    .fix("store the value Base64-encoded on one line if later steps may print it")
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masker")
    }
}
