//! What is asked of a store beyond "everything": filters, pages, and expectations of a writer.
//! Pure.

use crate::resource::Address;

use super::{Head, Record, StoreError, StoreResult};

/// The keys a [`Filter`] knows.
pub const FILTER_KEYS: &[&str] = &["provider", "resource_type", "status"];

/// Which records to list. Every part that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Kind of the resource.
    pub resource_type: Option<String>,
    /// Provider type.
    pub provider: Option<String>,
    /// `active` or `error`.
    pub status: Option<String>,
}

impl Filter {
    /// A filter from keys and values as a person wrote them.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a key that is not one of [`FILTER_KEYS`], or that comes twice:
    /// a filter that is silently wider than it looks shows too much.
    pub fn parse<'a>(parts: impl IntoIterator<Item = (&'a str, &'a str)>) -> StoreResult<Self> {
        let mut filter = Self::default();
        for (key, value) in parts {
            let place = match key {
                "resource_type" => &mut filter.resource_type,
                "provider" => &mut filter.provider,
                "status" => &mut filter.status,
                _ => {
                    return Err(StoreError::Invalid(format!(
                        "records cannot be filtered by `{key}`; known are {}",
                        FILTER_KEYS.join(", ")
                    )));
                }
            };
            if place.replace(value.to_owned()).is_some() {
                return Err(StoreError::Invalid(format!(
                    "the filter names `{key}` twice"
                )));
            }
        }
        Ok(filter)
    }

    /// Does this record belong to what was asked for?
    pub fn matches(&self, record: &Record) -> bool {
        let agrees = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        agrees(&self.resource_type, &record.resource_type)
            && agrees(&self.provider, &record.provider)
            && agrees(&self.status, &record.status)
    }
}

/// A part of a listing, in the order of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Only what comes after this address.
    pub after: Option<Address>,
    /// At most this many; `None` for all.
    pub limit: Option<usize>,
}

/// What was found, and where to go on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// The records, sorted by address.
    pub records: Vec<Record>,
    /// The `after` of the next page; `None` when this was the last one.
    pub next: Option<Address>,
}

impl Listing {
    /// The part of sorted `records` that `filter` and `page` ask for.
    pub fn of(records: Vec<Record>, filter: &Filter, page: &Page) -> Self {
        let mut records: Vec<Record> = records
            .into_iter()
            .filter(|record| {
                page.after
                    .as_ref()
                    .is_none_or(|after| record.resource_id > *after)
                    && filter.matches(record)
            })
            .collect();
        let mut next = None;
        if let Some(limit) = page.limit
            && records.len() > limit
        {
            records.truncate(limit);
            next = records.last().map(|record| record.resource_id.clone());
        }
        Self { records, next }
    }
}

/// What a writer believes to be there. When something else is, nothing is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// No record of that address.
    Absent,
    /// The record with exactly this many writes behind it.
    Version(u64),
    /// The environment as it was when this lineage had this serial: nothing at all was changed
    /// since.
    Serial {
        /// Lineage of the state.
        lineage: String,
        /// Its serial.
        serial: u64,
    },
}

impl Expected {
    /// Compares with what is there now.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is something else.
    pub fn check(
        &self,
        address: &Address,
        existing: Option<&Record>,
        head: Option<&Head>,
    ) -> StoreResult<()> {
        let version = |record: Option<&Record>| match record {
            None => "no record".to_owned(),
            Some(record) => format!("version {}", record.tidegate.version),
        };
        let conflict = |expected: String, found: String| {
            Err(StoreError::Conflict {
                what: format!("record `{address}`"),
                expected,
                found,
            })
        };
        match self {
            Self::Absent if existing.is_none() => Ok(()),
            Self::Absent => conflict("no record".to_owned(), version(existing)),
            Self::Version(expected)
                if existing.is_some_and(|record| record.tidegate.version == *expected) =>
            {
                Ok(())
            }
            Self::Version(expected) => conflict(format!("version {expected}"), version(existing)),
            Self::Serial { lineage, serial } => match head {
                Some(head) if head.lineage == *lineage && head.serial == *serial => Ok(()),
                Some(head) => conflict(
                    format!("serial {serial} of lineage {lineage}"),
                    format!("serial {} of lineage {}", head.serial, head.lineage),
                ),
                None => conflict(
                    format!("serial {serial} of lineage {lineage}"),
                    "no state".to_owned(),
                ),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(name: &str, kind: &str, provider: &str) -> Record {
        serde_json::from_value(json!({
            "resource_id": name, "resource_type": kind, "provider": provider,
            "status": "active", "created_at": "", "updated_at": "",
        }))
        .unwrap()
    }

    #[test]
    fn a_filter_is_a_conjunction_and_knows_its_keys() {
        let filter = Filter::parse([("resource_type", "infra.dns"), ("provider", "aws")]).unwrap();
        let cases = [
            (record("a", "infra.dns", "aws"), true),
            (record("b", "infra.dns", "local"), false),
            (record("c", "infra.storage", "aws"), false),
        ];
        for (record, expected) in cases {
            assert_eq!(filter.matches(&record), expected, "{record:?}");
        }
        for bad in [vec![("type", "x")], vec![("status", "a"), ("status", "b")]] {
            let error = Filter::parse(bad.clone()).unwrap_err();
            assert!(matches!(error, StoreError::Invalid(_)), "{bad:?}");
        }
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        let all: Vec<Record> = ["a", "b", "c", "d", "e"]
            .map(|name| record(name, "infra.dns", "aws"))
            .into();
        let mut page = Page {
            after: None,
            limit: Some(2),
        };
        let mut seen = Vec::new();
        loop {
            let listing = Listing::of(all.clone(), &Filter::default(), &page);
            assert!(listing.records.len() <= 2);
            seen.extend(listing.records);
            match listing.next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, all);
    }
}
