//! All records of an environment, as a plan needs them: found by name, never copied.

use crate::resource::Address;

use super::Record;

/// Records, sorted by address, each address once.
#[derive(Clone, Debug, Default)]
pub struct Records(Vec<Record>);

impl From<Vec<Record>> for Records {
    /// A store lists them in order: then nothing is moved. Of one address, the last counts.
    fn from(mut records: Vec<Record>) -> Self {
        if !records.is_sorted_by(|one, next| one.resource_id < next.resource_id) {
            records.reverse();
            records.sort_by(|one, other| one.resource_id.cmp(&other.resource_id));
            records.dedup_by(|one, before| one.resource_id == before.resource_id);
        }
        Self(records)
    }
}

impl From<Records> for Vec<Record> {
    fn from(records: Records) -> Self {
        records.0
    }
}

impl Records {
    /// The record of this resource.
    pub fn get(&self, address: &Address) -> Option<&Record> {
        let position = self
            .0
            .binary_search_by(|record| record.resource_id.cmp(address));
        self.0.get(position.ok()?)
    }

    /// By position, in the order of addresses.
    pub fn at(&self, position: u32) -> Option<&Record> {
        self.0.get(position as usize)
    }

    /// All of them, by address.
    pub fn iter(&self) -> std::slice::Iter<'_, Record> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(address: &str, status: &str) -> Record {
        serde_json::from_value(json!({
            "resource_id": address, "resource_type": "infra.storage", "provider": "local",
            "status": status, "created_at": "", "updated_at": "",
        }))
        .unwrap()
    }

    #[test]
    fn they_are_found_by_name_in_whatever_order_they_came() {
        let names = |records: &Records| -> Vec<String> {
            let names = records.iter().map(|record| record.resource_id.to_string());
            names.collect()
        };
        let sorted = Records::from(vec![record("a", "active"), record("b", "active")]);
        assert_eq!(names(&sorted), ["a", "b"]);
        let mixed = Records::from(vec![
            record("b", "first"),
            record("a", "active"),
            record("b", "last"),
            record("c", "active"),
        ]);
        assert_eq!(names(&mixed), ["a", "b", "c"]);
        let b = mixed.get(&Address::new("b")).unwrap();
        assert_eq!(b.status, "last");
        assert_eq!(mixed.at(1), Some(b));
        assert_eq!(mixed.get(&Address::new("bb")), None);
        assert_eq!(mixed.at(3), None);
    }
}
