//! The process: handshake, what it carries, how it ends.

use std::time::Duration;

use tokio::time::timeout;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::launch::{Channel, Launched, command, drain};
use super::{Book, Conformance, ensure, said};
use crate::iac::ia_c_provider_required_client::IaCProviderRequiredClient;
use crate::iac::resource_driver_client::ResourceDriverClient;
use crate::launch::grpc_broker_client::GrpcBrokerClient;
use crate::launch::grpc_stdio_client::GrpcStdioClient;
use crate::plugin::plugin_service_client::PluginServiceClient;
use crate::plugin::{ContractKind, ContractMode};
use crate::tls::Identity;
use crate::{Error, iac};

pub(super) const PACKAGE: &str = "workflow.plugin.external.iac.";

pub(super) async fn scenarios(conformance: &Conformance, book: &mut Book) {
    book.check(
        "without the cookie it says why and ends with 1",
        no_cookie(conformance),
    )
    .await;
    let answers = book.check(
        "it prints one handshake line and listens where it says",
        async {
            let launched = Launched::start(conformance).await?;
            ensure(launched.line.split('|').count() >= 4, || {
                format!("only {:?}", launched.line)
            })?;
            for (number, expected) in [(1, "1"), (2, "1")] {
                ensure(launched.field(number) == expected, || {
                    format!("field {number} of {:?}", launched.line)
                })?;
            }
            ensure(["", "grpc"].contains(&launched.field(5)), || {
                format!("protocol {:?}", launched.field(5))
            })?;
            launched.connect().await.map(drop)
        },
    );
    if !answers.await {
        return;
    }
    book.check(
        "asked for mutual TLS it answers its host and nobody else, or does not start",
        tls(conformance),
    )
    .await;
    book.check("health is SERVING for the service plugin", async {
        let launched = Launched::start(conformance).await?;
        let mut health = HealthClient::with_origin(launched.connect().await?, origin());
        for (service, expected) in [
            ("plugin", ServingStatus::Serving),
            ("", ServingStatus::Serving),
        ] {
            let request = HealthCheckRequest {
                service: service.to_owned(),
            };
            let answer = health
                .check(request)
                .await
                .map_err(said("Check"))?
                .into_inner();
            ensure(answer.status() == expected, || {
                format!("{service:?} is {:?}", answer.status())
            })?;
        }
        let unknown = health
            .check(HealthCheckRequest {
                service: "nobody".to_owned(),
            })
            .await;
        ensure(
            unknown
                .as_ref()
                .is_err_and(|status| status.code() == Code::NotFound),
            || format!("an unknown service is {unknown:?}"),
        )
    })
    .await;
    book.check(
        "broker and stdio streams may be opened and left alone",
        idle_streams(conformance),
    )
    .await;
    book.check(
        "the registry lists what is served, sorted, and nothing else",
        registry(conformance),
    )
    .await;
    book.check("the manifest names a plain version", manifest(conformance))
        .await;
    if is_provider(conformance).await {
        book.check(
            "capabilities come before initialize, and say v2",
            capabilities(conformance),
        )
        .await;
        book.check(
            "before initialize a read fails, and not as a missing resource",
            too_early(conformance),
        )
        .await;
    }
    #[cfg(unix)]
    book.check("an interrupt does not end it", async {
        let launched = Launched::start(conformance).await?;
        // Once it answers it is done with starting.
        registered(&launched.connect().await?).await?;
        let process = launched
            .child
            .id()
            .and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        rustix::process::kill_process(process.ok_or("no process")?, rustix::process::Signal::INT)
            .map_err(|error| error.to_string())?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        registered(&launched.connect().await?).await.map(drop)
    })
    .await;
    book.check(
        "Shutdown ends it within 2 s with code 0 and without its socket",
        async {
            let launched = Launched::start(conformance).await?;
            let socket = launched.socket();
            // A host has these open, and they must not hold it back.
            let channel = launched.connect().await?;
            let streams = tokio::spawn(open_streams(channel));
            let (exit, rest) = launched.shut_down().await?;
            streams.abort();
            ensure(exit.success(), || format!("it ended with {exit}"))?;
            ensure(rest.is_empty(), || format!("raw stdout also held {rest:?}"))?;
            ensure(socket.is_none_or(|socket| !socket.exists()), || {
                "its socket is still there".to_owned()
            })
        },
    )
    .await;
}

pub(super) fn origin() -> http::Uri {
    http::Uri::from_static("http://unused")
}

