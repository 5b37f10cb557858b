//! From ids to keys, and no two ids to one key. Pure.
//!
//! `<prefix><id>.json`, as existing backends have it, for ids of plain characters. Those replace
//! slashes by `_`, so that `a/b` and `a_b` share an object; here everything else is escaped. The
//! separator of a host's own ids becomes a slash, so that one environment can be listed alone.

use object_store::path::Path;
use tidegate_plugin::{Error, Result};

/// Prefix when the config names none.
pub(crate) const DEFAULT_PREFIX: &str = "iac-state/";
/// Parts the segments of ids that hosts make up for objects of their own.
const SEPARATOR: char = '!';
const RECORD: &str = ".json";
const LOCK: &str = ".lock";

/// Where everything is.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    prefix: String,
}

impl Layout {
    /// The prefix is used as it is: who wants a folder writes the slash.
    pub(crate) fn new(prefix: &str) -> Result<Self> {
        let prefix = prefix.strip_prefix('/').unwrap_or(prefix).to_owned();
        let whole = format!("{prefix}x");
        Path::parse(&whole)
            .map_err(|error| Error::invalid(format!("the prefix cannot be used: {error}")))?;
        Ok(Self { prefix })
    }

    fn path(&self, id: &str, suffix: &str) -> Result<Path> {
        Path::parse(format!("{}{}{suffix}", self.prefix, escape(id)))
            .map_err(|error| Error::invalid(format!("the id {id:?} cannot be used: {error}")))
    }

    /// The key of a record.
    pub(crate) fn record(&self, id: &str) -> Result<Path> {
        self.path(id, RECORD)
    }

    /// The key of a lock.
    pub(crate) fn lock(&self, id: &str) -> Result<Path> {
        self.path(id, LOCK)
    }

    /// The deepest folder that holds every record whose id begins with `start`.
    pub(crate) fn folder(&self, start: &str) -> Option<Path> {
        let whole = format!("{}{}", self.prefix, escape(start));
        let (folder, _) = whole.rsplit_once('/')?;
        Path::parse(folder)
            .ok()
            .filter(|path| !path.as_ref().is_empty())
    }

    /// The id whose record has this key; `None` for keys that no id has.
    pub(crate) fn id(&self, path: &Path) -> Option<String> {
        let rest = path.as_ref().strip_prefix(&self.prefix)?;
        let id = unescape(rest.strip_suffix(RECORD)?)?;
        (self.record(&id).ok()? == *path).then_some(id)
    }

    /// Whether a key that was listed is one of our records'.
    pub(crate) fn is_record(&self, path: &Path) -> bool {
        path.as_ref().starts_with(&self.prefix) && path.as_ref().ends_with(RECORD)
    }
}

/// An id without its last segment.
pub(crate) fn parent(id: &str) -> &str {
    id.rsplit_once(SEPARATOR).map_or("", |(parent, _)| parent)
}

fn unescape(key: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'/' => SEPARATOR as u8,
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn escape(id: &str) -> String {
    let mut out = String::with_capacity(id.len());
    // `.` and `..` are no names, and an empty segment would vanish.
    for (index, segment) in id.split(SEPARATOR).enumerate() {
        if index > 0 {
            out.push('/');
        }
        let is_dots = !segment.is_empty() && segment.bytes().all(|byte| byte == b'.');
        for byte in segment.bytes() {
            match byte {
                b'.' if is_dots => out.push_str("%2E"),
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    out.push(char::from(byte));
                }
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn plain_ids_have_the_keys_that_existing_backends_give_them() {
        let layout = Layout::new(DEFAULT_PREFIX).unwrap();
        assert_eq!(
            layout.record("orders-db").unwrap().as_ref(),
            "iac-state/orders-db.json"
        );
        assert_eq!(
            layout.lock("orders-db").unwrap().as_ref(),
            "iac-state/orders-db.lock"
        );
        let bare = Layout::new("team-").unwrap();
        assert_eq!(bare.record("a").unwrap().as_ref(), "team-a.json");
        assert_eq!(bare.folder(""), None);
    }

    #[test]
    fn no_two_ids_share_a_key() {
        let layout = Layout::new(DEFAULT_PREFIX).unwrap();
        let ids = [
            "a/b", "a_b", "a\\b", "a%2Fb", "A", "a", ".", "..", "a b", "größe", "a!b", "a.json",
            "a\0b",
        ];
        let keys: BTreeSet<String> = ids
            .iter()
            .map(|id| layout.record(id).unwrap().to_string())
            .collect();
        assert_eq!(keys.len(), ids.len(), "{keys:?}");
        for id in ids {
            let key = layout.record(id).unwrap();
            assert_eq!(layout.id(&key).as_deref(), Some(id), "{key}");
        }
        for stranger in ["iac-state/a b.json", "iac-state/a.lock", "else/a.json"] {
            assert_eq!(layout.id(&Path::from(stranger)), None, "{stranger}");
        }
    }

    #[test]
    fn one_environment_is_a_folder_of_its_own() {
        let layout = Layout::new(DEFAULT_PREFIX).unwrap();
        let folder = layout.folder("tidegate!shop!room!dev!").unwrap();
        assert_eq!(folder.as_ref(), "iac-state/tidegate/shop/room/dev");
        let inside = layout.record("tidegate!shop!room!dev!x").unwrap();
        let beside = layout.record("tidegate!shop!room!dev2!x").unwrap();
        assert!(inside.prefix_match(&folder).is_some() && layout.is_record(&inside));
        assert!(beside.prefix_match(&folder).is_none());
    }
}
