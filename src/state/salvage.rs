//! A damaged state, as far as it can be read: to name all that is wrong with it, and to put it right.

use std::collections::BTreeMap;

use super::{
    Keepsake, Record, Snapshot, Store, StoreError, StoreResult, journal::Entry, own, snapshot,
};

/// Everything of an environment, each document for itself.
#[derive(Debug, Default)]
pub struct Each {
    /// Every record by its name, as far as that is known, readable or not.
    pub records: Vec<(String, StoreResult<Record>)>,
    /// Every keepsake by its key, readable or not.
    pub keepsakes: Vec<(String, StoreResult<Keepsake>)>,
    /// What is wrong with all of them together: some are missing, and none can be named.
    pub incomplete: Option<StoreError>,
}

impl Each {
    /// Of a state that is whole.
    pub fn of(snapshot: Snapshot) -> Self {
        let records = snapshot.records.into_iter();
        let keepsakes = snapshot.keepsakes.into_iter();
        Self {
            records: records
                .map(|record| (record.resource_id.to_string(), Ok(record)))
                .collect(),
            keepsakes: keepsakes.map(|(key, kept)| (key, Ok(kept))).collect(),
            incomplete: None,
        }
    }
}

/// Something that is there and cannot be read, or should be there and is not.
#[derive(Debug)]
pub struct Damage {
    /// Its name or key, when that is known.
    pub name: Option<String>,
    /// What is wrong with it.
    pub error: StoreError,
}

/// What is whole of a state, and what is not.
#[derive(Debug)]
pub struct Salvage {
    /// All that is whole, with the head's lineage and serial.
    pub snapshot: Snapshot,
    /// All that is not.
    pub damage: Vec<Damage>,
}

impl Salvage {
    /// Reads everything, and goes on after what cannot be read. `None` when there is no state.
    ///
    /// # Errors
    /// When the head cannot be read, or the storage fails: then nothing is known about the rest.
    pub async fn of(store: &dyn Store) -> StoreResult<Option<Self>> {
        let Some(head) = store.head().await? else {
            return Ok(None);
        };
        let each = store.each().await?;
        let mut damage = Vec::new();
        let mut records = Vec::new();
        for (name, record) in each.records {
            records.extend(whole(record, Some(name), &mut damage)?);
        }
        let mut keepsakes = BTreeMap::new();
        for (key, keepsake) in each.keepsakes {
            if let Some(keepsake) = whole(keepsake, Some(key.clone()), &mut damage)? {
                keepsakes.insert(key, keepsake);
            }
        }
        if let Some(error) = each.incomplete {
            damage.push(Damage { name: None, error });
        }
        let journal: Option<Vec<Entry>> = whole(store.journal_read().await, None, &mut damage)?;
        records.sort_by(|one: &Record, two| one.resource_id.cmp(&two.resource_id));
        let mut snapshot = Snapshot {
            format: snapshot::FORMAT,
            environment: store.environment().to_owned(),
            lineage: head.lineage,
            serial: head.serial,
            key_check: String::new(),
            records,
            keepsakes,
            journal: journal.unwrap_or_default(),
        };
        // A key that cannot be told is one more thing that `verify` names, by asking for it itself.
        if snapshot.sealed_values() > 0
            && let Ok(Some(key)) = store.key(false).await
        {
            snapshot.key_check = own::key_check(&key);
        }
        Ok(Some(Self { snapshot, damage }))
    }
}

/// What was read; damage is noted, and anything else is an error as ever.
fn whole<T>(
    read: StoreResult<T>,
    name: Option<String>,
    damage: &mut Vec<Damage>,
) -> StoreResult<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error @ (StoreError::Corrupt { .. } | StoreError::Newer { .. })) => {
            damage.push(Damage { name, error });
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
