//! Room for calls. A provider that has answered makes room at once: what it answered is written while
//! the next call is already on its way, so the time a disk takes is not the provider's time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use tokio::sync::Notify;

use super::journal::yield_once;
use crate::resource::Address;

/// For each call that may be on its way, this many actions may be under way: one waits for its
/// provider, the others for the store.
const ACTIONS_A_CALL: usize = 2;

/// How many calls are on their way, and how many answers are still to be written.
#[derive(Debug)]
pub(super) struct Room {
    calls: usize,
    /// Answered, and not written yet.
    answered: RefCell<BTreeSet<Address>>,
    /// Those of them nobody was told of.
    untold: RefCell<Vec<Address>>,
    /// Somebody was answered.
    news: Notify,
    /// Counts how often the room was filled up.
    fillings: Cell<u64>,
    filled: Notify,
}

impl Room {
    /// Room for `calls` at once.
    pub(super) fn new(calls: usize) -> Self {
        Self {
            calls,
            answered: RefCell::default(),
            untold: RefCell::default(),
            news: Notify::new(),
            fillings: Cell::new(0),
            filled: Notify::new(),
        }
    }

    /// May one more action start beside this many?
    pub(super) fn is_there(&self, in_flight: usize) -> bool {
        let calling = in_flight.saturating_sub(self.answered.borrow().len());
        calling < self.calls && in_flight < self.calls.saturating_mul(ACTIONS_A_CALL)
    }

    /// The provider has answered about this one. Comes back when somebody else had the chance to take
    /// its place, and to write down what is intended. One at a time is one at a time: whoever wants
    /// that is given no overlap.
    pub(super) async fn answered(&self, address: &Address) {
        if self.calls == 1 || !self.answered.borrow_mut().insert(address.clone()) {
            return;
        }
        self.untold.borrow_mut().push(address.clone());
        let before = self.fillings.get();
        self.news.notify_one();
        while self.fillings.get() == before {
            self.filled.notified().await;
        }
        yield_once().await;
    }

    /// Waits until somebody is answered.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// Whoever could start has started.
    pub(super) fn filled(&self) {
        self.fillings.set(self.fillings.get().wrapping_add(1));
        self.filled.notify_waiters();
    }

    /// Whoever was answered since this was last asked.
    pub(super) fn take_answered(&self) -> Vec<Address> {
        self.untold.take()
    }

    /// All about this one is written, or it failed. Was it known to be answered?
    pub(super) fn ended(&self, address: &Address) -> bool {
        self.answered.borrow_mut().remove(address)
    }
}
