//! From a pin to archives: asks a source what it has published for a version, and how it says each
//! archive can be recognised.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::download::{Credential, Fetcher};
use super::manifest::Wanted;
use super::name::{self, Source};
use crate::http::RedactedUrl;
use crate::report::{Exit, Report};

/// Largest number of assets looked at.
const ASSETS_MAX: usize = 1_000;

/// An archive as its source describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The platform it is for.
    pub platform: &'static str,
    /// Its file name.
    pub file: String,
    /// Where anybody finds it; what a lock holds.
    pub url: String,
    /// Where the API has it, for those with a token.
    pub asset_url: Option<String>,
    /// The digest its source published.
    pub sha256: String,
}

#[derive(Debug, Deserialize)]
struct Release {
    #[serde(default)]
    assets: Vec<Asset>,
}

#[derive(Debug, Deserialize)]
struct Latest {
    tag_name: String,
}

#[derive(Debug, Deserialize)]
struct Asset {
    id: u64,
    name: String,
    browser_download_url: String,
    #[serde(default)]
    digest: Option<String>,
}

/// Asks sources.
#[derive(Debug)]
pub struct Resolver<'a> {
    /// Fetches.
    pub fetcher: &'a Fetcher,
    /// Base of GitHub's API, without a final slash.
    pub api: &'a str,
}

