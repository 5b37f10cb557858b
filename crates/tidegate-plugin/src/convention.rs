//! The additive convention between hosts and state stores that can compare before they write;
//! `docs/state.md` says it in words. To everybody who does not know it these are records like any
//! other.

/// A record of this id is never stored. Asking for it tells what a store can do: the store that
/// has one and the status [`COMPARES`] takes conditional saves.
pub const PROBE: &str = "tidegate!conventions";
/// The status of the probe's answer.
pub const COMPARES: &str = "compares";
/// The type of records that are saved conditionally.
pub const OBJECT: &str = "tidegate.object";
/// `config_hash` of such a record when nothing may be there.
pub const NOTHING: &str = "before:nothing";
/// Begins `config_hash` of such a record when a version must be there.
pub const VERSION: &str = "before:version:";
/// A key of a list's filter: only records whose id begins with its value.
pub const UNDER: &str = "tidegate.under";
