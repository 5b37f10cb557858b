//! Outputs that are named and not there: of a provider that is known to give others.

use std::collections::{BTreeMap, HashMap};

use super::Resolver;
use super::modules::{Category, Prepared};
use crate::config::decode::printable;
use crate::config::keys::OutputRules;
use crate::config::resolved::{ProviderDeclaration, Resource};
use crate::config::source::Mark;
use crate::report::Report;
use crate::resource::{Address, ProviderId};

/// What any resource has: its provider's own id.
const ID: &str = "id";

impl<'a> Resolver<'a> {
    /// Reports references to outputs, and declarations of outputs, that a resource is known not to have.
    pub(super) fn check_outputs(
        &mut self,
        prepared: &[Prepared<'a>],
        providers: &BTreeMap<ProviderId, ProviderDeclaration>,
        resources: &[Resource],
        known: OutputRules<'_>,
    ) {
        let named = std::mem::take(&mut self.named_outputs);
        let outputs_of = |resource: &Resource| {
            let provider = providers.get(&resource.provider)?;
            known(&provider.provider, resource)
        };
        // As many resources as modules that are some, in the same order.
        let modules = prepared
            .iter()
            .filter(|module| module.present && module.category == Category::Resource);
        for (module, resource) in modules.zip(resources) {
            let declared = module.module.outputs.as_ref();
            let Some((declared, outputs)) = declared.zip(outputs_of(resource)) else {
                continue;
            };
            for (name, _) in declared.iter() {
                self.check_output(&resource.address, &name.value, name.at, outputs);
            }
        }
        if named.is_empty() {
            return;
        }
        let by_address: HashMap<&Address, &Resource> = resources
            .iter()
            .map(|resource| (&resource.address, resource))
            .collect();
        for (address, field, at) in named {
            let resource = by_address.get(&address).copied();
            if field != ID
                && let Some(outputs) = resource.and_then(outputs_of)
            {
                self.check_output(&address, &field, at, outputs);
            }
        }
    }

    fn check_output(&mut self, address: &Address, name: &str, at: Mark, outputs: &[&str]) {
        if outputs.contains(&name) {
            return;
        }
        let report = Report::error(
            "config/unknown-output",
            format!(
                "`{}` has no output `{}`",
                printable(address.as_str()),
                printable(name)
            ),
        );
        let report = match self.problems.nearest(name, outputs.iter().copied()) {
            Some(near) => report.label(format!("did you mean `{near}`?")),
            None => report.label("no such output"),
        };
        self.problems
            .error(at, report.fix(format!("it has {}", outputs.join(", "))));
    }
}
