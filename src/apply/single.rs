//! Effects outside of a plan: one call to a provider, under the lock, for a person who asked for just that.

use super::Engine;
use super::execute::within;
use super::hold::{GivenUp, attended, prove};
use super::ownership::{self, Owner};
use super::refresh::{Refreshed, answered};
use super::survey::{open, owner_of};
use crate::cancel::stopped;
use crate::provider::ability::{MigrationRepair, MigrationRepaired};
use crate::provider::{DriverError, DriverResult, ErrorClass, Provider};
use crate::report::{Exit, Report};
use crate::resource::Kind;
use crate::state::{Lease, Record};

/// Sets how many instances of a recorded resource run, and puts what the provider answers into its
/// record. The config is left alone: the next plan compares with it.
///
/// # Errors
/// When it is somebody else's, when the provider cannot, or when what it answered could not be recorded.
pub async fn scale(
    engine: &Engine<'_>,
    lease: &Lease,
    record: Record,
    replicas: u32,
    owner: &Owner,
) -> Result<Refreshed, Report> {
    let prior = open(engine, &record).map_err(Report::from)?;
    let id = owner_of(engine, &record);
    let driver = engine.driver(
        &prior.address,
        &id,
        &Kind::new(record.resource_type.clone()),
    )?;
    ownership::admit(engine, lease, &id, &prior, owner, "scaled").await?;
    let scaled = effect(engine, lease, driver.scale(&prior, replicas)).await?;
    let live = scaled.map_err(|error| not_scaled(&record, replicas, &error))?;
    let refreshed = answered(engine, driver, record, prior, live);
    if let Some(record) = refreshed.to_write() {
        engine
            .store
            .put(lease, record)
            .await
            .map_err(|error| Report::from(error).fix(RE_READ))?;
    }
    Ok(refreshed)
}

/// What brings a record up to date that may not be.
const RE_READ: &str = "`tidegate infra refresh-outputs` puts into the record what is there by then";

fn not_scaled(record: &Record, replicas: u32, error: &DriverError) -> Report {
    let name = &record.resource_id;
    let why = format!("{} ({})", error.message, error.class.word());
    if error.class == ErrorClass::Unimplemented {
        return Report::error(
            "provider/cannot-scale",
            format!("`{name}` cannot be scaled by its provider"),
        )
        .because(why)
        .fix("change its config, then `tidegate up`")
        .exit(Exit::Usage);
    }
    let report = Report::error(
        "provider/failed",
        format!("`{name}` could not be scaled to {replicas}"),
    )
    .because(why);
    if error.class == ErrorClass::Unknown && !error.answered {
        return report.fix(format!("it may have happened all the same: {RE_READ}"));
    }
    report.fix("remove the cause, then run the command again")
}

/// Orders the repair of a migration that stopped half-way. While it runs nobody else changes the
/// environment.
///
/// # Errors
/// When the lock is lost or the run is stopped; the provider's own error is the inner one.
pub async fn repair(
    engine: &Engine<'_>,
    lease: &Lease,
    provider: &dyn Provider,
    order: &MigrationRepair,
) -> Result<DriverResult<MigrationRepaired>, Report> {
    effect(engine, lease, provider.repair_migration(order)).await
}

/// One effect: asked for only under a lock that is sure, and attended until it ends.
async fn effect<T>(
    engine: &Engine<'_>,
    lease: &Lease,
    call: impl Future<Output = DriverResult<T>>,
) -> Result<DriverResult<T>, Report> {
    engine.cancel.go_on()?;
    prove(engine, lease).await.map_err(Report::from)?;
    match attended(engine, lease, within(engine, call)).await {
        Ok(done) => Ok(done),
        Err(GivenUp::Lost(error)) => Err(Report::from(error)),
        Err(GivenUp::Stopped) => Err(stopped().because(
            "what was asked of the provider had not ended, and may come to its end there",
        )),
    }
}
