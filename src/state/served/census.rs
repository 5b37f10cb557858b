//! What must be there. A list that a storage answers may be short of an object, and nothing in the
//! list tells: it was removed behind our back, or the plugin leaves out what it cannot read. So the
//! head counts what every write leaves, and each list is held against the count.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Object, SEPARATOR};

/// What the head remembers of the objects in its room, marks aside. The write that is pending is not
/// in it: whether it was done is seen at its object alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Census {
    records: Tally,
    keepsakes: Tally,
}

/// How many, and which: the exclusive or of a hash of each id. Adding one and taking it away is the
/// same step, in any order. Versions do not count: whoever settles a write that was announced may give
/// one to what is there at any time. Contents have a checksum of their own, which names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) count: u64,
    pub(super) digest: [u32; 8],
}

/// The last segment of where an object is: `record`, `keepsake` or `journal`.
pub(super) fn kind_of(id: &str) -> &str {
    let parent = Object::parent(id);
    parent.rsplit(SEPARATOR).next().unwrap_or_default()
}

impl Tally {
    /// Of these objects, marks aside.
    pub(super) fn of<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Self {
        let mut tally = Self::default();
        for object in objects {
            if object.content.is_some() {
                tally.count += 1;
                tally.toggle(object);
            }
        }
        tally
    }

    fn toggle(&mut self, object: &Object) {
        let mut hash = Sha256::new();
        hash.update(object.id.as_bytes());
        for (word, bytes) in self.digest.iter_mut().zip(hash.finalize().chunks_exact(4)) {
            *word ^= bytes
                .iter()
                .fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
    }
}

impl Census {
    /// Of these objects, marks and the journal aside.
    pub(super) fn of<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Self {
        let mut census = Self::default();
        for object in objects {
            census.add(object);
        }
        census
    }

    /// What it says of one kind; `None` for those it does not count.
    pub(super) fn tally(&self, kind: &str) -> Option<Tally> {
        match kind {
            "record" => Some(self.records),
            "keepsake" => Some(self.keepsakes),
            _ => None,
        }
    }

    fn tally_mut(&mut self, object: &Object) -> Option<&mut Tally> {
        // A mark is not counted.
        object.content.as_ref()?;
        match kind_of(&object.id) {
            "record" => Some(&mut self.records),
            "keepsake" => Some(&mut self.keepsakes),
            _ => None,
        }
    }

    /// An object is there from now on.
    pub(super) fn add(&mut self, object: &Object) {
        if let Some(tally) = self.tally_mut(object) {
            tally.count += 1;
            tally.toggle(object);
        }
    }

    /// An object that was there is not any more. One that was never counted makes the census wrong,
    /// which the next list finds: it was put there behind our back.
    pub(super) fn remove(&mut self, object: &Object) {
        if let Some(tally) = self.tally_mut(object) {
            tally.count = tally.count.saturating_sub(1);
            tally.toggle(object);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(id: &str, version: &str, content: Option<&str>) -> Object {
        Object {
            id: id.to_owned(),
            version: version.to_owned(),
            content: content.map(str::to_owned),
        }
    }

    #[test]
    fn what_came_and_went_leaves_no_trace_and_what_stays_does() {
        let one = object("a!room!r!record!one", "v1", Some("x"));
        let two = object("a!room!r!record!two", "v2", Some("x"));
        let kept = object("a!room!r!keepsake!one", "v1", Some("x"));
        let mark = object("a!room!r!record!gone", "v3", None);
        let journal = object("a!room!r!journal!0", "v4", Some("x"));
        let mut census = Census::of([&one, &two, &kept, &mark, &journal]);
        let count = |census: &Census, kind| census.tally(kind).map(|tally| tally.count);
        assert_eq!(count(&census, "record"), Some(2));
        assert_eq!(count(&census, "keepsake"), Some(1));
        assert_eq!(count(&census, "journal"), None);
        assert_eq!(census.tally("record"), Some(Tally::of([&two, &mark, &one])));
        census.remove(&one);
        assert_eq!(census, Census::of([&kept, &two]));
        // Another name is another object; another version is none.
        let other = object("a!room!r!record!tow", "v2", Some("x"));
        assert_ne!(census, Census::of([&kept, &other]));
        let settled = object("a!room!r!record!two", "v9", Some("x"));
        assert_eq!(census, Census::of([&kept, &settled]));
        census.add(&one);
        census.remove(&two);
        census.remove(&one);
        census.remove(&kept);
        assert_eq!(census, Census::default());
    }
}
