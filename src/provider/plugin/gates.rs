//! What must hold before a plugin may touch anything. Each gate has an error of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidegate_plugin::convention;
use tidegate_plugin::iac::ia_c_provider_required_client::IaCProviderRequiredClient;
use tidegate_plugin::iac::resource_driver_client::ResourceDriverClient;
use tidegate_plugin::iac::{CapabilitiesRequest, InitializeRequest, SensitiveKeysRequest};
use tidegate_plugin::plugin::plugin_service_client::PluginServiceClient;
use tidegate_plugin::plugin::{ContractKind, ContractRegistry};
use tonic::Code;

use super::connection::{Connection, unary};
use super::find::Found;
use crate::package::descriptor::ENGINE_VERSION;
use crate::package::name::version_numbers;
use crate::provider::ErrorClass;
use crate::report::{Event, Report};
use crate::resource::Kind;

/// Package of the services of the contract, with its dot.
const PACKAGE: &str = "workflow.plugin.external.iac.";
/// Served by every provider.
const REQUIRED: &str = "IaCProviderRequired";
/// Served by every provider that has resources; nothing can be planned without.
pub(super) const DRIVER: &str = "ResourceDriver";
/// The only way of driving plans that is spoken.
const PLAN_VERSION: &str = "v2";

/// Config keys every resource may have at a provider that does not say which.
pub const DEFAULT_CANONICAL_KEYS: [&str; 32] = [
    "name",
    "region",
    "image",
    "http_port",
    "internal_ports",
    "protocol",
    "instance_count",
    "size",
    "env_vars",
    "env_vars_secret",
    "vpc_ref",
    "autoscaling",
    "routes",
    "cors",
    "domains",
    "health_check",
    "liveness_check",
    "ingress",
    "egress",
    "alerts",
    "log_destinations",
    "termination",
    "maintenance",
    "jobs",
    "workers",
    "static_sites",
    "sidecars",
    "build_command",
    "run_command",
    "dockerfile_path",
    "source_dir",
    "provider_specific",
];

/// Gates that need no process: what the manifest says.
pub(super) fn manifest(plugin: &Found) -> Result<Option<Report>, Report> {
    let manifest = &plugin.manifest;
    // A suffix (`-rc.1`, `+build`) does not make it another contract; what is no version at all says
    // nothing.
    let release =
        |wanted: &String| version_numbers(wanted.split(['-', '+']).next().unwrap_or_default());
    if let Some(wanted) = &manifest.min_engine_version
        && let Some(numbers) = release(wanted)
        && version_numbers(ENGINE_VERSION).is_some_and(|spoken| numbers > spoken)
    {
        return Err(Report::error(
            "plugin/engine-too-old",
            format!(
                "plugin `{}` needs an engine of version {wanted} or newer",
                plugin.name
            ),
        )
        .because(format!(
            "tidegate {} speaks the plugin contract of engine {ENGINE_VERSION}",
            env!("CARGO_PKG_VERSION"),
        ))
        .fix("use a newer tidegate, or an older release of the plugin"));
    }
    match manifest.plan_version.as_deref() {
        Some(PLAN_VERSION) => Ok(None),
        None => Ok(Some(
            Report::warning(
                "plugin/plan-version-unsaid",
                format!(
                    "the plugin.json of `{}` does not say `computePlanVersion`; what the running plugin says decides",
                    plugin.name
                ),
            )
            .fix("ask its author to declare `\"computePlanVersion\": \"v2\"`"),
        )),
        Some(other) => Err(plan_version(&plugin.name, other, "its plugin.json says")),
    }
}

fn plan_version(plugin: &str, said: &str, who: &str) -> Report {
    Report::error(
        "plugin/plan-version",
        format!(
            "plugin `{plugin}` is too old: it does not drive plans the way `{PLAN_VERSION}` does"
        ),
    )
    .because(format!("{who} `{said}`"))
    .fix("install a newer release of the plugin, one that declares `computePlanVersion: v2`")
}

