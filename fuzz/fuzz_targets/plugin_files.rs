//! Any text in place of a plugin manifest, a lockfile, a registry file or a `plugin.json`, and any
//! entry added to one: refused, or read whole; and an edit changes what was asked for, nothing else.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tidegate::package::descriptor::Descriptor;
use tidegate::package::edit::{self, NewEntry};
use tidegate::package::lockfile::{Lock, older_digests};
use tidegate::package::manifest::Manifest;
use tidegate::package::{name, registry};

fn keys(text: &str) -> Option<Vec<(String, String)>> {
    let manifest = Manifest::parse(Path::new("wfctl.yaml"), text).ok()?;
    let plugins = manifest.plugins.into_iter();
    Some(
        plugins
            .map(|plugin| (plugin.name, plugin.version))
            .collect(),
    )
}

fuzz_target!(|input: (&str, &str, &str, Option<&str>)| {
    let (text, new, version, source) = input;
    let path = Path::new("wfctl.yaml");
    drop(Descriptor::parse(text.as_bytes()));
    drop(registry::parse(path, text));
    drop(older_digests(path, text));
    drop(name::Source::parse(text));
    if let Ok(lock) = Lock::parse(path, text) {
        let written = lock.to_yaml();
        let again = Lock::parse(path, &written).unwrap();
        assert!(again.is_same(&lock), "{written}");
        assert_eq!(again.to_yaml(), written);
    }
    let Some(before) = keys(text) else {
        return;
    };
    let entry = NewEntry {
        name: new.to_owned(),
        version: version.to_owned(),
        source: source.map(str::to_owned),
        ..NewEntry::default()
    };
    if let Ok(edited) = edit::add(path, text, &entry) {
        let mut wanted = before.clone();
        wanted.push((new.to_owned(), version.to_owned()));
        assert_eq!(keys(&edited), Some(wanted), "{edited}");
    }
    for (plugin, _) in &before {
        if let Ok(edited) = edit::remove(path, text, plugin) {
            let mut wanted = before.clone();
            wanted.retain(|(name, _)| name != plugin);
            assert_eq!(keys(&edited), Some(wanted), "{edited}");
        }
        if let Ok(edited) = edit::set_version(path, text, plugin, version) {
            let mut wanted = before.clone();
            for (name, there) in &mut wanted {
                if name == plugin {
                    version.clone_into(there);
                }
            }
            assert_eq!(keys(&edited), Some(wanted), "{edited}");
        }
    }
});
