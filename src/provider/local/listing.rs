//! What is there: every folder under the root that bears a marker of this environment. PostgreSQL
//! databases lie on a server and are found by name only.

use super::Local;
use super::folder::Made;
use crate::provider::ability::Found;
use crate::provider::{DriverError, DriverResult, ErrorClass, Provider as _};
use crate::resource::{Address, Kind, Observed, Output, Recorded};

/// The tag that everything of an environment bears.
fn tag(environment: &str) -> String {
    format!("env:{environment}")
}

impl Local {
    /// Every resource of this environment, of one kind or of all, sorted by name.
    pub(super) async fn found(&self, kind: Option<&Kind>) -> DriverResult<Vec<Found>> {
        let mut all = Vec::new();
        for made in self.service.folders.made()? {
            if kind.is_some_and(|kind| *kind != made.kind) {
                continue;
            }
            all.push(self.describe(made).await?);
        }
        Ok(all)
    }

    /// Everything with a tag. The one tag there is says which environment a resource is of.
    pub(super) async fn tagged(&self, wanted: &str) -> DriverResult<Vec<Found>> {
        if wanted == tag(self.service.folders.environment()) {
            self.found(None).await
        } else {
            Ok(Vec::new())
        }
    }

    async fn describe(&self, made: Made) -> DriverResult<Found> {
        let prior = Recorded::by_name(made.name.clone(), made.kind.clone());
        let mut observed = match self.driver(&made.kind) {
            Some(driver) => Some(driver.read(&prior).await?),
            None => None,
        };
        if let Some(observed) = &mut observed
            && !made.made_at.is_empty()
        {
            observed.outputs.insert(
                "created_at".to_owned(),
                Output::Public(made.made_at.clone().into()),
            );
        }
        Ok(Found {
            name: made.name.as_str().to_owned(),
            kind: made.kind,
            provider_id: observed
                .as_ref()
                .map_or_else(String::new, |observed| observed.provider_id.clone()),
            observed,
        })
    }

    /// The resource of that name, if it has that id.
    pub(super) async fn identified(
        &self,
        address: &Address,
        kind: &Kind,
        provider_id: &str,
    ) -> DriverResult<Observed> {
        let Some(driver) = self.driver(kind) else {
            return Err(DriverError::new(
                ErrorClass::Invalid,
                format!("the `local` provider has no resources of type `{kind}`"),
            ));
        };
        let observed = driver
            .read(&Recorded::by_name(address.clone(), kind.clone()))
            .await?;
        if observed.provider_id == provider_id {
            return Ok(observed);
        }
        Err(DriverError::new(
            ErrorClass::NotFound,
            format!(
                "the {kind} `{address}` has the id `{}`, not the one that was given; the `local` \
                 provider finds a resource under its own name only",
                observed.provider_id
            ),
        ))
    }
}
