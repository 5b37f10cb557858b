//! One kind of resource, driven through the plugin's `ResourceDriver`.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value as Json;
use tidegate_plugin::iac;
use tidegate_plugin::iac::resource_driver_client::ResourceDriverClient;

use super::Tools;
use super::connection::{Connection, Limit, unary};
use super::convert::{self, observed, reference};
use super::fit;
use crate::provider::ability::Evidence;
use crate::provider::hide::Hidden;
use crate::provider::{Driver, DriverError, DriverResult, ErrorClass, Health, Operation, at_path};
use crate::resource::{
    Diff, FieldChange, Kind, Observed, Outputs, Private, PublicMap, Recorded, Spec,
};

/// Budget for an explanation; nobody waits longer for one.
const TROUBLESHOOT: Duration = Duration::from_secs(30);

/// Parts of output names that stand for credentials, whatever a plugin says or forgets to say. The
/// config can declare such an output as harmless.
const CREDENTIAL_WORDS: [&str; 11] = [
    "password",
    "passwd",
    "secret",
    "token",
    "private_key",
    "api_key",
    "access_key",
    "credential",
    "connection_string",
    "connection_url",
    "kubeconfig",
];
/// Whole output names of the same sort: addresses with a password in them.
const CREDENTIAL_NAMES: [&str; 4] = ["uri", "private_uri", "connection_uri", "dsn"];

/// True for a name that stands for a credential.
pub(super) fn promises_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    CREDENTIAL_NAMES.contains(&lower.as_str())
        || CREDENTIAL_WORDS.iter().any(|word| lower.contains(word))
}

/// The driver of one kind.
#[derive(Debug)]
pub(super) struct PluginDriver {
    kind: Kind,
    connection: Connection,
    /// Outputs the driver calls sensitive; `None` when it did not say.
    sensitive: Option<BTreeSet<String>>,
    /// An old one and its new one can be there at once, says the plugin.
    create_before_destroy: bool,
}

impl PluginDriver {
    pub(super) fn new(
        kind: Kind,
        connection: Connection,
        sensitive: Option<BTreeSet<String>>,
        create_before_destroy: bool,
    ) -> Self {
        Self {
            kind,
            connection,
            sensitive,
            create_before_destroy,
        }
    }

    fn look(&self) -> Limit {
        Limit::look(self.connection.tools().deadlines.look)
    }

    fn effect(&self) -> Limit {
        Limit::effect(self.connection.tools().deadlines.effect)
    }

    fn failed(&self) -> impl Fn(super::connection::CallError) -> DriverError + '_ {
        |error| self.connection.driver_error(&error)
    }

    /// A config with every value known.
    fn known(&self, desired: &Spec) -> DriverResult<iac::ResourceSpec> {
        let mut unknown = Vec::new();
        let spec = convert::spec(desired, &mut unknown);
        if unknown.is_empty() {
            Ok(spec)
        } else {
            Err(DriverError::new(
                ErrorClass::Invalid,
                format!("{} is not known yet", unknown.join(", ")),
            ))
        }
    }
}

/// A create that succeeded, whose answer makes no sense: what was made is not forgotten. An answer about
/// another resource says nothing about ours.
fn made_in_spite(error: DriverError, id: String) -> DriverError {
    match error.class {
        ErrorClass::Invalid if error.partial.is_none() && !id.is_empty() => {
            error.with_partial(Observed {
                provider_id: id,
                outputs: Outputs::new(),
                status: String::new(),
                private: Private::default(),
            })
        }
        _ => error,
    }
}

/// An answer about the very id on record is about ours, also where the provider calls it by another
/// name: what was imported keeps the name it had.
fn of_recorded(
    output: Option<iac::ResourceOutput>,
    prior: &Recorded,
) -> Option<iac::ResourceOutput> {
    output.map(|mut output| {
        if !prior.provider_id.is_empty() && output.provider_id == prior.provider_id {
            output.name.clear();
        }
        output
    })
}

