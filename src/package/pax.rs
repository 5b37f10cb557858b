//! PAX records: what may stand before an entry of a tar archive. Python's `tarfile` writes them for
//! times with fractions, others for long paths. Only what another reader could ignore without
//! installing another file is taken.

/// Largest set of records.
const BYTES_MAX: usize = 64 * 1024;

/// What the records before an entry say of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extension {
    /// Its path, where the field of the header is too short. Not looked at yet.
    pub(super) path: Option<String>,
}

impl Extension {
    /// Reads `length key=value` lines.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        const NONE: &str = "its PAX records are not in form";
        if bytes.is_empty() || bytes.len() > BYTES_MAX {
            return Err("its PAX records are empty or too long");
        }
        let mut all = std::str::from_utf8(bytes).map_err(|_| NONE)?;
        let mut extension = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        while !all.is_empty() {
            let (digits, _) = all.split_once(' ').ok_or(NONE)?;
            let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            if !is_plain || digits.starts_with('0') {
                return Err(NONE);
            }
            let length: usize = digits.parse().map_err(|_| NONE)?;
            let (record, rest) = all.split_at_checked(length).ok_or(NONE)?;
            all = rest;
            let record = record.get(digits.len() + 1..).ok_or(NONE)?;
            let (key, value) = record
                .strip_suffix('\n')
                .and_then(|record| record.split_once('='))
                .ok_or(NONE)?;
            // An empty value takes a record back, which readers do not agree about.
            if value.is_empty() || value.contains('\0') || seen.contains(&key) {
                return Err("one of its PAX records is empty, or there twice");
            }
            seen.push(key);
            match key {
                "path" => extension.path = Some(value.to_owned()),
                "mtime" | "atime" | "ctime" if is_number(value) => {}
                "uid" | "gid" if is_number(value) => {}
                "uname" | "gname" => {}
                _ => return Err("it has a PAX record that is not accepted"),
            }
        }
        Ok(extension)
    }
}

/// `-12`, `1700000000.25`.
fn is_number(value: &str) -> bool {
    let value = value.strip_prefix('-').unwrap_or(value);
    let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole) && digits(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_owners_and_paths_are_taken_and_nothing_else() {
        let mtime = "28 mtime=1700000000.2512345\n";
        assert_eq!(mtime.len(), 28);
        assert_eq!(Extension::read(mtime.as_bytes()), Ok(Extension::default()));
        let path = format!("{mtime}13 path=a/bc\n");
        let path = Extension::read(path.as_bytes()).unwrap().path;
        assert_eq!(path.as_deref(), Some("a/bc"));
        for wrong in [
            "",
            "mtime=1\n",
            "10 size=12\n",
            "16 linkpath=a/b\n",
            "26 GNU.sparse.major=1\n",
            "11 mtime=x\n",
            "9 path=\n",
            "011 path=ab\n",
            "10 path=ab\n10 path=ab\n",
            "12 path=ab\n",
            "9 path=ab\n",
            "99 path=ab\n",
            "10 path=ab",
        ] {
            assert!(Extension::read(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
}
