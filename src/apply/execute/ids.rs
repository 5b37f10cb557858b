//! Who has which id: a provider that answers two creates with one id has mixed up something.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::resource::{Address, Kind, ProviderId};
use crate::state::Records;

/// The ids on record, by what they are an id of.
#[derive(Debug)]
pub(super) struct Ids(RefCell<HashMap<String, Address>>);

impl Ids {
    pub(super) fn of_records(records: &Records) -> Self {
        let ids = records
            .iter()
            .filter(|record| !record.provider_id.is_empty())
            .map(|record| {
                let key = key(
                    &record.provider_ref,
                    &record.resource_type,
                    &record.provider_id,
                );
                (key, record.resource_id.clone())
            });
        Self(RefCell::new(ids.collect()))
    }

    /// The resource that has it.
    pub(super) fn of(&self, provider: &ProviderId, kind: &Kind, id: &str) -> Option<Address> {
        self.0
            .borrow()
            .get(&key(provider.as_str(), kind.as_str(), id))
            .cloned()
    }

    pub(super) fn note(&self, provider: &ProviderId, kind: &Kind, id: &str, address: &Address) {
        let key = key(provider.as_str(), kind.as_str(), id);
        self.0.borrow_mut().insert(key, address.clone());
    }

    /// It is gone, and its id is nobody's.
    pub(super) fn forget(&self, provider: &ProviderId, kind: &Kind, id: &str) {
        let key = key(provider.as_str(), kind.as_str(), id);
        self.0.borrow_mut().remove(&key);
    }
}

fn key(provider: &str, kind: &str, id: &str) -> String {
    format!("{provider}\n{kind}\n{id}")
}
