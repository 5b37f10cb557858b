//! Names, exact versions, platforms and sources: the nouns of a manifest.

use std::fmt;

use crate::http::RedactedUrl;

/// What upstream packages are called before their short name.
const LONG_PREFIX: &str = "workflow-plugin-";

/// Longest name; it becomes a folder and a file.
const NAME_BYTES_MAX: usize = 64;

/// The platforms a lock may pin, in the order they are shown.
pub const PLATFORMS: [&str; 5] = [
    "linux-amd64",
    "linux-arm64",
    "darwin-amd64",
    "darwin-arm64",
    "windows-amd64",
];

/// The platform this executable was built for, as a lock names it.
pub fn this_platform() -> String {
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{os}-{arch}")
}

/// True for the name of a plugin: a lower-case letter, then letters, digits and hyphens, not
/// ending in a hyphen.
pub fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    text.len() <= NAME_BYTES_MAX
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last().is_some_and(|last| *last != b'-')
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}

/// The folder a plugin is installed in, and the name of its executable: the name without a leading
/// `workflow-plugin-`.
pub fn folder(name: &str) -> &str {
    match name.strip_prefix(LONG_PREFIX) {
        Some(short) if is_name(short) => short,
        _ => name,
    }
}

/// Every name a plugin's executable may have inside its archive, without a platform suffix.
pub fn binary_names(name: &str) -> [String; 2] {
    let short = folder(name);
    [short.to_owned(), format!("{LONG_PREFIX}{short}")]
}

/// True for an exact version: `v1.4.2`, `1.4.2-rc.1`; never a range, a branch or `latest`.
pub fn is_exact_version(text: &str) -> bool {
    let text = text.strip_prefix('v').unwrap_or(text);
    let (core, rest) = match text.find(['-', '+']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let parts: Vec<&str> = core.split('.').collect();
    let is_number =
        |part: &&str| (1..=9).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let is_label = |rest: &str| {
        !rest.is_empty()
            && rest.len() <= 64
            && rest
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+'))
    };
    parts.len() == 3 && parts.iter().all(is_number) && rest.is_none_or(is_label)
}

/// The three numbers of `1.4.2` or `v1.4.2`; a label behind them is left out.
pub fn version_numbers(text: &str) -> Option<[u32; 3]> {
    let text = text.trim().trim_start_matches('v');
    let core = text.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse().ok());
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

/// Where a plugin's releases are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Releases of a repository on GitHub.
    Github {
        /// Its owner.
        owner: String,
        /// Its name.
        repository: String,
    },
    /// A web folder that holds `checksums.txt` and the archives it lists. `{version}` in it stands
    /// for the version.
    Folder(String),
}

impl Source {
    /// Reads `github.com/owner/repo` or a URL. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix("https://").unwrap_or(text);
        if let Some(path) = bare.strip_prefix("github.com/") {
            let path = path.trim_end_matches('/');
            let path = path.strip_suffix(".git").unwrap_or(path);
            return match path.split_once('/') {
                Some((owner, repository)) if is_slug(owner) && is_slug(repository) => {
                    Ok(Self::Github {
                        owner: owner.to_owned(),
                        repository: repository.to_owned(),
                    })
                }
                _ => Err("a GitHub source is `github.com/owner/repo`".to_owned()),
            };
        }
        let url = RedactedUrl::parse(text).map_err(|problem| {
            format!("it is neither `github.com/owner/repo` nor a usable URL: {problem}")
        })?;
        check_url(&url)?;
        Ok(Self::Folder(text.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Github { owner, repository } => write!(f, "github.com/{owner}/{repository}"),
            Self::Folder(url) => f.write_str(url),
        }
    }
}

/// A URL that may stand in a committed file and be fetched: encrypted (or on this machine), without
/// user, password or query.
pub fn check_url(url: &RedactedUrl) -> Result<(), String> {
    if !url.is_encrypted() && !url.is_loopback() {
        return Err("plain `http` is allowed on loopback only; use `https`".to_owned());
    }
    if url.has_credentials() {
        return Err(
            "it holds a user or password; name a variable in `auth.env` instead".to_owned(),
        );
    }
    if url.has_query() {
        return Err("it has a query, which may be a credential".to_owned());
    }
    Ok(())
}