#[async_trait]
impl Driver for PluginDriver {
    async fn create(&self, _operation: &Operation, desired: &Spec) -> DriverResult<Observed> {
        let request = iac::ResourceCreateRequest {
            resource_type: self.kind.to_string(),
            spec: Some(self.known(desired)?),
        };
        let answer = unary!(
            self.connection,
            ResourceDriverClient.create(request),
            self.effect()
        )
        .await
        .map_err(self.failed())?;
        let id = answer
            .output
            .as_ref()
            .map(|output| output.provider_id.clone())
            .unwrap_or_default();
        let made = observed(
            answer.output,
            &desired.address,
            &desired.kind,
            self.connection.tools(),
        )
        .map_err(|error| made_in_spite(error, id))?;
        if made.provider_id.is_empty() {
            return Err(DriverError::new(
                ErrorClass::Unknown,
                "the plugin answered without the provider's id of the new resource",
            ));
        }
        Ok(made)
    }

    // The contract has a field for the id, empty for "by name", and no way to say for which kinds
    // that works.
    fn finds_by_name(&self) -> bool {
        false
    }

    fn can_create_before_destroy(&self) -> bool {
        self.create_before_destroy
    }

    async fn read(&self, prior: &Recorded) -> DriverResult<Observed> {
        let request = iac::ResourceReadRequest {
            resource_type: self.kind.to_string(),
            r#ref: Some(reference(prior)),
        };
        let answer = unary!(
            self.connection,
            ResourceDriverClient.read(request),
            self.look()
        )
        .await
        .map_err(self.failed())?;
        let mut seen = observed(
            of_recorded(answer.output, prior),
            &prior.address,
            &prior.kind,
            self.connection.tools(),
        )?;
        if is_another(&seen, prior) {
            return Err(self.another(&seen, prior));
        }
        if seen.provider_id.is_empty() {
            seen.provider_id.clone_from(&prior.provider_id);
        }
        if seen.provider_id.is_empty() {
            return Err(DriverError::new(
                ErrorClass::Invalid,
                "the plugin found a resource of that name, but does not say its id",
            ));
        }
        seen.private = convert::still_flagged(&seen.private, &prior.private);
        Ok(seen)
    }

    async fn update(
        &self,
        _operation: &Operation,
        prior: &Recorded,
        desired: &Spec,
    ) -> DriverResult<Observed> {
        let request = iac::ResourceUpdateRequest {
            resource_type: self.kind.to_string(),
            r#ref: Some(reference(prior)),
            spec: Some(self.known(desired)?),
        };
        let answer = unary!(
            self.connection,
            ResourceDriverClient.update(request),
            self.effect()
        )
        .await
        .map_err(self.failed())?;
        let mut changed = observed(
            of_recorded(answer.output, prior),
            &desired.address,
            &desired.kind,
            self.connection.tools(),
        )?;
        if is_another(&changed, prior) {
            // A change may bring a new id, and then the old one is gone. What is still there under the
            // old one is ours, and the answer is about something else.
            match self.read(prior).await {
                Err(error) if error.class == ErrorClass::NotFound => {}
                Ok(_) | Err(_) => return Err(self.another(&changed, prior)),
            }
        }
        if changed.provider_id.is_empty() {
            changed.provider_id.clone_from(&prior.provider_id);
        }
        changed.private = convert::still_flagged(&changed.private, &prior.private);
        Ok(changed)
    }

