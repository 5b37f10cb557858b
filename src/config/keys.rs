//! What other rooms say about a config without anything being opened. The words come from them; the
//! places, and what is said about a wrong setting, from here.

use super::resolved::{Gate, Resource, SecretStore, StateDeclaration};
use crate::report::Report;

/// The settings that one kind of module takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Every setting there is.
    pub allowed: Vec<String>,
    /// Settings that are accepted and mean nothing here.
    pub tolerated: Vec<String>,
    /// True when others may be given too.
    pub is_open: bool,
    /// Those that must be there.
    pub required: Vec<String>,
    /// Settings that people expect and that are not there, and what to do instead.
    pub refused: Vec<(String, String)>,
    /// Settings that are maps whose keys are known as well.
    pub within: Vec<(String, Keys)>,
    /// What the value of a setting must be.
    pub shapes: Vec<(String, Shape)>,
    /// Why there is nothing to set: the provider, or its type, does not exist. A sentence.
    pub unknown: Option<String>,
}

/// What a value must be, as far as the file itself tells: one that a variable fills in is not
/// looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Text.
    Text,
    /// One of these words.
    OneOf(Vec<String>),
    /// A number from 0 to 65535.
    Port,
    /// A list.
    List,
    /// A map.
    Map,
}

/// The settings a provider takes: for its own module (`None`), or for a resource of a type. `None`
/// when nobody knows before the provider runs.
pub type KeyRules<'a> = &'a dyn Fn(&str, Option<&str>) -> Option<Keys>;

/// Every output that a resource has once it is made, by the type of its provider; `None` when nobody
/// knows before.
pub type OutputRules<'a> = &'a dyn Fn(&str, &Resource) -> Option<&'static [&'static str]>;

/// Something wrong with a setting, found by the room that reads it.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The setting: `env_vars.PORT`, `command[0]`.
    pub path: String,
    /// What is wrong; its place is found here.
    pub report: Report,
}

/// Everything that can be said about a config by whoever will read it, without opening anything.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// The settings a provider takes.
    pub keys: KeyRules<'a>,
    /// What a provider (named by its type) has against the settings of a resource.
    pub resource: &'a dyn Fn(&str, &Resource) -> Vec<Fault>,
    /// What the state's backend has against its settings.
    pub state: &'a dyn Fn(&StateDeclaration) -> Vec<Fault>,
    /// What a secret store (with its name) has against its options.
    pub store: &'a dyn Fn(&str, &SecretStore) -> Vec<Fault>,
    /// The outputs of a resource.
    pub outputs: OutputRules<'a>,
    /// What is wrong with a gate, each with its place.
    pub gate: &'a dyn Fn(&Gate) -> Vec<Report>,
}

impl std::fmt::Debug for Rules<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rules")
    }
}

impl<'a> Rules<'a> {
    /// Only what is said about keys.
    pub fn of_keys(keys: KeyRules<'a>) -> Self {
        Self {
            keys,
            resource: &|_, _| Vec::new(),
            state: &|_| Vec::new(),
            store: &|_, _| Vec::new(),
            outputs: &|_, _| None,
            gate: &|_| Vec::new(),
        }
    }
}