/// What GitHub allows in an owner's or a repository's name.
fn is_slug(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text != "."
        && text != ".."
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// The platform an archive is for, from the words of its file name; `None` when it names none, or
/// more than one.
pub fn platform_of(file: &str) -> Option<&'static str> {
    let stem = file
        .strip_suffix(".tar.gz")
        .or_else(|| file.strip_suffix(".tgz"))?
        .to_ascii_lowercase()
        .replace("x86_64", "amd64");
    let words: Vec<&str> = stem.split(['-', '_', '.']).collect();
    let one = |choices: &[(&str, &'static str)]| {
        let mut found: Vec<&'static str> = choices
            .iter()
            .filter(|(word, _)| words.contains(word))
            .map(|(_, meaning)| *meaning)
            .collect();
        found.dedup();
        match found.as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    };
    let os = one(&[
        ("linux", "linux"),
        ("darwin", "darwin"),
        ("macos", "darwin"),
        ("windows", "windows"),
    ])?;
    let arch = one(&[("amd64", "amd64"), ("arm64", "arm64"), ("aarch64", "arm64")])?;
    PLATFORMS
        .into_iter()
        .find(|platform| *platform == format!("{os}-{arch}"))
}

/// True for 64 hexadecimal digits.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_folders() {
        for (name, expected) in [
            ("a", true),
            ("digitalocean", true),
            ("workflow-plugin-aws", true),
            ("", false),
            ("-a", false),
            ("a-", false),
            ("A", false),
            ("a/b", false),
            ("..", false),
        ] {
            assert_eq!(is_name(name), expected, "{name}");
        }
        assert_eq!(folder("workflow-plugin-aws"), "aws");
        assert_eq!(folder("aws"), "aws");
        assert_eq!(folder("workflow-plugin-"), "workflow-plugin-");
    }

    #[test]
    fn only_exact_versions_pin() {
        for text in ["v1.4.2", "1.4.2", "0.0.1-rc.1", "1.0.0+build.5"] {
            assert!(is_exact_version(text), "{text}");
        }
        for text in [
            "",
            "latest",
            "^1.2.3",
            "~1.2.3",
            ">=1.0.0",
            "1.2",
            "v1",
            "1.2.x",
            "1.2.3 ",
            "main",
            "1.2.3-",
            "vv1.2.3",
            "1.2.3/../4",
        ] {
            assert!(!is_exact_version(text), "{text}");
        }
        assert_eq!(version_numbers("v1.20.3-rc.1"), Some([1, 20, 3]));
        assert_eq!(version_numbers("1.2"), None);
    }

    #[test]
    fn sources() {
        assert_eq!(
            Source::parse("github.com/acme/wf-do").map(|source| source.to_string()),
            Ok("github.com/acme/wf-do".to_owned())
        );
        assert_eq!(
            Source::parse("https://github.com/acme/wf-do.git"),
            Source::parse("github.com/acme/wf-do")
        );
        assert!(Source::parse("https://example.net/p/{version}/").is_ok());
        assert!(Source::parse("http://127.0.0.1:9/p").is_ok());
        for text in [
            "github.com/acme",
            "github.com/acme/../x",
            "github.com/a/b/c",
            "http://example.net/p",
            "https://u:p@example.net/p",
            "https://example.net/p?token=x",
            "ftp://example.net",
            "acme/wf-do",
        ] {
            assert!(Source::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn platforms_by_file_name() {
        for (file, expected) in [
            ("wf-do_linux_amd64.tar.gz", Some("linux-amd64")),
            ("wf-do_1.2.3_Darwin_arm64.tar.gz", Some("darwin-arm64")),
            ("x-linux-x86_64.tgz", Some("linux-amd64")),
            ("x-macos-aarch64.tar.gz", Some("darwin-arm64")),
            ("x-linux-darwin-amd64.tar.gz", None),
            ("x-linux-386.tar.gz", None),
            ("x-linux-amd64.zip", None),
            ("source.tar.gz", None),
        ] {
            assert_eq!(platform_of(file), expected, "{file}");
        }
    }
}
