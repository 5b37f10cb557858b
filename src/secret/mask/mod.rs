//! The masker: every live secret, in every encoding that could carry it, and the streaming filter
//! that keeps them out of everything we write.
//!
//! [`Masker::admit`] is the only mint of [`Secret`]: it registers a value with the filter, has
//! the mask commands written (inside GitHub Actions), and only then returns. What is deliberately
//! absent: any way to forget a secret, or to ask what the secrets are.

mod common;
mod encode;
mod filter;

use std::collections::{HashMap, HashSet};
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
    /// Words that this run shows whatever happens, and what each of them is.
    public: HashMap<String, &'static str>,
    announcer: Option<Arc<dyn Announcer>>,
    /// What an announcer that comes later must still hear.
    masks: Vec<Zeroizing<String>>,
    reports: Vec<Report>,
}

impl Masker {
    /// Turns plaintext into a [`Secret`], after registering it with the output filter and (inside
    /// GitHub Actions) after its mask commands were written. `label` names the secret in messages.
    ///
    /// A value that is too short or too common to mask, or that is a [public word](Masker::publish), is
    /// reported by its label (`secret/unmaskable`) instead of destroying the log.
    pub fn admit(&self, label: &str, plaintext: String) -> Secret {
        self.take(label, plaintext, true)
    }

    /// The same of a value that nobody calls a secret, but nobody calls public either: what a provider
    /// answers without a word about it, or what was told before. That it is a public word is no news then.
    pub fn suspect(&self, label: &str, plaintext: String) -> Secret {
        self.take(label, plaintext, false)
    }

    /// A value that is kept sealed although nobody knows that it is a secret, as after a run that was cut
    /// off. Nothing is hidden for it: most of such values are addresses and ids that others show.
    pub fn conceal(&self, plaintext: String) -> Secret {
        Secret::new(plaintext)
    }

    fn take(&self, label: &str, plaintext: String, is_secret: bool) -> Secret {
        let mut admission = self.lock();
        if let Some(what) = admission.public.get(plaintext.trim()).copied() {
            if is_secret && admission.seen.insert(fingerprint(&plaintext)) {
                admission.warn(public_word(label, what));
            }
        } else if !plaintext.is_empty() && admission.seen.insert(fingerprint(&plaintext)) {
            if let Some(reason) = encode::unmaskable(&plaintext) {
                admission.warn(unmaskable(label, reason));
            } else {
                let public = &admission.public;
                self.register(&plaintext, public);
                let (mut masks, is_cut) = encode::announced(&plaintext, ANNOUNCED_LINES_MAX);
                let mut shown = None;
                for part in encode::parts(&plaintext, is_secret) {
                    if let Some(what) = public.get(part.trim()) {
                        shown = encode::passwords(&plaintext)
                            .contains(&part)
                            .then_some(*what);
                        continue;
                    }
                    self.register(&part, public);
                    masks.extend(encode::announced(&part, ANNOUNCED_LINES_MAX).0);
                }
                masks.retain(|mask| !public.contains_key(mask.as_str()));
                admission.announce(masks);
                if let Some(what) = shown {
                    admission.warn(public_word(&format!("{label} (the password in it)"), what));
                }
                if is_cut {
                    admission.warn(too_many_lines(label));
                }
            }
        }
        Secret::new(plaintext)
    }

