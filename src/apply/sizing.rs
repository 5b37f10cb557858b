//! What `size` and `hints` come to. Asked of the provider once, while planning; the run that follows
//! uses the same answer, so plan and apply cannot disagree.

use std::collections::BTreeMap;

use super::Engine;
use crate::config::Resource;
use crate::provider::ErrorClass;
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
    let error = match provider.sizing(&resource.kind, size, &hints).await {
        Ok(sizing) => return Ok(Some(sizing)),
        // It has nothing to say about sizes: `ignored` warns of it.
        Err(error) if error.class == ErrorClass::Unimplemented => return Ok(None),
        Err(error) => error,
    };
    let (code, what, fix, exit) = match error.class {
        ErrorClass::Invalid | ErrorClass::NotFound => (
            "provider/size",
            format!("has no size `{size}` for"),
            "use another size, or write the provider's own setting in its place",
            Exit::Usage,
        ),
        // Anything else is no verdict on the size, whatever its words are.
        _ => (
            "provider/failed",
            format!("could not say what the size `{size}` means for"),
            "remove the cause and run the command again; nothing was changed",
            Exit::Failed,
        ),
    };
    Err(Report::error(
        code,
        format!(
            "provider `{}` {what} `{}` ({})",
            resource.provider, resource.address, resource.kind
        ),
    )
    .at(resource.at.clone())
    .because(format!("{} ({})", error.message, error.class.word()))
    .fix(fix)
    .exit(exit))
}

/// A size or hints that are not resolved, because the provider knows no sizes or gave no answer about
/// this one: its driver may read them, or not. Worth a word, because what was asked for may not be what
/// will be there.
pub fn ignored(engine: &Engine<'_>, resource: &Resource, is_known: bool) -> Option<Remark> {
    let hints = &resource.hints;
    let field = if resource.size.is_some() {
        "size"
    } else if hints.cpu.is_some() || hints.memory.is_some() || hints.storage.is_some() {
        "hints"
    } else {
        return None;
    };
    let provider = engine.providers.get(&resource.provider)?;
    let is_resolved = resource.size.is_none() || is_known;
    if is_resolved && provider.abilities().contains(&Ability::Sizing) {
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

/// The field that wishes for the new one of a replacement before the old one is gone.
pub const NEW_ONE_FIRST: &str = "lifecycle.create_before_destroy";

/// A wish for both at once that the provider cannot have: a replacement deletes first.
pub fn not_at_once(engine: &Engine<'_>, resource: &Resource) -> Option<Remark> {
    if !resource.create_before_destroy {
        return None;
    }
    let provider = engine.providers.get(&resource.provider)?;
    let driver = provider.driver(&resource.kind)?;
    (!driver.can_create_before_destroy()).then(|| Remark {
        severity: RemarkSeverity::Warning,
        resource: Some(resource.address.to_string()),
        field: Some(NEW_ONE_FIRST.to_owned()),
        message: format!(
            "`{}` providers cannot have the old and the new one at once: a replacement deletes the old one first",
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
