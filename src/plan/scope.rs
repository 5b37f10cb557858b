//! Which resources a plan is about (`--include a,b`), and what a part of a plan still needs.

use std::collections::{BTreeMap, BTreeSet};

use super::Action;
use crate::resource::{ActionKind, Address};

/// All resources, or the named ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope(Option<BTreeSet<Address>>);

/// Names that mean no resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no resource is called {}", .0.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))]
pub struct UnknownNames(pub Vec<String>);

impl Scope {
    /// Every resource.
    pub fn everything() -> Self {
        Self(None)
    }

    /// The named resources; every resource when no name is given. A name is a resolved name or the
    /// name in the file. `known` lists (resolved name, name in the file) of what is desired or
    /// recorded.
    ///
    /// # Errors
    /// Every name that means nothing, sorted.
    pub fn of<'a>(
        names: &[String],
        known: impl IntoIterator<Item = (&'a Address, &'a str)>,
    ) -> Result<Self, UnknownNames> {
        if names.is_empty() {
            return Ok(Self::everything());
        }
        let mut by_name: BTreeMap<&str, &Address> = BTreeMap::new();
        let known: Vec<(&Address, &str)> = known.into_iter().collect();
        for (address, base) in &known {
            by_name.insert(base, address);
        }
        // A resolved name wins over another resource's name in the file.
        for (address, _) in &known {
            by_name.insert(address.as_str(), address);
        }
        let mut chosen = BTreeSet::new();
        let mut unknown = BTreeSet::new();
        for name in names {
            match by_name.get(name.as_str()) {
                Some(address) => {
                    chosen.insert((*address).clone());
                }
                None => {
                    unknown.insert(name.clone());
                }
            }
        }
        if unknown.is_empty() {
            Ok(Self(Some(chosen)))
        } else {
            Err(UnknownNames(unknown.into_iter().collect()))
        }
    }

    /// True when the plan is about this resource.
    pub fn includes(&self, address: &Address) -> bool {
        self.0
            .as_ref()
            .is_none_or(|chosen| chosen.contains(address))
    }

    /// True when every resource is meant.
    pub fn is_everything(&self) -> bool {
        self.0.is_none()
    }

    /// The chosen names, sorted; empty for everything.
    pub fn names(&self) -> Vec<String> {
        self.0
            .iter()
            .flatten()
            .map(|address| address.as_str().to_owned())
            .collect()
    }

    /// What the chosen actions need and the choice leaves out, as sentences, sorted: a dependency
    /// that does not exist yet, and what still stands on something that would be deleted or replaced.
    /// `recorded` holds every recorded resource with its recorded dependencies.
    pub fn missing<'a>(
        &self,
        actions: &[Action],
        recorded: impl IntoIterator<Item = (&'a Address, &'a [Address])>,
    ) -> Vec<String> {
        if self.is_everything() {
            return Vec::new();
        }
        let recorded: BTreeMap<&Address, &[Address]> = recorded.into_iter().collect();
        let mut missing = BTreeSet::new();
        let going: BTreeMap<&Address, &str> = actions
            .iter()
            .filter_map(|action| match action.action {
                ActionKind::Delete => Some((&action.address, "deleted")),
                ActionKind::Replace => Some((&action.address, "replaced")),
                ActionKind::Create | ActionKind::Update | ActionKind::NoOp => None,
            })
            .collect();
        for action in actions {
            for needed in &action.depends_on {
                if !self.includes(needed) && !recorded.contains_key(needed) {
                    missing.insert(format!(
                        "`{}` needs `{needed}`, which does not exist yet",
                        action.address
                    ));
                }
            }
        }
        for (address, stands_on) in &recorded {
            if self.includes(address) {
                continue;
            }
            for below in *stands_on {
                if let Some(what) = going.get(below) {
                    missing.insert(format!(
                        "`{address}` still stands on `{below}`, which would be {what}"
                    ));
                }
            }
        }
        missing.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{Kind, ProviderId};

    fn action(name: &str, kind: ActionKind, needs: &[&str]) -> Action {
        Action {
            address: Address::new(name),
            kind: Kind::new("infra.storage"),
            provider: ProviderId::new("local"),
            action: kind,
            changes: Vec::new(),
            reason: String::new(),
            depends_on: needs.iter().copied().map(Address::new).collect(),
            recorded_depends_on: BTreeSet::new(),
            protected: false,
            create_before_destroy: false,
        }
    }

    fn scope(names: &[&str]) -> Result<Scope, String> {
        let known = [("db-dev", "db"), ("web", "web"), ("db", "other")];
        let addresses: Vec<(Address, &str)> = known
            .iter()
            .map(|(address, base)| (Address::new(*address), *base))
            .collect();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Scope::of(
            &names,
            addresses.iter().map(|(address, base)| (address, *base)),
        )
        .map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_resolved_names_first_then_names_in_the_file() {
        assert!(scope(&[]).unwrap().is_everything());
        assert_eq!(scope(&["db", "web"]).unwrap().names(), ["db", "web"]);
        assert_eq!(scope(&["other"]).unwrap().names(), ["db"]);
        assert_eq!(
            scope(&["z", "web", "a", "z"]),
            Err("no resource is called `a`, `z`".to_owned())
        );
    }

    #[test]
    fn a_part_says_what_it_lacks() {
        let chosen = scope(&["web"]).unwrap();
        let none: [(&Address, &[Address]); 0] = [];
        assert_eq!(
            chosen.missing(&[action("web", ActionKind::Create, &["db"])], none),
            ["`web` needs `db`, which does not exist yet"]
        );
        let db = Address::new("db");
        assert!(
            chosen
                .missing(
                    &[action("web", ActionKind::Create, &["db"])],
                    [(&db, &[][..])]
                )
                .is_empty()
        );
        let web = [Address::new("web")];
        assert_eq!(
            chosen.missing(&[action("web", ActionKind::Delete, &[])], [(&db, &web[..])]),
            ["`db` still stands on `web`, which would be deleted"]
        );
        assert_eq!(
            chosen.missing(
                &[action("web", ActionKind::Replace, &[])],
                [(&db, &web[..])]
            ),
            ["`db` still stands on `web`, which would be replaced"]
        );
    }
}
