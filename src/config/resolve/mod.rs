//! One document for one environment: modules chosen, overrides laid over, names mapped, variables
//! filled in, references checked.

mod cycles;
pub(super) mod gates;
mod keys;
mod modules;
mod names;
mod outputs;
mod resources;
pub(super) mod secrets;
pub(super) mod sensitive;
mod sinks;
mod sizes;
mod values;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use names::Names;

pub(super) use modules::OWN_TYPES;

use super::Needs;
use super::decode::printable;
use super::files::Merged;
use super::keys::{OutputRules, Rules};
use super::problems::Problems;
use super::resolved::Config;
use super::source::Mark;
use crate::report::{Exit, Report};
use crate::resource::Address;
use crate::secret::{Masker, Secret};
use crate::variables::Variables;

/// The environment's name when none was asked for.
pub const DEFAULT_ENVIRONMENT: &str = "default";

/// What is needed to resolve, and what was learnt on the way.
struct Resolver<'a> {
    merged: &'a Merged,
    environment: Option<&'a str>,
    variables: &'a Variables,
    masker: &'a Masker,
    problems: &'a mut Problems,
    names: Names,
    /// Names of declared secrets.
    declared: HashSet<String>,
    /// Variables that are already secrets.
    admitted: HashMap<String, Secret>,
    /// Variables used where nothing promises a secret, and the text each became part of.
    in_plain_sight: Vec<(String, String)>,
    /// Variables asked for, set or not.
    used: BTreeSet<String>,
    /// References met in the resource in hand.
    links: Vec<(Address, Mark)>,
    /// Outputs that something refers to, and where.
    named_outputs: Vec<(Address, String, Mark)>,
    /// The first `$NAME` kept as it is, and how many there are.
    bare: Option<Bare>,
    /// Destinations of sinks, and where each was first named.
    destinations: BTreeMap<String, Mark>,
    /// What the config is read for.
    needs: Needs,
    /// A variable that is not set may stay where a value is read: nobody may ask for it.
    keeps_unset: bool,
    /// What is wrong with a name of a provider that is none: found once, for all that name it.
    no_providers: HashMap<String, Report>,
}

/// A `$` that looks like a variable and is none.
struct Bare {
    at: Mark,
    /// The text, or, where that may be a secret, the place of the text.
    what: String,
    /// What to write between braces.
    name: String,
    count: usize,
}

/// Every environment a config knows, sorted.
pub(super) fn environments(merged: &Merged) -> Vec<String> {
    let mut names: Vec<String> = merged
        .environments
        .iter()
        .map(|(name, _)| name.value.clone())
        .chain(
            merged
                .modules
                .iter()
                .filter_map(|module| module.environments.as_ref())
                .flat_map(|table| table.iter().map(|(name, _)| name.value.clone())),
        )
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What is wrong with an environment that nobody declares.
pub(super) fn unknown_environment(
    merged: &Merged,
    environment: &str,
    problems: &Problems,
) -> Option<Report> {
    let known = environments(merged);
    if known.iter().any(|name| name == environment) {
        return None;
    }
    // What a config without environments is called everywhere: some commands insist on a name.
    if known.is_empty() && environment == DEFAULT_ENVIRONMENT {
        return None;
    }
    let mut report = Report::error(
        "config/unknown-environment",
        format!("there is no environment `{}`", printable(environment)),
    );
    let near = problems.nearest(environment, known.iter().map(String::as_str));
    if let Some(near) = near {
        report = report.fix(format!("did you mean `{near}`?"));
    }
    report = if known.is_empty() {
        report
            .because("this config declares no environments")
            .fix("leave out `--env`, or declare it under `environments:`")
    } else {
        report.fix(format!("known environments: {}", known.join(", ")))
    };
    if near.is_none() {
        report = report.fix(
            "of one that was taken out of the config, `tidegate infra status`, `outputs` and \
             `destroy` go by what its state has on record",
        );
    }
    Some(report.exit(Exit::Usage))
}

/// What is resolved, and how strictly.
#[derive(Clone, Copy)]
pub(super) enum Scope<'a> {
    /// What a command needs, and what is known of outputs.
    For(Needs, OutputRules<'a>),
    /// Everything, and what others have against it.
    Check(Rules<'a>),
}

/// Resolves. The answer is only good when `problems` has no errors.
pub(super) fn resolve(
    path: &Path,
    merged: &Merged,
    environment: Option<&str>,
    variables: &Variables,
    masker: &Masker,
    scope: Scope<'_>,
    problems: &mut Problems,
) -> Config {
    let (needs, rules, known_outputs) = match scope {
        Scope::For(needs, outputs) => (needs, None, outputs),
        Scope::Check(rules) => (Needs::EVERYTHING, Some(rules), rules.outputs),
    };
    let mut resolver = Resolver {
        merged,
        environment,
        variables,
        masker,
        problems,
        names: Names::default(),
        declared: HashSet::new(),
        admitted: HashMap::new(),
        in_plain_sight: Vec::new(),
        used: BTreeSet::new(),
        links: Vec::new(),
        named_outputs: Vec::new(),
        bare: None,
        destinations: BTreeMap::new(),
        needs,
        keeps_unset: false,
        no_providers: HashMap::new(),
    };
    resolver.publish_words();
    let prepared = resolver.prepare();
    resolver.publish_places(&prepared);
    let secret_sets = resolver.declare(&prepared);
    let state = resolver.state(&prepared);
    resolver.keeps_unset = !needs.values;
    let providers = resolver.providers(&prepared);
    let mut resources = resolver.resources(&prepared, &providers);
    if let Some(rules) = rules {
        resolver.check_keys(&prepared, &providers, &resources, rules);
    }
    // The gates may ask with what a store holds.
    resolver.keeps_unset &= !needs.gates;
    let secrets = if needs.secrets {
        resolver.secrets(secret_sets)
    } else {
        secrets::Secrets::default()
    };
    resolver.keeps_unset = false;
    let gates = if needs.gates {
        resolver.gates(rules)
    } else {
        Vec::new()
    };
    if needs.values {
        resolver.check_outputs(&prepared, &providers, &resources, known_outputs);
    }
    if let Some(rules) = rules {
        resolver.check_state(&prepared, state.as_ref(), rules);
        resolver.check_stores(&secrets, rules);
    }
    resolver.say_bare();
    resolver.hide_twofold(&mut resources);
    Config {
        path: path.to_path_buf(),
        directory: path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or_else(|| Path::new("."))
            .to_path_buf(),
        environment: environment.unwrap_or(DEFAULT_ENVIRONMENT).to_owned(),
        resources,
        providers,
        state,
        generate: secrets.generate,
        credentials: secrets.credentials,
        entries: secrets.entries,
        secret_stores: secrets.stores,
        gates,
        digest: merged.digest.clone(),
        variables: resolver.used,
        environments: environments(merged),
        unknown_environment: None,
    }
}

impl Resolver<'_> {
    fn say_bare(&mut self) {
        let Some(bare) = self.bare.take() else {
            return;
        };
        let Bare {
            at,
            what,
            name,
            count,
        } = bare;
        let mut report = Report::warning(
            "config/bare-variable",
            format!("{what} is kept as it is, not replaced by a variable"),
        )
        .fix(format!("write `${{{name}}}` if the variable is meant"));
        if count > 1 {
            report = report.because(format!("and so are {} more like it", count - 1));
        }
        self.problems.warning(at, report);
    }
}