async fn no_cookie(conformance: &Conformance) -> Result<(), String> {
    let mut command = command(conformance);
    let mut child = command
        .env_remove("WORKFLOW_PLUGIN")
        .spawn()
        .map_err(|error| error.to_string())?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("no pipes".to_owned());
    };
    let (stdout, stderr) = tokio::join!(drain(stdout), drain(stderr));
    let exit = child.wait().await.map_err(|error| error.to_string())?;
    ensure(exit.code() == Some(1), || format!("it ended with {exit}"))?;
    ensure(stdout.is_empty(), || format!("stdout held {stdout:?}"))?;
    ensure(!stderr.trim().is_empty(), || "it said nothing".to_owned())
}

async fn tls(conformance: &Conformance) -> Result<(), String> {
    let asking = |certificate: &str| {
        let mut command = command(conformance);
        command.env("PLUGIN_CLIENT_CERT", certificate);
        Launched::start_with(command)
    };
    let told = |error: crate::tls::TlsError| error.to_string();
    // Nobody has that certificate: it may end, or answer nobody.
    if let Ok(launched) =
        asking("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").await
    {
        unheard(launched.connect().await).await?;
    }
    let (host, stranger) = (
        Identity::generate().map_err(told)?,
        Identity::generate().map_err(told)?,
    );
    // Not to start is a way of saying that it does not speak TLS.
    let Ok(launched) = asking(&host.pem()).await else {
        return Ok(());
    };
    ensure(launched.field(6).len() > 50, || {
        format!("no certificate in {:?}", launched.line)
    })?;
    unheard(launched.connect().await).await?;
    unheard(launched.connect_tls(&stranger).await).await?;
    registered(&launched.connect_tls(&host).await?)
        .await
        .map(drop)
}

/// A connection over which nothing is answered.
async fn unheard(channel: Result<Channel, String>) -> Result<(), String> {
    let Ok(channel) = channel else { return Ok(()) };
    let answer = timeout(Duration::from_secs(5), registered(&channel)).await;
    ensure(!matches!(answer, Ok(Ok(_))), || {
        "it answered somebody who is not its host".to_owned()
    })
}

/// Opens what hosts open right after connecting, and holds it.
async fn open_streams(channel: Channel) {
    let mut broker = GrpcBrokerClient::with_origin(channel.clone(), origin());
    let mut stdio = GrpcStdioClient::with_origin(channel, origin());
    let printed = async {
        if let Ok(stream) = stdio.stream_stdio(()).await {
            let mut stream = stream.into_inner();
            while let Ok(Some(_)) = stream.message().await {}
        }
    };
    drop(tokio::join!(
        broker.start_stream(futures_util::stream::pending()),
        printed
    ));
}

async fn idle_streams(conformance: &Conformance) -> Result<(), String> {
    let launched = Launched::start(conformance).await?;
    let channel = launched.connect().await?;
    let streams = tokio::spawn(open_streams(channel.clone()));
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Same connection, and another one beside it.
    registered(&channel).await?;
    registered(&launched.connect().await?).await?;
    streams.abort();
    registered(&channel).await.map(drop)
}

/// Names of the infrastructure services in the registry.
pub(super) async fn registered(channel: &Channel) -> Result<Vec<String>, String> {
    let mut plugin = PluginServiceClient::with_origin(channel.clone(), origin());
    let registry = plugin
        .get_contract_registry(())
        .await
        .map_err(said("GetContractRegistry"))?
        .into_inner();
    registry
        .contracts
        .into_iter()
        .filter(|contract| contract.service_name.starts_with(PACKAGE))
        .map(|contract| {
            ensure(
                contract.kind == ContractKind::Service as i32
                    && contract.mode == ContractMode::StrictProto as i32,
                || {
                    format!(
                        "{} has kind {} and mode {}",
                        contract.service_name, contract.kind, contract.mode
                    )
                },
            )?;
            Ok(contract.service_name)
        })
        .collect()
}

async fn is_provider(conformance: &Conformance) -> bool {
    let Ok(launched) = Launched::start(conformance).await else {
        return false;
    };
    let Ok(channel) = launched.connect().await else {
        return false;
    };
    let names = registered(&channel).await.unwrap_or_default();
    names
        .iter()
        .any(|name| name.ends_with(".IaCProviderRequired"))
}

/// Every service of the contract with one of its methods.
const SERVICES: [(&str, &str); 16] = [
    ("IaCProviderCredentialRevoker", "RevokeProviderCredential"),
    ("IaCProviderDriftConfigDetector", "DetectDriftConfig"),
    ("IaCProviderDriftDetector", "DetectDrift"),
    ("IaCProviderEnumerator", "EnumerateAll"),
    ("IaCProviderFinalizer", "FinalizeApply"),
    ("IaCProviderLogCapture", "CaptureLogs"),
    ("IaCProviderMigrationRepairer", "RepairDirtyMigration"),
    ("IaCProviderOwnership", "GetOwner"),
    ("IaCProviderRegionLister", "ListRegions"),
    ("IaCProviderRequired", "Name"),
    ("IaCProviderRequirementMapper", "MapRequirements"),
    ("IaCProviderRunner", "RunJob"),
    ("IaCProviderValidator", "ValidatePlan"),
    ("IaCRequirementDiscovery", "DiscoverRequirements"),
    ("IaCStateBackend", "ListBackendNames"),
    ("ResourceDriver", "SensitiveKeys"),
];