    async fn delete(&self, _operation: &Operation, prior: &Recorded) -> DriverResult<()> {
        let request = iac::ResourceDeleteRequest {
            resource_type: self.kind.to_string(),
            r#ref: Some(reference(prior)),
        };
        let answer = unary!(
            self.connection,
            ResourceDriverClient.delete(request),
            self.effect()
        )
        .await
        .map_err(self.failed());
        match answer {
            Ok(_) => Ok(()),
            // Many existing drivers call it an error that it is gone already.
            Err(error) if error.class == ErrorClass::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The plugin compares what is desired with the outputs on record. Two things it cannot see are
    /// added here: values known only after apply, which never go over the wire, and secrets, which
    /// are placeholders on record.
    async fn diff(&self, prior: &Recorded, desired: &Spec) -> DriverResult<Diff> {
        let mut unknown = Vec::new();
        let mut request = iac::ResourceDiffRequest {
            resource_type: self.kind.to_string(),
            desired: Some(convert::spec(desired, &mut unknown)),
            current: Some(convert::recorded_output(prior, |name| {
                self.is_sensitive(name) == Some(true)
            })),
        };
        let left_out = fit::leave_out(prior, &mut request, self.connection.tools())?;
        let answer = unary!(
            self.connection,
            ResourceDriverClient.diff(request),
            self.look()
        )
        .await
        .map_err(self.failed())?;
        let mut diff = Diff::default();
        if let Some(mut result) = answer.result {
            fit::forget_artefacts(&mut result, &left_out);
            diff.needs_replace = result.needs_replace || result.changes.iter().any(|c| c.force_new);
            diff.needs_update = result.needs_update && !diff.needs_replace;
            // Without a flag nothing is to be done, whatever is listed.
            if diff.needs_replace || diff.needs_update {
                for change in result.changes {
                    let change = self.change(prior, desired, change)?;
                    diff.changes.push(without_secrets(prior, desired, change));
                }
            }
        }
        fit::add_left_out(prior, desired, &left_out, &mut diff);
        self.add_invisible(prior, desired, &unknown, &mut diff);
        diff.changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(diff)
    }

    async fn health(&self, prior: &Recorded) -> DriverResult<Health> {
        let request = iac::ResourceHealthCheckRequest {
            resource_type: self.kind.to_string(),
            r#ref: Some(reference(prior)),
        };
        let answer = unary!(
            self.connection,
            ResourceDriverClient.health_check(request),
            self.look()
        )
        .await
        .map_err(self.failed())?;
        let Some(result) = answer.result else {
            return Err(DriverError::new(
                ErrorClass::Unknown,
                "the plugin answered without saying how the resource is doing",
            ));
        };
        Ok(Health {
            healthy: result.healthy,
            message: self.connection.tools().excerpt(&result.message),
        })
    }

    fn is_sensitive(&self, output: &str) -> Option<bool> {
        if promises_secret(output) {
            return Some(true);
        }
        self.sensitive.as_ref().map(|keys| keys.contains(output))
    }

    fn is_flagged(&self, prior: &Recorded, output: &str) -> bool {
        convert::flagged(&prior.private).contains(output)
    }

    fn check(&self, _desired: &Spec) -> Vec<(String, String)> {
        // Plugins have no call for this; theirs is `ValidatePlan`, which sees the whole plan.
        Vec::new()
    }

    async fn troubleshoot(&self, prior: &Recorded, failure: &str) -> DriverResult<Vec<Evidence>> {
        let request = iac::TroubleshootRequest {
            resource_type: self.kind.to_string(),
            r#ref: Some(reference(prior)),
            failure_msg: self.connection.tools().excerpt(failure),
        };
        let answer = unary!(
            self.connection,
            ResourceDriverClient.troubleshoot(request),
            Limit::look(TROUBLESHOOT)
        )
        .await
        .map_err(self.failed())?;
        let tools = self.connection.tools();
        let said = answer.diagnostics.iter();
        Ok(said.map(|said| evidence(said, tools)).collect())
    }

    async fn scale(&self, prior: &Recorded, replicas: u32) -> DriverResult<Observed> {
        let replicas = i32::try_from(replicas).map_err(|_| {
            DriverError::new(
                ErrorClass::Invalid,
                format!("{replicas} instances are more than a plugin can be asked for"),
            )
        })?;
        let request = iac::ResourceScaleRequest {
            resource_type: self.kind.to_string(),
            r#ref: Some(reference(prior)),
            replicas,
        };
        let answer = unary!(
            self.connection,
            ResourceDriverClient.scale(request),
            self.effect()
        )
        .await
        .map_err(self.failed())?;
        let mut scaled = observed(
            of_recorded(answer.output, prior),
            &prior.address,
            &prior.kind,
            self.connection.tools(),
        )?;
        if is_another(&scaled, prior) {
            return Err(self.another(&scaled, prior));
        }
        if scaled.provider_id.is_empty() {
            scaled.provider_id.clone_from(&prior.provider_id);
        }
        scaled.private = convert::still_flagged(&scaled.private, &prior.private);
        Ok(scaled)
    }
}

/// True for an answer with another id than the one on record. What is only looked for (a zone by its
/// domain, an id that a person typed) has nothing on record beside what finds it, and another id is the
/// answer that is wanted.
fn is_another(seen: &Observed, prior: &Recorded) -> bool {
    let is_recorded = !prior.config.is_empty()
        || !prior.outputs.is_empty()
        || !prior.status.is_empty()
        || !prior.private.is_empty();
    is_recorded
        && !prior.provider_id.is_empty()
        && !seen.provider_id.is_empty()
        // Some providers are not of one mind about capitals.
        && !seen.provider_id.eq_ignore_ascii_case(&prior.provider_id)
}

/// One event of a plugin's explanation, its secrets hidden: whoever shows it cuts it.
pub(super) fn evidence(said: &iac::Diagnostic, tools: &Tools) -> Evidence {
    let masked = |text: &str| tools.masker.mask(text);
    Evidence {
        id: masked(&said.id),
        phase: masked(&said.phase),
        cause: masked(&said.cause),
        at: convert::time_text(said.at.as_ref()),
        detail: masked(&said.detail),
    }
}

impl PluginDriver {
    fn another(&self, seen: &Observed, prior: &Recorded) -> DriverError {
        let tools = self.connection.tools();
        convert::another("id", &seen.provider_id, &prior.provider_id, tools)
    }

    fn change(
        &self,
        prior: &Recorded,
        desired: &Spec,
        change: iac::FieldChange,
    ) -> DriverResult<FieldChange> {
        let hidden = Hidden {
            driver: Some(self),
            prior,
            desired: Some(&desired.public_config),
            masker: &self.connection.tools().masker,
        };
        // A plan is shown and may be saved: a secret the plugin compared is not part of it, and it
        // compares live values that we have never seen.
        let value = |bytes: &[u8]| -> DriverResult<Json> {
            let value = convert::json(bytes).map_err(|why| {
                DriverError::new(
                    ErrorClass::Invalid,
                    format!("the plugin's comparison is wrong: {why}"),
                )
            })?;
            Ok(hidden.shown(&change.path, value))
        };
        Ok(FieldChange {
            old: value(&change.old_json)?,
            new: value(&change.new_json)?,
            path: change.path.clone(),
            force_new: change.force_new,
        })
    }

    fn add_invisible(&self, prior: &Recorded, desired: &Spec, unknown: &[String], diff: &mut Diff) {
        let mut add = |path: &str, old: Json, new: Json| {
            diff.needs_update |= !diff.needs_replace;
            if diff.changes.iter().all(|change| change.path != path) {
                diff.changes.push(FieldChange {
                    path: path.to_owned(),
                    old,
                    new,
                    force_new: false,
                });
            }
        };
        for path in unknown {
            add(
                path,
                at_path(&prior.config, path).cloned().unwrap_or_default(),
                at_path(&desired.public_config, path)
                    .cloned()
                    .unwrap_or_default(),
            );
        }
        // A record without a config was adopted: there is nothing to compare with.
        if prior.config.is_empty() {
            return;
        }
        for change in crate::provider::config_changes(&prior.config, &desired.public_config) {
            if holds_secret(&change.old) || holds_secret(&change.new) {
                add(&change.path, change.old, change.new);
            }
        }
    }
}

/// A plugin compares what it can see, and what it saw before may hold a secret that nobody else has seen
/// since: an old one, which may still be good. Where our own config has a secret, the change is told in
/// our words.
fn without_secrets(prior: &Recorded, desired: &Spec, change: FieldChange) -> FieldChange {
    let old = around(&prior.config, &change.path);
    let new = around(&desired.public_config, &change.path);
    if ![old, new].into_iter().flatten().any(holds_secret) {
        return change;
    }
    FieldChange {
        old: old.cloned().unwrap_or_default(),
        new: new.cloned().unwrap_or_default(),
        ..change
    }
}

/// What our config has at a plugin's path, or at the last point of it that we know: lists, and secrets,
/// are wholes.
fn around<'a>(config: &'a PublicMap, path: &str) -> Option<&'a Json> {
    let mut keys = path.split(['.', '[']);
    let mut value = config.get(keys.next()?)?;
    for key in keys {
        match value.get(key) {
            Some(inner) => value = inner,
            None => break,
        }
    }
    Some(value)
}

