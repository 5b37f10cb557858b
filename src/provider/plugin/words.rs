//! The contract's enumerations of requirements, as words.

use tidegate_plugin::iac;

use super::convert;
use crate::provider::ability::Requirement;
use crate::provider::{DriverError, DriverResult, ErrorClass};

/// Finds the value whose proto name, without its prefix and in lower case, is the word; hyphens
/// stand for underscores. Some authors write the whole proto name; it means the same.
fn number<T>(word: &str, prefix: &str, by_name: impl Fn(&str) -> Option<T>) -> DriverResult<T> {
    let upper = word.to_ascii_uppercase().replace('-', "_");
    let name = format!("{prefix}{upper}");
    by_name(&name).or_else(|| by_name(&upper)).ok_or_else(|| {
        DriverError::new(
            ErrorClass::Invalid,
            format!("`{word}` is not a word of the plugin contract"),
        )
    })
}

fn numbers<T: Into<i32>>(
    words: &[String],
    prefix: &str,
    by_name: impl Fn(&str) -> Option<T>,
) -> DriverResult<Vec<i32>> {
    words
        .iter()
        .map(|word| number(word, prefix, &by_name).map(Into::into))
        .collect()
}

/// A runtime such as `kubernetes`; empty for any.
pub(super) fn runtime(word: &str) -> DriverResult<iac::RequirementRuntime> {
    if word.is_empty() {
        return Ok(iac::RequirementRuntime::Unspecified);
    }
    number(
        word,
        "REQUIREMENT_RUNTIME_",
        iac::RequirementRuntime::from_str_name,
    )
}

/// A requirement on the wire.
pub(super) fn requirement(wish: &Requirement) -> DriverResult<iac::IaCRequirement> {
    let kind = if wish.kind.is_empty() {
        iac::RequirementKind::Unspecified
    } else {
        number(
            &wish.kind,
            "REQUIREMENT_KIND_",
            iac::RequirementKind::from_str_name,
        )?
    };
    Ok(iac::IaCRequirement {
        key: wish.key.clone(),
        kind: kind as i32,
        source: wish.source.clone(),
        resource_type_hint: wish.resource_type.clone(),
        environment: wish.environment.clone(),
        runtimes: numbers(
            &wish.runtimes,
            "REQUIREMENT_RUNTIME_",
            iac::RequirementRuntime::from_str_name,
        )?,
        telemetry_signals: numbers(
            &wish.signals,
            "TELEMETRY_SIGNAL_",
            iac::TelemetrySignal::from_str_name,
        )?,
        observability_backends: numbers(
            &wish.backends,
            "OBSERVABILITY_BACKEND_",
            iac::ObservabilityBackend::from_str_name,
        )?,
        deployment_modes: numbers(
            &wish.modes,
            "DEPLOYMENT_MODE_",
            iac::DeploymentMode::from_str_name,
        )?,
        vendor_features: wish.vendor_features.clone(),
        parameters_json: if wish.parameters.is_empty() {
            Vec::new()
        } else {
            convert::object_bytes(&wish.parameters)
        },
    })
}

/// The word of a number, the other way round; nothing for "unspecified".
fn word<T: TryFrom<i32>>(
    number: i32,
    prefix: &str,
    name: impl Fn(&T) -> &'static str,
) -> DriverResult<String> {
    let value = T::try_from(number).map_err(|_| {
        DriverError::new(
            ErrorClass::Invalid,
            format!("{number} is not a number of the plugin contract"),
        )
    })?;
    let name = name(&value);
    let word = name.strip_prefix(prefix).unwrap_or(name);
    Ok(match word {
        "UNSPECIFIED" => String::new(),
        word => word.to_ascii_lowercase().replace('_', "-"),
    })
}

/// The words of numbers; what is unspecified is left out.
fn all<T: TryFrom<i32>>(
    numbers: &[i32],
    prefix: &str,
    name: impl Fn(&T) -> &'static str,
) -> DriverResult<Vec<String>> {
    let words: Vec<String> = numbers
        .iter()
        .map(|number| word(*number, prefix, &name))
        .collect::<DriverResult<_>>()?;
    Ok(words.into_iter().filter(|word| !word.is_empty()).collect())
}

/// A requirement from the wire.
pub(super) fn needed(said: &iac::IaCRequirement) -> DriverResult<Requirement> {
    Ok(Requirement {
        key: said.key.clone(),
        kind: word(
            said.kind,
            "REQUIREMENT_KIND_",
            iac::RequirementKind::as_str_name,
        )?,
        source: said.source.clone(),
        resource_type: said.resource_type_hint.clone(),
        environment: said.environment.clone(),
        runtimes: all(
            &said.runtimes,
            "REQUIREMENT_RUNTIME_",
            iac::RequirementRuntime::as_str_name,
        )?,
        signals: all(
            &said.telemetry_signals,
            "TELEMETRY_SIGNAL_",
            iac::TelemetrySignal::as_str_name,
        )?,
        backends: all(
            &said.observability_backends,
            "OBSERVABILITY_BACKEND_",
            iac::ObservabilityBackend::as_str_name,
        )?,
        modes: all(
            &said.deployment_modes,
            "DEPLOYMENT_MODE_",
            iac::DeploymentMode::as_str_name,
        )?,
        vendor_features: said.vendor_features.clone(),
        parameters: convert::object(&said.parameters_json, "parameters of a need")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_proto_names_in_lower_case() {
        assert_eq!(
            runtime("cloud-run").unwrap(),
            iac::RequirementRuntime::CloudRun
        );
        assert_eq!(runtime("").unwrap(), iac::RequirementRuntime::Unspecified);
        assert_eq!(
            runtime("REQUIREMENT_RUNTIME_ECS").unwrap(),
            iac::RequirementRuntime::Ecs
        );
        assert!(runtime("mainframe").is_err());
        let wish = Requirement {
            kind: "web-api".to_owned(),
            signals: vec!["traces".to_owned()],
            ..Requirement::default()
        };
        let sent = requirement(&wish).unwrap();
        assert_eq!((sent.kind, sent.telemetry_signals), (2, vec![1]));
    }
}
