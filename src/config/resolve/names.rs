//! Which module a name means. Base names and environment-resolved names are both understood; the
//! answer is always the resolved one.

use std::collections::HashMap;

use crate::resource::Address;

/// What a module is to those who name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A resource of this environment.
    Resource(Address),
    /// A module that this environment leaves out.
    Absent,
    /// Something that is not a resource, in words: `a provider`.
    Other(&'static str),
}

/// The answer to "which module is that?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// This one.
    Meaning(Meaning),
    /// The base name of one module is the resolved name of another.
    Ambiguous {
        /// The resource whose base name it is.
        base: Address,
        /// The base name of the module whose resolved name it is.
        other: String,
    },
    /// None.
    Unknown,
}

/// All names of one environment.
#[derive(Debug, Default)]
pub(super) struct Names {
    base: HashMap<String, Meaning>,
    resolved: HashMap<String, String>,
}

impl Names {
    /// So many modules are going to be added.
    pub(super) fn reserve(&mut self, modules: usize) {
        self.base.reserve(modules);
    }

    /// Adds a module by its base name.
    pub(super) fn add(&mut self, base: &str, meaning: Meaning) {
        // A name that nothing has lifted is found by itself.
        if let Meaning::Resource(address) = &meaning
            && address.as_str() != base
        {
            self.resolved
                .insert(address.as_str().to_owned(), base.to_owned());
        }
        self.base.insert(base.to_owned(), meaning);
    }

    /// Which module `name` means.
    pub(super) fn find(&self, name: &str) -> Found {
        match (self.base.get(name), self.resolved.get(name)) {
            (Some(Meaning::Resource(address)), Some(other))
                if other != name && address.as_str() != name =>
            {
                Found::Ambiguous {
                    base: address.clone(),
                    other: other.clone(),
                }
            }
            // A module that is left out, or no resource, gives way to the resource of that name.
            (Some(Meaning::Resource(address)), _) => {
                Found::Meaning(Meaning::Resource(address.clone()))
            }
            (_, Some(_)) => Found::Meaning(Meaning::Resource(Address::new(name))),
            (Some(meaning), None) => Found::Meaning(meaning.clone()),
            (None, None) => Found::Unknown,
        }
    }

    /// Splits `module.field` at the dot that gives the longest known module name. With no known
    /// name the first dot decides.
    pub(super) fn split<'t>(&self, dotted: &'t str) -> Option<(&'t str, &'t str)> {
        dotted
            .rmatch_indices('.')
            .map(|(dot, _)| (&dotted[..dot], &dotted[dot + 1..]))
            .find(|(module, _)| self.find(module) != Found::Unknown)
            .or_else(|| dotted.split_once('.'))
    }

    /// Every name of a resource, for hints.
    pub(super) fn resources(&self) -> impl Iterator<Item = &str> {
        self.base
            .iter()
            .filter(|(_, meaning)| matches!(meaning, Meaning::Resource(_)))
            .map(|(name, _)| name.as_str())
            .chain(self.resolved.keys().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let mut names = Names::default();
        names.add("db", Meaning::Resource(Address::new("prod-db")));
        names.add("a", Meaning::Resource(Address::new("a")));
        names.add("a.b", Meaning::Resource(Address::new("a.b")));
        names.add("cloud", Meaning::Other("a provider"));
        names.add("gone", Meaning::Absent);
        names.add("x", Meaning::Resource(Address::new("y")));
        names.add("y", Meaning::Resource(Address::new("z")));
        names
    }

    #[test]
    fn base_and_resolved_names_mean_the_same() {
        let names = names();
        let prod = Found::Meaning(Meaning::Resource(Address::new("prod-db")));
        assert_eq!(names.find("db"), prod);
        assert_eq!(names.find("prod-db"), prod);
        assert_eq!(names.find("gone"), Found::Meaning(Meaning::Absent));
        assert_eq!(names.find("nope"), Found::Unknown);
        assert!(matches!(names.find("y"), Found::Ambiguous { .. }));
    }

    #[test]
    fn dots_in_names_match_the_longest() {
        let names = names();
        for (dotted, expected) in [
            ("a.uri", Some(("a", "uri"))),
            ("a.b.uri", Some(("a.b", "uri"))),
            ("a.c.uri", Some(("a", "c.uri"))),
            ("nope.b.uri", Some(("nope", "b.uri"))),
            ("nodot", None),
        ] {
            assert_eq!(names.split(dotted), expected, "{dotted}");
        }
    }
}