    /// Says that these words stand in everything this run shows (names, types, environments, places), and
    /// what they are: `the name of a resource`. A value that is one of them is not hidden: every line
    /// would be shredded, and since the word is known already, the `***` would tell the value.
    pub fn publish<'w>(&self, what: &'static str, words: impl IntoIterator<Item = &'w str>) {
        let mut admission = self.lock();
        for word in words {
            if !word.is_empty() && !admission.public.contains_key(word) {
                admission.public.insert(word.to_owned(), what);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Admission> {
        self.inner
            .admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, plaintext: &str, public: &HashMap<String, &'static str>) {
        let mut matcher = self
            .inner
            .matcher
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for form in encode::all(plaintext).iter() {
            if !public.contains_key(form) {
                matcher.insert(form.as_bytes());
            }
        }
    }

    /// Installs the announcer. It hears at once about every secret admitted before.
    pub fn set_announcer(&self, announcer: Arc<dyn Announcer>) {
        let mut admission = self.lock();
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
            Value::Object(map) => {
                let mut masked = serde_json::Map::new();
                for (key, value) in map {
                    let plain = self.mask(key);
                    // Two keys that read alike would be one member, and the first be gone.
                    let mut key = plain.clone();
                    for number in 2.. {
                        if !masked.contains_key(&key) {
                            break;
                        }
                        key = format!("{plain} ({number})");
                    }
                    masked.insert(key, self.mask_json(value));
                }
                Value::Object(masked)
            }
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
        let admission = self.lock();
        let public = |text: &str| admission.public.contains_key(text.trim());
        if encode::unmaskable(plaintext).is_some() || public(plaintext) {
            return Vec::new();
        }
        let parts = encode::parts(plaintext, true);
        let texts = std::iter::once(plaintext).chain(parts.iter().map(|part| part.as_str()));
        texts
            .filter(|text| !public(text))
            .flat_map(|text| encode::announced(text, ANNOUNCED_LINES_MAX).0)
            .filter(|mask| !public(mask))
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

fn fingerprint(plaintext: &str) -> [u8; 32] {
    Sha256::digest(plaintext.as_bytes()).into()
}

fn public_word(label: &str, what: &str) -> Report {
    Report::warning(
        "secret/unmaskable",
        format!("the value of `{label}` cannot be hidden in logs"),
    )
    .because(format!("it is {what}, which stands in everything this run shows"))
    .fix("if it is a secret, give it a value that nothing is called; if it is none, declare it as `sensitive: false`")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard {
        masks: Mutex<Vec<String>>,
        warnings: Mutex<Vec<Report>>,
    }

    impl Announcer for Heard {
        fn announce(&self, masks: &[Zeroizing<String>]) {
            let masks = masks.iter().map(|mask| mask.as_str().to_owned());
            self.masks.lock().unwrap().extend(masks);
        }

        fn warn(&self, report: Report) {
            self.warnings.lock().unwrap().push(report);
        }
    }

    #[test]
    fn a_public_word_is_told_by_name_and_never_hidden() {
        let heard = Arc::new(Heard::default());
        let masker = Masker::default();
        masker.set_announcer(Arc::clone(&heard) as Arc<dyn Announcer>);
        masker.publish("the name of a resource", ["shop-web", "eu-west-1"]);
        let text = "delete shop-web shop-web-2 in eu-west-1: shop-web-pw9";
        // Declared, suspected, in lines, in a document, as a password, twice.
        masker.admit("web.label", "shop-web".to_owned());
        masker.admit("web.label", "shop-web".to_owned());
        masker.suspect("web.name", "eu-west-1".to_owned());
        masker.admit("lines", "shop-web\nhunter-2-lines".to_owned());
        masker.admit("list", r#"["eu-west-1","hunter-3-list"]"#.to_owned());
        masker.admit("url", "pg://u:shop-web@h/hunter-4".to_owned());
        assert_eq!(masker.mask(text), text);
        for hidden in [
            "hunter-2-lines",
            "hunter-3-list",
            "pg://u:shop-web@h/hunter-4",
        ] {
            assert_eq!(masker.mask(hidden), "***", "{hidden}");
        }
        // Only the very word: what merely holds one is a secret as any other.
        masker.admit("longer", "shop-web-pw9".to_owned());
        assert_eq!(masker.mask(text), text.replace("shop-web-pw9", "***"));
        let warned: Vec<String> = heard
            .warnings
            .lock()
            .unwrap()
            .iter()
            .map(|report| report.message.clone())
            .collect();
        assert_eq!(
            warned,
            [
                "the value of `web.label` cannot be hidden in logs",
                "the value of `url (the password in it)` cannot be hidden in logs",
            ]
        );
        let masks = heard.masks.lock().unwrap();
        assert!(masks.iter().any(|mask| mask == "shop-web-pw9"));
        assert!(
            !masks
                .iter()
                .any(|mask| mask == "shop-web" || mask == "eu-west-1")
        );
    }

    #[test]
    fn two_keys_that_are_hidden_stay_two() {
        let masker = Masker::default();
        for secret in ["hunter-one-1", "hunter-two-2"] {
            masker.admit("s", secret.to_owned());
        }
        let masked = masker.mask_json(&serde_json::json!({"hunter-one-1": 1, "hunter-two-2": 2}));
        assert_eq!(masked, serde_json::json!({"***": 1, "*** (2)": 2}));
    }
}
