//! "Stop": told once by a signal, heard by everyone who waits.

use tokio::sync::watch;

use crate::report::{Exit, Report};

/// Hears the wish to stop. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cancel(watch::Receiver<bool>);

/// Says it.
#[derive(Debug)]
pub struct Canceller(watch::Sender<bool>);

/// A connected pair.
pub fn pair() -> (Canceller, Cancel) {
    let (sender, receiver) = watch::channel(false);
    (Canceller(sender), Cancel(receiver))
}

impl Canceller {
    /// Asks everyone to stop. Saying it twice changes nothing.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }
}

impl Cancel {
    /// True once somebody asked.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Whether to go on to what comes next.
    ///
    /// # Errors
    /// Once somebody asked to stop: then nothing that comes next is begun.
    pub fn go_on(&self) -> Result<(), Report> {
        if self.is_cancelled() {
            Err(stopped())
        } else {
            Ok(())
        }
    }

    /// Waits until somebody asks; forever when nobody can any more.
    pub async fn cancelled(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|cancelled| *cancelled).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What is said of a command that was stopped before its end.
pub fn stopped() -> Report {
    Report::error("cancel/stopped", "stopped by a signal, before the end")
        .because("what was done until then is recorded, and nothing new was begun")
        .fix("run the same command again")
        .exit(Exit::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everyone_hears_it_even_those_who_ask_later() {
        let (canceller, cancel) = pair();
        assert!(!cancel.is_cancelled());
        assert!(cancel.go_on().is_ok());
        let early = cancel.clone();
        canceller.cancel();
        early.cancelled().await;
        cancel.clone().cancelled().await;
        drop(canceller);
        assert!(cancel.is_cancelled());
        assert_eq!(cancel.go_on().unwrap_err().exit, Exit::Interrupted);
    }
}
