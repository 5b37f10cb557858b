//! Group commit: what parallel actions append at the same time shares one write and one flush.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::Entry;
use crate::state::{Lease, Store, StoreResult};

/// Appends to one journal for many tasks. While one group is being flushed, the next one gathers.
#[derive(Debug)]
pub struct Writer {
    store: Arc<dyn Store>,
    lease: Lease,
    gathering: Mutex<Group>,
    /// Held by whoever flushes.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Group {
    entries: Vec<Entry>,
    answer: Arc<OnceLock<StoreResult<()>>>,
}

impl Writer {
    /// A writer under `lease`.
    pub fn new(store: Arc<dyn Store>, lease: Lease) -> Self {
        Self {
            store,
            lease,
            gathering: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    fn gathering(&self) -> MutexGuard<'_, Group> {
        self.gathering
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends `entries` in their order; they are durable when this returns. Entries of other tasks
    /// may stand before, after, and (only as whole calls) between theirs.
    ///
    /// A call that is dropped may or may not have appended. If it was the one that flushed for
    /// others, they append their own entries once more; a repeated entry says the same thing twice.
    ///
    /// # Errors
    /// That of the store, for every task of the group.
    pub async fn append(&self, entries: &[Entry]) -> StoreResult<()> {
        if entries.is_empty() {
            return Ok(());
        }
        loop {
            let answer = {
                let mut group = self.gathering();
                group.entries.extend_from_slice(entries);
                Arc::clone(&group.answer)
            };
            let _turn = self.turn.lock().await;
            if let Some(answer) = answer.get() {
                return answer.clone();
            }
            let group = {
                let mut gathering = self.gathering();
                if !Arc::ptr_eq(&gathering.answer, &answer) {
                    // Whoever took our group was dropped before it had an answer.
                    continue;
                }
                mem::take(&mut *gathering)
            };
            let result = self.store.journal_append(&self.lease, &group.entries).await;
            // Nobody else holds the turn, so nobody else has answered.
            return group.answer.get_or_init(|| result).clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::join_all;

    use super::*;
    use crate::clock::SystemClock;
    use crate::random::SeededRandom;
    use crate::state::memory::Shared;
    use crate::state::{Holder, Memory};

    fn entry(number: usize) -> Entry {
        Entry::End {
            run_id: number.to_string(),
        }
    }

    async fn writer() -> (Arc<dyn Store>, Writer) {
        let store: Arc<dyn Store> = Arc::new(
            Memory::open(
                Shared::default(),
                "dev",
                Arc::new(SystemClock::new()),
                Arc::new(SeededRandom::new(1)),
            )
            .unwrap(),
        );
        let holder = Holder {
            run_id: "r".to_owned(),
            who: "a@b".to_owned(),
            process_id: 1,
            command: "up".to_owned(),
            run_url: None,
            since: String::new(),
        };
        let lease = store.lock(&holder, Duration::ZERO).await.unwrap();
        (Arc::clone(&store), Writer::new(store, lease))
    }

    #[tokio::test]
    async fn every_task_finds_its_entries_once() {
        let (store, writer) = writer().await;
        let pairs: Vec<[Entry; 2]> = (0..50).map(|n| [entry(n), entry(n + 1000)]).collect();
        for result in join_all(pairs.iter().map(|pair| writer.append(pair))).await {
            result.unwrap();
        }
        let journal = store.journal_read().await.unwrap();
        assert_eq!(journal.len(), 100);
        for pair in &pairs {
            let at = journal.iter().position(|entry| entry == &pair[0]).unwrap();
            assert_eq!(journal[at + 1], pair[1]);
        }
    }

    #[tokio::test]
    async fn those_whose_flush_was_dropped_append_themselves() {
        let (store, writer) = writer().await;
        let turn = writer.turn.lock().await;
        let (one, two) = ([entry(1)], [entry(2)]);
        let mut first = Box::pin(writer.append(&one));
        let mut second = Box::pin(writer.append(&two));
        for waiting in [&mut first, &mut second] {
            assert!(futures_util::poll!(waiting).is_pending());
        }
        // Somebody takes the group of both, and is dropped before there is an answer.
        drop(mem::take(&mut *writer.gathering()));
        drop(turn);
        let (first, second) = futures_util::future::join(first, second).await;
        first.unwrap();
        second.unwrap();
        let mut journal = store.journal_read().await.unwrap();
        journal.dedup();
        assert_eq!(journal, [entry(1), entry(2)]);
    }

    #[tokio::test]
    async fn a_failure_is_told_to_everybody_in_the_group() {
        let (store, writer) = writer().await;
        store.force_unlock("r").await.unwrap();
        let entries: Vec<[Entry; 1]> = (0..5).map(|n| [entry(n)]).collect();
        for result in join_all(entries.iter().map(|one| writer.append(one))).await {
            assert!(result.is_err());
        }
    }
}