impl Resolver<'_> {
    /// Every archive of the pinned version, with its published digest.
    pub async fn published(
        &self,
        plugin: &Wanted,
        credential: Option<&Credential>,
    ) -> Result<Vec<Published>, Report> {
        let source = plugin.source.as_ref().ok_or_else(|| {
            Report::error(
                "package/no-source",
                format!("`{}` has no `source`", plugin.name),
            )
            .at_maybe(plugin.at.clone())
            .fix("add `source: github.com/OWNER/REPO`, or the URL of a folder with `checksums.txt`")
            .exit(Exit::Usage)
        })?;
        let found = match source {
            Source::Github { owner, repository } => {
                self.github(plugin, owner, repository, credential).await?
            }
            Source::Folder(template) => self.folder(plugin, template, credential).await?,
        };
        one_a_platform(plugin, &source.to_string(), found)
    }

    async fn github(
        &self,
        plugin: &Wanted,
        owner: &str,
        repository: &str,
        credential: Option<&Credential>,
    ) -> Result<Vec<Published>, Report> {
        let release = self
            .release(owner, repository, &plugin.version, credential)
            .await?
            .ok_or_else(|| {
                let report = Report::error(
                    "package/no-release",
                    format!(
                        "github.com/{owner}/{repository} has no release `{}`",
                        plugin.version
                    ),
                )
                .at_maybe(plugin.at.clone())
                .exit(Exit::Usage);
                match credential {
                    None => report.fix("check the version; if the repository is private, set `RELEASES_TOKEN`, or name a variable in `auth.env`"),
                    Some(_) => report.fix("check the version, and that the token may read this repository"),
                }
            })?;
        let sums = release
            .assets
            .iter()
            .find(|asset| asset.name == "checksums.txt")
            .or_else(|| release.assets.iter().find(|asset| is_sums(&asset.name)));
        let sums = match sums {
            None => None,
            Some(asset) => {
                let url = self.asset_address(owner, repository, asset, credential)?;
                let bytes = self
                    .fetcher
                    .small(&url, "application/octet-stream", credential)
                    .await?
                    .ok_or_else(|| missing_sums(plugin))?;
                Some(read_sums(&bytes).map_err(|why| bad_sums(plugin, &why))?)
            }
        };
        let mut published = Vec::new();
        for asset in release.assets.iter().take(ASSETS_MAX) {
            let Some(platform) = name::platform_of(&asset.name) else {
                continue;
            };
            let listed = sums
                .as_ref()
                .and_then(|sums| sums.get(&asset.name))
                .cloned();
            let api = asset
                .digest
                .as_deref()
                .and_then(|digest| digest.strip_prefix("sha256:"))
                .filter(|digest| name::is_digest(digest))
                .map(str::to_ascii_lowercase);
            let sha256 = match (listed, api) {
                (Some(listed), Some(api)) if listed != api => {
                    return Err(Report::error(
                        "package/digest-mismatch",
                        format!(
                            "the release does not agree with itself about `{}`",
                            asset.name
                        ),
                    )
                    .because(format!("checksums.txt: sha256 {listed}"))
                    .because(format!("GitHub:        sha256 {api}"))
                    .fix("do not work around this: somebody replaced a file of the release"));
                }
                (Some(digest), _) => digest,
                // A release with a list that leaves this archive out did not check it.
                (None, Some(digest)) if sums.is_none() => digest,
                _ => return Err(no_digest(plugin, &asset.name)),
            };
            check_published_url(plugin, &asset.browser_download_url)?;
            published.push(Published {
                platform,
                file: asset.name.clone(),
                url: asset.browser_download_url.clone(),
                asset_url: credential
                    .is_some()
                    .then(|| self.asset_url(owner, repository, asset)),
                sha256,
            });
        }
        Ok(published)
    }

    /// The version of the newest release that is neither a draft nor a preview.
    pub async fn newest(
        &self,
        plugin: &Wanted,
        credential: Option<&Credential>,
    ) -> Result<String, Report> {
        let Some(Source::Github { owner, repository }) = &plugin.source else {
            return Err(Report::error(
                "package/no-newest",
                format!(
                    "the source of `{}` does not say which version is the newest",
                    plugin.name
                ),
            )
            .at_maybe(plugin.at.clone())
            .fix(format!(
                "name it: `tidegate plugin update {}@VERSION`",
                plugin.name
            ))
            .exit(Exit::Usage));
        };
        let url = self.url(&format!(
            "{}/repos/{owner}/{repository}/releases/latest",
            self.api
        ))?;
        let answer = self
            .fetcher
            .small(&url, "application/vnd.github+json", credential)
            .await?;
        let tag = answer
            .as_deref()
            .and_then(|bytes| serde_json::from_slice::<Latest>(bytes).ok())
            .map(|latest| latest.tag_name)
            .filter(|tag| name::is_exact_version(tag));
        tag.ok_or_else(|| {
            Report::error(
                "package/no-release",
                format!(
                    "github.com/{owner}/{repository} has no newest release with an exact version"
                ),
            )
            .at_maybe(plugin.at.clone())
            .fix(format!(
                "name it: `tidegate plugin update {}@VERSION`",
                plugin.name
            ))
            .exit(Exit::Usage)
        })
    }

    /// The API's address of the asset a locked URL names; `None` when the release no longer has it.
    pub async fn asset_of(
        &self,
        owner: &str,
        repository: &str,
        version: &str,
        url: &str,
        credential: &Credential,
    ) -> Result<Option<String>, Report> {
        let release = self
            .release(owner, repository, version, Some(credential))
            .await?;
        Ok(release.and_then(|release| {
            let asset = release
                .assets
                .iter()
                .find(|asset| asset.browser_download_url == url)
                .or_else(|| {
                    let file = url.rsplit('/').next()?;
                    release.assets.iter().find(|asset| asset.name == file)
                })?;
            Some(self.asset_url(owner, repository, asset))
        }))
    }

    async fn release(
        &self,
        owner: &str,
        repository: &str,
        version: &str,
        credential: Option<&Credential>,
    ) -> Result<Option<Release>, Report> {
        // People pin `1.4.2` and tag `v1.4.2`, or the other way round.
        let other = match version.strip_prefix('v') {
            Some(bare) => bare.to_owned(),
            None => format!("v{version}"),
        };
        for tag in [version, &other] {
            // All that an exact version may hold and a path may not.
            let tag = tag.replace('+', "%2B");
            let url = self.url(&format!(
                "{}/repos/{owner}/{repository}/releases/tags/{tag}",
                self.api
            ))?;
            let answer = self
                .fetcher
                .small(&url, "application/vnd.github+json", credential)
                .await?;
            if let Some(bytes) = answer {
                return serde_json::from_slice(&bytes).map(Some).map_err(|error| {
                    Report::error(
                        "package/bad-answer",
                        format!("{url} did not answer with a release"),
                    )
                    .because(error.to_string())
                });
            }
        }
        Ok(None)
    }

    fn asset_url(&self, owner: &str, repository: &str, asset: &Asset) -> String {
        format!(
            "{}/repos/{owner}/{repository}/releases/assets/{}",
            self.api, asset.id
        )
    }

    fn asset_address(
        &self,
        owner: &str,
        repository: &str,
        asset: &Asset,
        credential: Option<&Credential>,
    ) -> Result<RedactedUrl, Report> {
        match credential {
            Some(_) => self.url(&self.asset_url(owner, repository, asset)),
            None => self.url(&asset.browser_download_url),
        }
    }

    fn url(&self, text: &str) -> Result<RedactedUrl, Report> {
        RedactedUrl::parse(text).map_err(|problem| {
            Report::error(
                "package/bad-answer",
                "the source names an address nobody can ask",
            )
            .because(problem.to_string())
        })
    }

    async fn folder(
        &self,
        plugin: &Wanted,
        template: &str,
        credential: Option<&Credential>,
    ) -> Result<Vec<Published>, Report> {
        let folder = template.replace("{version}", &plugin.version);
        let url = self.url(&format!("{folder}/checksums.txt"))?;
        let bytes = self
            .fetcher
            .small(&url, "*/*", credential)
            .await?
            .ok_or_else(|| missing_sums(plugin))?;
        let sums = read_sums(&bytes).map_err(|why| bad_sums(plugin, &why))?;
        let mut published = Vec::new();
        for (file, sha256) in sums {
            let Some(platform) = name::platform_of(&file) else {
                continue;
            };
            published.push(Published {
                platform,
                url: format!("{folder}/{file}"),
                file,
                asset_url: None,
                sha256,
            });
        }
        Ok(published)
    }
}