async fn registry(conformance: &Conformance) -> Result<(), String> {
    let launched = Launched::start(conformance).await?;
    let channel = launched.connect().await?;
    let names = registered(&channel).await?;
    ensure(names.is_sorted(), || format!("not sorted: {names:?}"))?;
    ensure(!names.is_empty(), || "nothing is registered".to_owned())?;
    let mut asked = String::new();
    for (service, method) in SERVICES {
        let advertised = names.contains(&format!("{PACKAGE}{service}"));
        // Nothing is initialised, so an empty request has no effect; whether the service is there
        // shows all the same.
        let path = http::uri::PathAndQuery::try_from(format!("/{PACKAGE}{service}/{method}"))
            .map_err(|error| error.to_string())?;
        let mut client = tonic::client::Grpc::with_origin(channel.clone(), origin());
        if let Err(error) = client.ready().await {
            // A handler that trusts what is in a request dies of an empty one.
            let end = launched.last_words().await;
            return Err(format!("after an empty request to {asked}: {error}; {end}"));
        }
        asked = format!("{service}/{method}");
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        // As a stream, which fits every method; a log may go on for ever, and Go servers say nothing
        // at all before their first piece. Who has no service says so at once.
        let answer = client.server_streaming(tonic::Request::new(()), path, codec);
        let answer = timeout(Duration::from_secs(5), answer).await;
        let absent = matches!(&answer, Ok(Err(status)) if status.code() == Code::Unimplemented);
        ensure(advertised != absent, || {
            let is = if advertised {
                "is advertised and does not answer"
            } else {
                "answers and is not advertised"
            };
            format!("{service} {is}")
        })?;
    }
    Ok(())
}

async fn manifest(conformance: &Conformance) -> Result<(), String> {
    let launched = Launched::start(conformance).await?;
    let mut plugin = PluginServiceClient::with_origin(launched.connect().await?, origin());
    let manifest = match plugin.get_manifest(()).await {
        Ok(manifest) => manifest.into_inner(),
        // Then hosts take the file.
        Err(status) if status.code() == Code::Unimplemented => return Ok(()),
        Err(status) => return Err(said("GetManifest")(status)),
    };
    let parts: Vec<&str> = manifest.version.split('.').collect();
    ensure(
        parts.len() == 3 && parts.iter().all(|part| part.parse::<u64>().is_ok()),
        || format!("the version is {:?}", manifest.version),
    )?;
    for (field, value) in [
        ("name", manifest.name),
        ("author", manifest.author),
        ("description", manifest.description),
    ] {
        ensure(!value.is_empty(), || format!("{field} is empty"))?;
    }
    Ok(())
}

async fn capabilities(conformance: &Conformance) -> Result<(), String> {
    let launched = Launched::start(conformance).await?;
    let mut provider = IaCProviderRequiredClient::with_origin(launched.connect().await?, origin());
    let capabilities = provider
        .capabilities(iac::CapabilitiesRequest {})
        .await
        .map_err(said("Capabilities"))?
        .into_inner();
    ensure(capabilities.compute_plan_version == "v2", || {
        format!("{:?}", capabilities.compute_plan_version)
    })?;
    ensure(!capabilities.capabilities.is_empty(), || {
        "no resource types".to_owned()
    })?;
    let name = provider
        .name(iac::NameRequest {})
        .await
        .map_err(said("Name"))?
        .into_inner()
        .name;
    ensure(!name.is_empty(), || "the provider has no name".to_owned())?;
    for sample in &conformance.samples {
        ensure(
            capabilities
                .capabilities
                .iter()
                .any(|found| found.resource_type == sample.kind),
            || format!("{} is not among the resource types", sample.kind),
        )?;
    }
    Ok(())
}

async fn too_early(conformance: &Conformance) -> Result<(), String> {
    let Some(sample) = conformance.samples.first() else {
        return Ok(());
    };
    let launched = Launched::start(conformance).await?;
    let mut driver = ResourceDriverClient::with_origin(launched.connect().await?, origin());
    let request = iac::ResourceReadRequest {
        resource_type: sample.kind.clone(),
        r#ref: Some(iac::ResourceRef {
            name: sample.name.clone(),
            r#type: sample.kind.clone(),
            provider_id: String::new(),
        }),
    };
    match driver.read(request).await {
        Ok(_) => Err("it was read".to_owned()),
        Err(status) => ensure(!Error::from_status(&status).is_not_found(), || {
            said("Read")(status)
        }),
    }
}