/// True when there is a secret anywhere in a public value.
fn holds_secret(value: &Json) -> bool {
    match value {
        Json::Object(map) => map.contains_key("$secret") || map.values().any(holds_secret),
        Json::Array(items) => items.iter().any(holds_secret),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::resource::{Address, Map};

    fn config(value: Json) -> PublicMap {
        match value {
            Json::Object(map) => map,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn where_the_config_has_a_secret_a_plugins_words_about_it_are_not_repeated() {
        let old = json!({"$secret": "old"});
        let new = json!({"$secret": "new"});
        let prior = Recorded {
            config: config(json!({
                "token": old, "plain": "a", "env": {"KEY": old}, "list": [{"v": old}],
            })),
            ..Recorded::by_name(Address::new("db"), Kind::new("infra.database"))
        };
        let desired = Spec {
            address: Address::new("db"),
            kind: Kind::new("infra.database"),
            config: Map::new(),
            public_config: config(json!({
                "token": new, "plain": "b", "env": {"KEY": new}, "list": [{"v": new}],
            })),
            dependencies: BTreeSet::new(),
        };
        for (path, told) in [
            (
                "token",
                Some((json!({"$secret": "old"}), json!({"$secret": "new"}))),
            ),
            (
                "env.KEY",
                Some((json!({"$secret": "old"}), json!({"$secret": "new"}))),
            ),
            (
                "token.part",
                Some((json!({"$secret": "old"}), json!({"$secret": "new"}))),
            ),
            (
                "list[0].v",
                Some((
                    json!([{"v": {"$secret": "old"}}]),
                    json!([{"v": {"$secret": "new"}}]),
                )),
            ),
            ("plain", None),
            ("elsewhere", None),
        ] {
            let change = without_secrets(
                &prior,
                &desired,
                FieldChange {
                    path: path.to_owned(),
                    old: "tok-OLD".into(),
                    new: "tok-NEW".into(),
                    force_new: true,
                },
            );
            assert!(change.force_new);
            let (old, new) = told.unwrap_or_else(|| ("tok-OLD".into(), "tok-NEW".into()));
            assert_eq!((change.old, change.new), (old, new), "{path}");
        }
    }

    #[test]
    fn a_secret_is_seen_however_deep_it_is() {
        for (value, holds) in [
            (json!({"a": [{"b": {"$secret": "x"}}]}), true),
            (json!([{"$secret": "x"}]), true),
            (json!({"a": ["b", 1, null]}), false),
        ] {
            assert_eq!(holds_secret(&value), holds, "{value}");
        }
    }
}