/// One archive for each platform, or a problem. `source` is what people know the place as.
pub fn one_a_platform(
    plugin: &Wanted,
    source: &str,
    found: Vec<Published>,
) -> Result<Vec<Published>, Report> {
    let mut by_platform: BTreeMap<&str, Published> = BTreeMap::new();
    for one in found {
        if let Some(other) = by_platform.get(one.platform) {
            return Err(Report::error(
                "package/ambiguous-asset",
                format!(
                    "`{}` {} has two archives for {}: `{}` and `{}`",
                    plugin.name, plugin.version, one.platform, other.file, one.file
                ),
            )
            .fix("ask its author to publish one archive for each platform"));
        }
        by_platform.insert(one.platform, one);
    }
    if by_platform.is_empty() {
        return Err(Report::error(
                "package/no-archives",
                format!(
                    "{source} has published no archive for `{}` {}",
                    plugin.name, plugin.version
                ),
            )
            .because("looked for `.tar.gz` files with a system (`linux`, `darwin`, `windows`) and a processor (`amd64`, `arm64`) in their names")
            .at_maybe(plugin.at.clone()));
    }
    Ok(by_platform.into_values().collect())
}

fn is_sums(file: &str) -> bool {
    file.ends_with("checksums.txt") || file.eq_ignore_ascii_case("sha256sums")
}

/// `<digest>  <file>` a line, as `sha256sum` writes it.
fn read_sums(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let mut sums = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = || format!("line {} is not `<sha256>  <file>`", number + 1);
        let (digest, file) = line.split_once([' ', '\t']).ok_or_else(wrong)?;
        let file = file.trim_start();
        let file = file.strip_prefix('*').unwrap_or(file);
        let is_plain = !file.is_empty()
            && !file.starts_with('.')
            && file
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-+~".contains(&byte));
        if !name::is_digest(digest) || !is_plain {
            return Err(wrong());
        }
        let before = sums.insert(file.to_owned(), digest.to_ascii_lowercase());
        if before.is_some_and(|before| !before.eq_ignore_ascii_case(digest)) {
            return Err(format!("it lists `{file}` twice, with two digests"));
        }
    }
    Ok(sums)
}

fn check_published_url(plugin: &Wanted, url: &str) -> Result<(), Report> {
    RedactedUrl::parse(url)
        .map_err(|problem| problem.to_string())
        .and_then(|url| name::check_url(&url))
        .map_err(|why| {
            Report::error(
                "package/bad-answer",
                format!(
                    "the release of `{}` names an address that cannot be used",
                    plugin.name
                ),
            )
            .because(why)
        })
}

fn missing_sums(plugin: &Wanted) -> Report {
    Report::error(
        "package/no-checksums",
        format!(
            "the source of `{}` {} has no `checksums.txt`",
            plugin.name, plugin.version
        ),
    )
    .at_maybe(plugin.at.clone())
    .fix("check version and source; if it is right, ask its author to publish digests: what cannot be verified is not locked")
}

fn no_digest(plugin: &Wanted, file: &str) -> Report {
    Report::error(
        "package/no-checksums",
        format!(
            "`{}` {} publishes no digest for `{file}`",
            plugin.name, plugin.version
        ),
    )
    .at_maybe(plugin.at.clone())
    .fix("ask its author to list every archive in `checksums.txt`: what cannot be verified is not locked")
}

fn bad_sums(plugin: &Wanted, why: &str) -> Report {
    Report::error(
        "package/no-checksums",
        format!(
            "the checksums of `{}` {} cannot be read: {why}",
            plugin.name, plugin.version
        ),
    )
    .at_maybe(plugin.at.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_digests() {
        let digest = "ab".repeat(32);
        let sums = read_sums(
            format!("# sums\n{digest}  a_linux_amd64.tar.gz\n\n{digest} *b.zip\r\n").as_bytes(),
        )
        .unwrap();
        assert_eq!(sums.len(), 2);
        for text in [
            "x".to_owned(),
            digest.clone(),
            format!("{digest}  ../a"),
            format!("{digest}  a/b"),
            format!("{digest}  a\n{}  a", "cd".repeat(32)),
            "zz  a".to_owned(),
        ] {
            assert!(read_sums(text.as_bytes()).is_err(), "{text}");
        }
        assert!(read_sums(b"\xff").is_err());
    }
}
