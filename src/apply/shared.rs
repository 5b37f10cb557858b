//! Destinations that more than one environment of a state writes to. Each environment remembers
//! what it wrote; here they are asked, so that one neither takes away nor silently replaces what
//! another one relies on.

use std::collections::BTreeMap;

use super::Engine;
use crate::report::{Event, Report};
use crate::sink::{Sink, Standing};
use crate::state::{Keepsake, StoreResult};

/// What the other environments of this state wrote to sinks.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// Environment and time of the write, by the key of the keepsake.
    by_key: BTreeMap<String, Vec<(String, String)>>,
    /// Why they could not be asked.
    unknown: Option<String>,
}

impl Others {
    /// Asks every other environment of the state.
    pub(super) async fn ask(engine: &Engine<'_>) -> Self {
        let mut others = Self::default();
        if let Err(error) = others.collect(engine).await {
            others.unknown = Some(error.to_string());
        }
        others
    }

    async fn collect(&mut self, engine: &Engine<'_>) -> StoreResult<()> {
        for environment in engine.store.environments().await? {
            if environment == engine.store.environment() {
                continue;
            }
            let Some(store) = engine.store.beside(&environment)? else {
                continue;
            };
            for key in store.keepsakes().await? {
                if key.starts_with("sink/")
                    && let Some(keepsake) = store.keepsake(&key).await?
                {
                    self.by_key
                        .entry(key)
                        .or_default()
                        .push((environment.clone(), keepsake.written_at));
                }
            }
        }
        Ok(())
    }

    /// The environments that wrote there too.
    pub(super) fn of(&self, key: &str) -> Vec<&str> {
        self.by_key.get(key).map_or_else(Vec::new, |writers| {
            writers.iter().map(|(name, _)| name.as_str()).collect()
        })
    }

    /// Whether one of them wrote there after we did.
    pub(super) fn wrote_since(&self, key: &str, ours: &Keepsake) -> bool {
        self.by_key
            .get(key)
            .is_some_and(|writers| writers.iter().any(|(_, at)| *at >= ours.written_at))
    }
}

/// What to do about a value that this environment is to take back.
pub(super) enum Claim {
    /// It may go.
    Ours,
    /// It stays; a sentence.
    Stays(String),
    /// Nobody can tell; a sentence.
    Unclear(String),
}

/// Whether what stands at a destination is this environment's to take away.
pub(super) async fn claim(
    engine: &Engine<'_>,
    others: &Others,
    target: &dyn Sink,
    name: &str,
    key: &str,
) -> Claim {
    let written = match engine.store.keepsake(key).await {
        Ok(written) => written,
        Err(error) => return Claim::Unclear(error.to_string()),
    };
    let is_ours = |value: &str| {
        written
            .as_ref()
            .is_some_and(|written| written.fingerprint == engine.keyring.fingerprint_text(value))
    };
    let environments = others.of(key);
    match target.standing(name, &is_ours).await {
        Err(error) => Claim::Unclear(error.to_string()),
        Ok(Standing::Ours | Standing::Nothing) => Claim::Ours,
        Ok(Standing::Foreign) if environments.is_empty() => Claim::Stays(
            "its value was changed since this environment wrote it, so it stays".to_owned(),
        ),
        Ok(Standing::Foreign) => Claim::Stays(format!(
            "its value is not this environment's any more, so it stays; it is also written by {}",
            listed(&environments)
        )),
        Ok(Standing::Untold) => match &others.unknown {
            Some(why) => Claim::Unclear(format!(
                "it stays, because it cannot be looked up whether another environment relies on \
                 it: {why}"
            )),
            None if environments.is_empty() => Claim::Ours,
            None => Claim::Stays(format!(
                "it is also written by {}, so it stays",
                listed(&environments)
            )),
        },
    }
}

fn listed(environments: &[&str]) -> String {
    let names: Vec<String> = environments
        .iter()
        .map(|name| format!("`{name}`"))
        .collect();
    let noun = if names.len() == 1 {
        "environment"
    } else {
        "environments"
    };
    format!("{noun} {}", names.join(", "))
}

/// What a run found out about shared places, said once for each destination.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    shared: BTreeMap<String, (Vec<String>, Vec<String>)>,
    replaced: BTreeMap<String, Vec<String>>,
    put_back: BTreeMap<String, Vec<String>>,
}

impl Sharing {
    /// `environments` write this name there, too.
    pub(super) fn shares(&mut self, destination: &str, name: &str, environments: &[&str]) {
        let (names, writers) = self.shared.entry(destination.to_owned()).or_default();
        names.push(name.to_owned());
        for environment in environments {
            if !writers.iter().any(|known| known == environment) {
                writers.push((*environment).to_owned());
            }
        }
    }

    /// A value that nobody we know of wrote was replaced.
    pub(super) fn replaces(&mut self, destination: &str, name: &str) {
        self.replaced
            .entry(destination.to_owned())
            .or_default()
            .push(name.to_owned());
    }

    /// A value that an earlier run wrote was gone, and is there again.
    pub(super) fn puts_back(&mut self, destination: &str, name: &str) {
        self.put_back
            .entry(destination.to_owned())
            .or_default()
            .push(name.to_owned());
    }

    /// Says all of it.
    pub(super) fn say(self, engine: &Engine<'_>) {
        for (destination, (names, writers)) in self.shared {
            let writers: Vec<&str> = writers.iter().map(String::as_str).collect();
            let report = Report::warning(
                "sink/shared",
                format!(
                    "{destination} is shared: {} {} written by {}, too",
                    quoted(&names),
                    is_or_are(&names),
                    listed(&writers)
                ),
            )
            .because("whichever environment was applied last wins, and the others use its values")
            .fix(own_place(&destination));
            engine.reporter.say(Event::Problem(Box::new(report)));
        }
        for (destination, names) in self.replaced {
            let report = Report::warning(
                "sink/replaced",
                format!(
                    "{destination} held {} with a value that this environment did not write; it was replaced",
                    quoted(&names)
                ),
            )
            .fix("if somebody else needs the old value, give this sink another `name` or place");
            engine.reporter.say(Event::Problem(Box::new(report)));
        }
        for (destination, names) in self.put_back {
            let report = Report::warning(
                "sink/gone",
                format!(
                    "{destination} had lost {}, which an earlier run wrote; it was written again",
                    quoted(&names)
                ),
            )
            .fix("if it was meant to be gone, take the sink out of the config");
            engine.reporter.say(Event::Problem(Box::new(report)));
        }
    }
}

fn is_or_are(names: &[String]) -> &'static str {
    if names.len() == 1 { "is" } else { "are" }
}

fn quoted(names: &[String]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn own_place(destination: &str) -> &'static str {
    if destination.starts_with("github_secret") {
        "give each environment its own: `environment: ${WORKFLOW_ENV}` in the sink (a GitHub environment), or a `name` for each"
    } else {
        "give each environment its own file, such as `path: .env.${WORKFLOW_ENV}`"
    }
}
