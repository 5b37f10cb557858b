//! What `size` and `hints` come to. Asked of the provider once, while planning; the run that follows
//! uses the same answer, so plan and apply cannot disagree.

use std::collections::BTreeMap;

use super::Engine;
use crate::config::Resource;
use crate::provider::ability::{Ability, Hints, Remark, RemarkSeverity, Sizing};
use crate::report::{Exit, Report};
use crate::resource::{Address, Spec, Value, public_map};

/// What the resource's size means at its provider; `None` when it has none, or when its provider
/// knows no sizes.
pub async fn resolve(engine: &Engine<'_>, resource: &Resource) -> Result<Option<Sizing>, Report> {
    let Some(size) = &resource.size else {
        return Ok(None);
    };
    let Some(provider) = engine.providers.get(&resource.provider) else {
        return Ok(None);
    };
    if !provider.abilities().contains(&Ability::Sizing) {
        return Ok(None);
    }
    let hints = Hints {
        cpu: resource.hints.cpu.clone(),
        memory: resource.hints.memory.clone(),
        storage: resource.hints.storage.clone(),
    };
    provider
        .sizing(&resource.kind, size, &hints)
        .await
        .map(Some)
        .map_err(|error| {
            Report::error(
                "provider/size",
                format!(
                    "provider `{}` has no size `{size}` for `{}` ({})",
                    resource.provider, resource.address, resource.kind
                ),
            )
            .at(resource.at.clone())
            .because(format!("{} ({})", error.message, error.class.word()))
            .fix("use another size, or write the provider's own setting in its place")
            .exit(Exit::Usage)
        })
}

/// A size or hints that are not resolved, because the provider knows no sizes: its driver may read them, or
/// not. Worth a word, because what was asked for may not be what will be there.
pub fn ignored(engine: &Engine<'_>, resource: &Resource) -> Option<Remark> {
    let hints = &resource.hints;
    let field = if resource.size.is_some() {
        "size"
    } else if hints.cpu.is_some() || hints.memory.is_some() || hints.storage.is_some() {
        "hints"
    } else {
        return None;
    };
    let provider = engine.providers.get(&resource.provider)?;
    if provider.abilities().contains(&Ability::Sizing) {
        return None;
    }
    Some(Remark {
        severity: RemarkSeverity::Warning,
        resource: Some(resource.address.to_string()),
        field: Some(field.to_owned()),
        message: format!(
            "`{}` providers resolve no sizes: it is passed on as it is written",
            provider.name()
        ),
    })
}

/// Puts a size's meaning into a config: the instance type, then every further key.
pub fn merge(engine: &Engine<'_>, desired: &mut Spec, size: &Sizing) {
    if !size.instance_type.is_empty() {
        desired.config.insert(
            "instance_type".to_owned(),
            Value::String(size.instance_type.clone()),
        );
    }
    for (key, value) in &size.specs {
        desired
            .config
            .insert(key.clone(), Value::from(value.clone()));
    }
    desired.public_config = public_map(&desired.config, &engine.keyring);
}

/// The same for a resource whose size was resolved while planning.
pub fn merge_known(engine: &Engine<'_>, desired: &mut Spec, sizes: &BTreeMap<Address, Sizing>) {
    if let Some(size) = sizes.get(&desired.address) {
        merge(engine, desired, size);
    }
}