/// What a plugin said about itself while it was loaded.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) version: String,
    /// Short names of the services of the contract it serves.
    pub(super) services: BTreeSet<String>,
    /// The kinds it handles.
    pub(super) kinds: BTreeSet<Kind>,
    /// Those of which an old one and its new one can be there at once.
    pub(super) create_before_destroy: BTreeSet<Kind>,
    /// Config keys its resources may have.
    pub(super) canonical_keys: Vec<String>,
}

/// The version of the running plugin: what it says, or what its file on disk says.
pub(super) async fn version(connection: &Connection, plugin: &Found) -> Result<String, Report> {
    let setup = connection.tools().deadlines.setup;
    match unary!(connection, PluginServiceClient.get_manifest(()), setup).await {
        Ok(said) if !said.version.is_empty() => Ok(connection.tools().excerpt(&said.version)),
        Ok(_) => Ok(plugin.manifest.version.clone()),
        Err(error) if error.code() == Some(Code::Unimplemented) => {
            Ok(plugin.manifest.version.clone())
        }
        Err(error) => Err(connection.load_error("plugin/get-manifest", "GetManifest", &error)),
    }
}

/// The services of the contract a plugin serves.
pub(super) async fn services(connection: &Connection) -> Result<BTreeSet<String>, Report> {
    let setup = connection.tools().deadlines.setup;
    let registry = match unary!(
        connection,
        PluginServiceClient.get_contract_registry(()),
        setup
    )
    .await
    {
        Ok(registry) => registry,
        Err(error) if error.code() == Some(Code::Unimplemented) => ContractRegistry::default(),
        Err(error) => {
            return Err(connection.load_error("plugin/registry", "GetContractRegistry", &error));
        }
    };
    Ok(registry
        .contracts
        .iter()
        .filter(|contract| contract.kind == ContractKind::Service as i32)
        .filter_map(|contract| contract.service_name.strip_prefix(PACKAGE))
        .map(str::to_owned)
        .collect())
}

/// Goes through every gate of a provider. `Initialize` comes before `Capabilities`: existing
/// plugins know what they can do only once they know their account.
pub(super) async fn provider(
    connection: &Connection,
    plugin: &Found,
    config_json: Vec<u8>,
) -> Result<Loaded, Report> {
    let deadlines = &connection.tools().deadlines;
    let version = version(connection, plugin).await?;
    let services = services(connection).await?;
    for (service, code) in [
        (REQUIRED, "plugin/not-a-provider"),
        (DRIVER, "plugin/no-driver"),
    ] {
        if !services.contains(service) {
            return Err(Report::error(
                code,
                format!(
                    "plugin `{}` does not serve `{PACKAGE}{service}`",
                    connection.plugin
                ),
            )
            .because("it is not in the contract registry of the plugin")
            .fix("install a newer release of the plugin"));
        }
    }
    let request = InitializeRequest { config_json };
    unary!(
        connection,
        IaCProviderRequiredClient.initialize(request),
        deadlines.initialize
    )
    .await
    .map_err(|error| {
        connection
            .load_error("plugin/initialize", "Initialize", &error)
            .fix("correct the settings of the provider module")
    })?;
    let said = unary!(
        connection,
        IaCProviderRequiredClient.capabilities(CapabilitiesRequest {}),
        deadlines.setup
    )
    .await
    .map_err(|error| connection.load_error("plugin/capabilities", "Capabilities", &error))?;
    if said.compute_plan_version != PLAN_VERSION {
        let word = connection.tools().excerpt(&said.compute_plan_version);
        return Err(plan_version(&connection.plugin, &word, "the plugin says"));
    }
    let kinds: BTreeSet<Kind> = said
        .capabilities
        .iter()
        .map(|capability| Kind::new(capability.resource_type.clone()))
        .filter(|kind| !kind.as_str().is_empty())
        .collect();
    if kinds.is_empty() {
        return Err(Report::error(
            "plugin/no-types",
            format!(
                "plugin `{}` says it handles no type of resource",
                connection.plugin
            ),
        )
        .fix("install a newer release of the plugin"));
    }
    let create_before_destroy = said
        .capabilities
        .iter()
        .filter(|capability| {
            let mut operations = capability.operations.iter();
            operations.any(|word| word == convention::CREATE_BEFORE_DESTROY)
        })
        .map(|capability| Kind::new(capability.resource_type.clone()))
        .collect();
    Ok(Loaded {
        version,
        services,
        kinds,
        create_before_destroy,
        canonical_keys: canonical_keys(said.canonical_keys, &connection.plugin)?,
    })
}

