//! A comparison whose question is larger than plugins take: what is left out of it, and what the answer is
//! worth then.

use prost::Message as _;
use tidegate_plugin::iac;

use super::connection::REQUEST_BYTES_MAX;
use super::{Tools, convert};
use crate::provider::DriverResult;
use crate::report::{Event, Report};
use crate::resource::{Diff, FieldChange, Recorded, Spec};

/// Leaves outputs out of a question that is larger than plugins take, the largest first, and says so:
/// what was once recorded must not stand in the way of every later plan. Answers their names.
pub(super) fn leave_out(
    prior: &Recorded,
    request: &mut iac::ResourceDiffRequest,
    tools: &Tools,
) -> DriverResult<Vec<String>> {
    let mut left_out = Vec::new();
    let Some(mut current) = request.current.take() else {
        return Ok(left_out);
    };
    let room = REQUEST_BYTES_MAX
        .saturating_sub(request.encoded_len())
        // For the lengths that stand in front of its parts.
        .saturating_sub(64);
    if current.encoded_len() > room {
        let mut outputs = convert::object(&current.outputs_json, "outputs")?;
        while current.encoded_len() > room {
            let sizes = outputs
                .iter()
                .map(|(name, value)| (value.to_string().len(), name));
            let Some(largest) = sizes.max().map(|(_, name)| name.clone()) else {
                break;
            };
            outputs.remove(&largest);
            left_out.push(largest);
            current.outputs_json = convert::object_bytes(&outputs);
        }
        let names: Vec<String> = left_out.iter().map(|name| format!("`{name}`")).collect();
        let warning = Report::warning(
            "plugin/outputs-left-out",
            format!(
                "`{}` is compared without its output {}",
                prior.address,
                names.join(", ")
            ),
        )
        .because(format!(
            "with it the question would be larger than the {REQUEST_BYTES_MAX} bytes that plugins take"
        ))
        .fix("nothing has to be done, unless the plugin compares just that");
        tools.reporter.say(Event::Problem(Box::new(warning)));
    }
    request.current = Some(current);
    Ok(left_out)
}

/// What a plugin made of outputs that it was not told is none of its findings: neither a difference, nor
/// a reason to replace.
pub(super) fn forget_artefacts(result: &mut iac::DiffResult, left_out: &[String]) {
    let told = result.changes.len();
    result.changes.retain(|change| {
        let top = change.path.split('.').next().unwrap_or_default();
        !left_out.iter().any(|name| name == top)
    });
    if result.changes.len() < told {
        result.needs_replace = false;
        result.needs_update = !result.changes.is_empty();
    }
}

/// A setting of the name of an output that could not be told is compared with what was applied.
pub(super) fn add_left_out(prior: &Recorded, desired: &Spec, left_out: &[String], diff: &mut Diff) {
    for name in left_out {
        let (old, new) = (prior.config.get(name), desired.public_config.get(name));
        if old == new
            || desired
                .config
                .get(name)
                .is_some_and(|value| !value.is_known())
        {
            continue;
        }
        diff.changes.push(FieldChange {
            path: name.clone(),
            old: old.cloned().unwrap_or_default(),
            new: new.cloned().unwrap_or_default(),
            force_new: false,
        });
        diff.needs_update = !diff.needs_replace;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{Address, Kind, Map, Value};

    fn change(path: &str, force_new: bool) -> iac::FieldChange {
        iac::FieldChange {
            path: path.to_owned(),
            force_new,
            ..iac::FieldChange::default()
        }
    }

    #[test]
    fn what_was_not_told_is_no_difference_and_no_reason_to_replace() {
        let left_out = ["blob".to_owned()];
        let mut result = iac::DiffResult {
            needs_replace: true,
            needs_update: false,
            changes: vec![change("blob.part", true), change("size", false)],
        };
        forget_artefacts(&mut result, &left_out);
        assert!(!result.needs_replace && result.needs_update);
        assert_eq!(result.changes.len(), 1);
        let mut untouched = iac::DiffResult {
            needs_replace: true,
            needs_update: false,
            changes: vec![change("region", true)],
        };
        forget_artefacts(&mut untouched, &left_out);
        assert!(untouched.needs_replace);
    }

    #[test]
    fn a_setting_of_that_name_is_compared_with_what_was_applied() {
        let with = |text: &str| {
            let config = Map::from([("blob".to_owned(), Value::String(text.to_owned()))]);
            let public = serde_json::json!({ "blob": text });
            (config, public.as_object().cloned().unwrap())
        };
        let mut prior = Recorded::by_name(Address::new("a"), Kind::new("infra.vpc"));
        prior.config = with("one").1;
        for (text, expected) in [("one", false), ("two", true)] {
            let (config, public_config) = with(text);
            let desired = Spec {
                address: Address::new("a"),
                kind: Kind::new("infra.vpc"),
                config,
                public_config,
                dependencies: std::collections::BTreeSet::new(),
            };
            let mut diff = Diff::default();
            add_left_out(&prior, &desired, &["blob".to_owned()], &mut diff);
            assert_eq!(diff.needs_update, expected, "{text}");
        }
    }
}
