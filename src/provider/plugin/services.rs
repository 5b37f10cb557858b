//! What the methods of `abilities` share: which service stands behind an ability, limits, streams,
//! verdicts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prost::Message;
use tidegate_plugin::iac;
use tidegate_plugin::iac::ia_c_provider_drift_config_detector_client::IaCProviderDriftConfigDetectorClient;
use tidegate_plugin::iac::ia_c_provider_drift_detector_client::IaCProviderDriftDetectorClient;
use tonic::{Code, Response, Status, Streaming};

use super::Plugin;
use super::connection::{CallError, Limit, REQUEST_BYTES_MAX, unary};
use super::convert::{self, reference};
use crate::provider::ability::{Ability, Drift, DriftClass, JobHandle, LogTaker};
use crate::provider::{DriverError, DriverResult, Provider as _, lacks};
use crate::resource::{Address, PublicMap, Recorded, Spec};

/// How much longer than asked a log may be followed.
pub(super) const FOLLOW_SPARE: Duration = Duration::from_secs(30);

/// The service that says what an application needs.
pub(super) const DISCOVERY: &str = "IaCRequirementDiscovery";

/// The service behind each ability. The three without one are part of the required service, where
/// a provider that lacks them says so when it is asked.
pub(super) const SERVICES: [(&str, Ability); 14] = [
    ("IaCProviderEnumerator", Ability::Enumerate),
    ("IaCProviderDriftDetector", Ability::Drift),
    ("IaCProviderDriftConfigDetector", Ability::Drift),
    ("IaCProviderCredentialRevoker", Ability::RevokeCredential),
    ("IaCProviderRegionLister", Ability::Regions),
    ("IaCProviderOwnership", Ability::Ownership),
    ("IaCProviderFinalizer", Ability::Finalize),
    ("IaCProviderMigrationRepairer", Ability::RepairMigration),
    ("IaCProviderValidator", Ability::Validate),
    ("IaCProviderLogCapture", Ability::Logs),
    ("IaCProviderRunner", Ability::Jobs),
    (DISCOVERY, Ability::Discovery),
    ("IaCProviderRequirementMapper", Ability::Requirements),
    ("IaCProviderRequired", Ability::Sizing),
];

impl Plugin {
    pub(super) fn failed(&self) -> impl Fn(CallError) -> DriverError + '_ {
        |error| self.connection.driver_error(&error)
    }

    pub(super) fn needs(&self, ability: Ability) -> DriverResult<()> {
        if self.abilities().contains(&ability) {
            Ok(())
        } else {
            Err(lacks(ability.words()))
        }
    }

    pub(super) fn serves(&self, service: &str) -> bool {
        self.services.contains(service)
    }

    pub(super) fn look(&self) -> Limit {
        Limit::look(self.connection.tools().deadlines.look)
    }

    pub(super) fn effect(&self) -> Limit {
        Limit::effect(self.connection.tools().deadlines.effect)
    }

    pub(super) fn said(&self, text: &str) -> String {
        self.connection.tools().excerpt(text)
    }

    /// Reads a stream of log pieces until it ends, says so, or time is up.
    pub(super) async fn take_logs(
        &self,
        opening: impl Future<Output = Result<Response<Streaming<iac::LogChunk>>, Status>> + Send,
        limit: Limit,
        take: LogTaker<'_>,
    ) -> DriverResult<()> {
        let refused = |status| self.connection.driver_error(&CallError::of(status));
        let reading = async {
            let mut stream = opening.await.map_err(refused)?.into_inner();
            while let Some(chunk) = stream.message().await.map_err(refused)? {
                take(&chunk.data);
                // Some servers keep the stream open after the end.
                if chunk.eof {
                    break;
                }
            }
            Ok(())
        };
        tokio::select! {
            done = reading => done,
            over = limit.over(self.connection.tools()) => Err(self.connection.driver_error(&over)),
        }
    }

    /// The newest call that the plugin has and that fits: with configs if there are any. One that it
    /// says it has and does not is as good as none.
    pub(super) async fn detect(
        &self,
        request: iac::DetectDriftConfigRequest,
    ) -> DriverResult<Vec<iac::DriftResult>> {
        let is_missing = |error: &CallError| error.code() == Some(Code::Unimplemented);
        let iac::DetectDriftConfigRequest { refs, specs } = request.clone();
        let has_configs = !specs.is_empty();
        let knows_drift = self.serves("IaCProviderDriftDetector");
        if self.serves("IaCProviderDriftConfigDetector") && (has_configs || !knows_drift) {
            let answer = unary!(
                self.connection,
                IaCProviderDriftConfigDetectorClient.detect_drift_config(request),
                self.look()
            )
            .await;
            match answer {
                Ok(answer) => return Ok(answer.drifts),
                Err(error) if is_missing(&error) && knows_drift => {}
                Err(error) => return Err(self.connection.driver_error(&error)),
            }
        }
        if has_configs {
            let request = iac::DetectDriftWithSpecsRequest {
                refs: refs.clone(),
                specs,
            };
            let answer = unary!(
                self.connection,
                IaCProviderDriftDetectorClient.detect_drift_with_specs(request),
                self.look()
            )
            .await;
            match answer {
                Ok(answer) => return Ok(answer.drifts),
                // Older plugins have only the call below.
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(self.connection.driver_error(&error)),
            }
        }
        let request = iac::DetectDriftRequest { refs };
        let answer = unary!(
            self.connection,
            IaCProviderDriftDetectorClient.detect_drift(request),
            self.look()
        )
        .await
        .map_err(self.failed())?;
        Ok(answer.drifts)
    }

    /// The verdicts of a plugin, for the resources that were asked about.
    pub(super) fn verdicts(
        &self,
        recorded: &[Recorded],
        drifts: Vec<iac::DriftResult>,
    ) -> DriverResult<Vec<Drift>> {
        let asked: BTreeSet<&str> = recorded.iter().map(|r| r.address.as_str()).collect();
        drifts
            .into_iter()
            .filter(|drift| asked.contains(drift.name.as_str()))
            .map(|drift| {
                use iac::DriftClass as Wire;
                let class = match Wire::try_from(drift.class) {
                    Ok(Wire::InSync) => DriftClass::InSync,
                    Ok(Wire::Ghost) => DriftClass::Ghost,
                    Ok(Wire::Config) => DriftClass::Config,
                    // Older plugins only know the flag.
                    Ok(Wire::Unknown) if drift.drifted => DriftClass::Config,
                    Ok(Wire::Unknown) => DriftClass::InSync,
                    Err(_) => DriftClass::Unknown,
                };
                Ok(Drift {
                    address: Address::new(drift.name),
                    class,
                    fields: drift.fields,
                    expected: self.shown(convert::object(&drift.expected_json, "expected fields")?),
                    actual: self.shown(convert::object(&drift.actual_json, "actual fields")?),
                })
            })
            .collect()
    }

    /// Values for people and documents: known secrets taken out.
    fn shown(&self, values: PublicMap) -> PublicMap {
        let masker = &self.connection.tools().masker;
        values
            .into_iter()
            .map(|(key, value)| {
                if masker.is_sensitive(&value.to_string()) {
                    (key, serde_json::Value::String("(sensitive)".to_owned()))
                } else {
                    (key, value)
                }
            })
            .collect()
    }
}