fn canonical_keys(said: Vec<String>, plugin: &str) -> Result<Vec<String>, Report> {
    if said.is_empty() {
        return Ok(DEFAULT_CANONICAL_KEYS.map(str::to_owned).to_vec());
    }
    let distinct: BTreeSet<&String> = said.iter().collect();
    if distinct.len() != said.len() || said.iter().any(|key| key.trim().is_empty()) {
        return Err(Report::error(
            "plugin/canonical-keys",
            format!("plugin `{plugin}` lists config keys that are empty or there twice"),
        )
        .fix("install a newer release of the plugin"));
    }
    Ok(said)
}

/// Tries of a question about sensitive outputs, the first included.
const TRIES: u32 = 4;
const BACKOFF: Duration = Duration::from_millis(250);

/// Which outputs of each kind are sensitive; a kind is missing when the driver does not say. What fails
/// for now is asked again: to go on without an answer would be to take every output for a secret.
pub(super) async fn sensitive_keys(
    connection: &Connection,
    kinds: &BTreeSet<Kind>,
) -> Result<BTreeMap<Kind, BTreeSet<String>>, Report> {
    let asked = kinds.iter().map(|kind| async move {
        let keys = keys_of(connection, kind).await?;
        Ok::<_, Report>(keys.map(|keys| (kind.clone(), keys)))
    });
    let said = futures_util::future::try_join_all(asked).await?;
    Ok(said.into_iter().flatten().collect())
}

async fn keys_of(connection: &Connection, kind: &Kind) -> Result<Option<BTreeSet<String>>, Report> {
    let tools = connection.tools();
    let setup = tools.deadlines.setup;
    let mut failures = 0;
    loop {
        let request = SensitiveKeysRequest {
            resource_type: kind.to_string(),
        };
        let said = unary!(
            connection,
            ResourceDriverClient.sensitive_keys(request),
            setup
        )
        .await;
        let error = match said {
            Ok(said) => return Ok(Some(said.keys.into_iter().collect())),
            Err(error) => connection.driver_error(&error),
        };
        if error.class == ErrorClass::Unimplemented {
            return Ok(None);
        }
        failures += 1;
        let is_for_now =
            !error.answered || matches!(error.class, ErrorClass::Throttled | ErrorClass::Transient);
        let may_pass = is_for_now || error.class == ErrorClass::Unknown;
        if may_pass && failures < TRIES {
            let wait = error.retry_after.unwrap_or(BACKOFF * 2_u32.pow(failures));
            tools.clock.sleep(wait.clamp(BACKOFF, setup)).await;
            continue;
        }
        let plugin = &connection.plugin;
        let what =
            format!("plugin `{plugin}` could not say which outputs of `{kind}` are sensitive");
        let because = format!("{} ({})", error.message, error.class.word());
        if is_for_now {
            return Err(Report::error(UNSAID, what)
                .because(because)
                .fix("run the command again; without that answer every output would be taken for a secret"));
        }
        tools.reporter.say(Event::Problem(Box::new(
            Report::warning(UNSAID, format!("{what}; all that the config does not declare count as sensitive"))
                .because(because)
                .fix("declare under `outputs:` which are not (`sensitive: false`), or install a newer release of the plugin"),
        )));
        return Ok(None);
    }
}

/// The code of a question about sensitive outputs that brought no answer.
const UNSAID: &str = "plugin/sensitive-keys";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h23_no_canonical_keys_are_the_32_default_ones() {
        let keys = canonical_keys(Vec::new(), "x").unwrap();
        assert_eq!((keys.len(), keys[0].as_str()), (32, "name"));
        let own = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(canonical_keys(own.clone(), "x").unwrap(), own);
        for wrong in [["a", "a"], ["a", " "]] {
            let problem = canonical_keys(wrong.map(str::to_owned).to_vec(), "x").unwrap_err();
            assert_eq!(problem.code, "plugin/canonical-keys");
        }
    }
}
