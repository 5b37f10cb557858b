//! What the methods of `abilities` share: which service stands behind an ability, limits, streams,
//! verdicts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidegate_plugin::iac;
use tonic::{Response, Status, Streaming};

use super::Plugin;
use super::connection::CallError;
use super::convert;
use crate::provider::ability::{Ability, Drift, DriftClass, JobHandle, LogTaker};
use crate::provider::{DriverError, DriverResult, Provider as _, lacks};
use crate::resource::{Address, PublicMap, Recorded, Spec};

/// How much longer than asked a log may be followed.
pub(super) const FOLLOW_SPARE: Duration = Duration::from_secs(30);

/// The service behind each ability. The three without one are part of the required service, where
/// a provider that lacks them says so when it is asked.
pub(super) const SERVICES: [(&str, Ability); 13] = [
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

    pub(super) fn look(&self) -> Duration {
        self.connection.tools().deadlines.look
    }

    pub(super) fn effect(&self) -> Duration {
        self.connection.tools().deadlines.effect
    }

    pub(super) fn said(&self, text: &str) -> String {
        self.connection.tools().excerpt(text)
    }

    /// Reads a stream of log pieces until it ends, says so, or time is up.
    pub(super) async fn take_logs(
        &self,
        opening: impl Future<Output = Result<Response<Streaming<iac::LogChunk>>, Status>> + Send,
        limit: Duration,
        take: LogTaker<'_>,
    ) -> DriverResult<()> {
        let refused = |status| self.connection.driver_error(&CallError::of(status));
        let clock = &self.connection.tools().clock;
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
            () = clock.sleep(limit) => Err(self.connection.driver_error(&CallError::Late(limit))),
        }
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
                    Ok(Wire::Unknown) | Err(_) if drift.drifted => DriftClass::Config,
                    Ok(Wire::Unknown) | Err(_) => DriftClass::Unknown,
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

pub(super) fn specs(desired: &BTreeMap<Address, Spec>) -> BTreeMap<String, iac::ResourceSpec> {
    desired
        .iter()
        .map(|(address, spec)| (address.to_string(), convert::spec(spec, &mut Vec::new())))
        .collect()
}

pub(super) fn handle(job: &JobHandle) -> iac::JobHandle {
    iac::JobHandle {
        id: job.id.clone(),
        name: job.name.clone(),
        provider: job.provider.clone(),
        metadata: job.metadata.clone(),
    }
}