/// What the keys and lengths around one resource take, at most.
const FRAMING_BYTES: usize = 64;

/// Everything to ask about, in requests that a plugin takes. A config that is too large for any is
/// left out, and only the existence of its resource can be told.
pub(super) fn drift_requests(
    recorded: &[Recorded],
    desired: &BTreeMap<Address, Spec>,
) -> Vec<iac::DetectDriftConfigRequest> {
    let mut requests = Vec::new();
    let mut request = iac::DetectDriftConfigRequest::default();
    let mut bytes = 0;
    for prior in recorded {
        let pointer = reference(prior);
        let name = prior.address.to_string();
        let own = pointer.encoded_len() + name.len() + FRAMING_BYTES;
        let spec = desired
            .get(&prior.address)
            .map(|spec| convert::spec(spec, &mut Vec::new()))
            .filter(|spec| own + spec.encoded_len() <= REQUEST_BYTES_MAX);
        let size = own + spec.as_ref().map_or(0, Message::encoded_len);
        if bytes + size > REQUEST_BYTES_MAX && !request.refs.is_empty() {
            requests.push(std::mem::take(&mut request));
            bytes = 0;
        }
        bytes += size;
        request.refs.push(pointer);
        request.specs.extend(spec.map(|spec| (name, spec)));
    }
    if !request.refs.is_empty() {
        requests.push(request);
    }
    requests
}

pub(super) fn handle(job: &JobHandle) -> iac::JobHandle {
    iac::JobHandle {
        id: job.id.clone(),
        name: job.name.clone(),
        provider: job.provider.clone(),
        metadata: job.metadata.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{Kind, Map, Value};

    #[test]
    fn a_large_project_is_asked_about_in_requests_that_a_plugin_takes() {
        let kind = Kind::new("infra.database");
        let of = |name: String, bytes: usize| Spec {
            address: Address::new(name),
            kind: kind.clone(),
            config: Map::from([("note".to_owned(), Value::String("x".repeat(bytes)))]),
            public_config: PublicMap::new(),
            dependencies: BTreeSet::new(),
        };
        let mut specs: Vec<Spec> = (0..50).map(|n| of(format!("db{n:02}"), 100_000)).collect();
        specs.push(of("huge".to_owned(), REQUEST_BYTES_MAX));
        let desired: BTreeMap<Address, Spec> = specs
            .into_iter()
            .map(|spec| (spec.address.clone(), spec))
            .collect();
        let recorded: Vec<Recorded> = desired
            .keys()
            .map(|address| Recorded::by_name(address.clone(), kind.clone()))
            .collect();
        let requests = drift_requests(&recorded, &desired);
        assert_eq!(requests.len(), 2);
        for request in &requests {
            assert!(request.encoded_len() <= REQUEST_BYTES_MAX);
        }
        let asked: BTreeSet<&str> = requests
            .iter()
            .flat_map(|request| request.refs.iter().map(|asked| asked.name.as_str()))
            .collect();
        assert_eq!(asked.len(), 51);
        let with_config: usize = requests.iter().map(|request| request.specs.len()).sum();
        assert_eq!(with_config, 50, "all but the one that fits nowhere");
    }
}
