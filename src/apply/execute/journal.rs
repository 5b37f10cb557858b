//! One journal for all parallel actions: what is pending is written together, with one flush.
//!
//! No task of its own: whoever comes first writes for everybody who came meanwhile.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use crate::state::{Entry, Lease, Store, StoreError};

/// Shared by all who waited for one write.
pub(super) type Written = Result<(), Arc<StoreError>>;

#[derive(Debug)]
struct Waiting {
    entry: Entry,
    answer: Rc<RefCell<Option<Written>>>,
}

/// Collects entries and appends them in groups.
#[derive(Debug)]
pub(super) struct Journal<'a> {
    store: &'a dyn Store,
    lease: &'a Lease,
    queue: RefCell<Vec<Waiting>>,
    turn: tokio::sync::Mutex<()>,
}

impl<'a> Journal<'a> {
    pub(super) fn new(store: &'a dyn Store, lease: &'a Lease) -> Self {
        Self {
            store,
            lease,
            queue: RefCell::default(),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Returns once the entry is durable, or could not be made so. Entries stay in the order in
    /// which they were given.
    pub(super) async fn append(&self, entry: Entry) -> Written {
        let answer = Rc::new(RefCell::new(None));
        self.queue.borrow_mut().push(Waiting {
            entry,
            answer: Rc::clone(&answer),
        });
        // Everybody who is ready to write gets the chance to join before the first one writes.
        yield_once().await;
        let turn = self.turn.lock().await;
        if let Some(written) = answer.take() {
            return written;
        }
        let batch = self.queue.take();
        let (entries, answers): (Vec<Entry>, Vec<_>) = batch
            .into_iter()
            .map(|waiting| (waiting.entry, waiting.answer))
            .unzip();
        let written = self
            .store
            .journal_append(self.lease, &entries)
            .await
            .map_err(Arc::new);
        for answer in answers {
            answer.replace(Some(written.clone()));
        }
        drop(turn);
        written
    }
}

/// Lets everybody else who is ready go first.
pub(super) async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
