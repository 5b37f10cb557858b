//! What our hosts and our plugins agree on beyond the contract. To everybody who does not know it
//! these are records, variables and fields like any other.
//!
//! The first part is between hosts and state stores that can compare before they write;
//! `docs/state.md` says it in words. The second, [`HOST`] and [`BY_PROCESS`], is how the two know
//! each other, and the third, [`CREATE_BEFORE_DESTROY`], what a provider can do; `docs/providers.md`
//! says both.

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
/// A key of a list's filter, with the value [`ONLY`]: only `resource_id` of each record is asked for,
/// also of those that cannot be read.
pub const NAMES: &str = "tidegate.names";
/// The value of [`NAMES`].
pub const ONLY: &str = "only";
/// Begins the id of everything our hosts store. Such a record has the type [`OBJECT`], and its
/// `provider` is its id without the last segment.
pub const OURS: &str = "tidegate!";

/// The variable by which a host says its process number: it can ask the kernel which process is
/// behind a unix socket, and so can a plugin that is the child of that very process.
pub const HOST: &str = "TIDEGATE_PLUGIN_HOST";
/// The sixth field of the handshake of a plugin that takes [`HOST`] up. It answers that process and
/// no other, in the clear; the host in its turn talks to nobody but the process it started. A
/// certificate is far longer, so no host takes this for one.
pub const BY_PROCESS: &str = "by-process";

/// A word among the operations of a kind in its capability declaration: of such resources an old one
/// and its new one, under the same name, can be there at once.
pub const CREATE_BEFORE_DESTROY: &str = "create_before_destroy";
