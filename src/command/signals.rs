//! SIGINT and SIGTERM: the first asks everyone to stop, the second stops now.
//!
//! On GitHub the runner sends SIGINT to the step's entry process, SIGTERM 7.5 s later and kills
//! everything 2.5 s after that; `action.yml` ends in `exec`, so that the entry process is us.

use crate::cancel::Canceller;

/// Waits for signals for ever: the first cancels, the second returns.
pub async fn watch(canceller: &Canceller) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    for _ in 0..2 {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        canceller.cancel();
    }
}
