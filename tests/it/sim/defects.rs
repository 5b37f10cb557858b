//! Mistakes an engine, a store or a driver could make. Each is planted where it shows as it would if
//! the engine itself made it: in the store or the driver that one run is given. Nothing of this is
//! in the program.

/// One planted mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Defect {
    /// The journal is not flushed: an entry is acknowledged and lost with the process.
    JournalNotFlushed,
    /// The intent is written after the call and not before.
    IntentAfterCall,
    /// A record is acknowledged before it is durable.
    RecordNotFlushed,
    /// The outcome is written before the record.
    OutcomeBeforeRecord,
    /// A write under a lost lock goes through all the same.
    IgnoresLostLock,
    /// The lock is given back whoever holds it.
    UnlocksAnybody,
    /// The lock is taken whoever holds it.
    LocksAnyway,
    /// A fencing number is given out twice.
    ReusesFences,
    /// A record that cannot be read is taken for none.
    SkipsUnreadable,
    /// A create whose answer was lost is repeated without a look.
    RepeatsBlindly,
    /// What a dead run left is not looked at.
    NoRecovery,
    /// The journal is emptied before it is worked through.
    ClearsJournalFirst,
    /// What was settled is not written down, and the journal stays.
    SettlesInVain,
    /// A refused call counts as done.
    FailureTakenForSuccess,
    /// The record goes before the resource does.
    ForgetsBeforeDeleting,
    /// A record is written twice.
    WritesTwice,
    /// Every effect has the same operation id.
    OneOperationForAll,
    /// A signal is not heard.
    DeafToSignals,
    /// The lock is never renewed.
    NeverRenews,
    /// The provider's words are recorded as they are.
    RecordsSecrets,
}

impl Defect {
    pub(super) const ALL: [Self; 20] = [
        Self::JournalNotFlushed,
        Self::IntentAfterCall,
        Self::RecordNotFlushed,
        Self::OutcomeBeforeRecord,
        Self::IgnoresLostLock,
        Self::UnlocksAnybody,
        Self::LocksAnyway,
        Self::ReusesFences,
        Self::SkipsUnreadable,
        Self::RepeatsBlindly,
        Self::NoRecovery,
        Self::ClearsJournalFirst,
        Self::SettlesInVain,
        Self::FailureTakenForSuccess,
        Self::ForgetsBeforeDeleting,
        Self::WritesTwice,
        Self::OneOperationForAll,
        Self::DeafToSignals,
        Self::NeverRenews,
        Self::RecordsSecrets,
    ];
}
