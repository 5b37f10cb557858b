//! What providers say about the settings of their modules without being started. The words come
//! from other rooms; the places, and what is said about a wrong one, from here.

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
