//! SIGINT, SIGTERM, SIGQUIT and the SIGHUP of a terminal that closes: the first asks everyone to stop, the
//! second stops now.
//!
//! On GitHub the runner sends SIGINT to the step's entry process, SIGTERM 7.5 s later and kills
//! everything 2.5 s after that; `action.yml` ends in `exec`, so that the entry process is us. In a
//! step that calls us from a script it is the shell, which keeps SIGINT to itself and dies of
//! SIGTERM: there the death of the parent counts as a signal, and 2.5 s are left to stop in.

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};

use crate::cancel::Canceller;

/// Waits for signals for ever: the first cancels, the second returns. With `parent` the death of the
/// process that started us is one. Whoever started us under `nohup` does not want to hear of SIGHUP.
pub async fn watch(canceller: &Canceller, parent: bool, hangup: bool) {
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut quit), Ok(mut orphaned)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
        signal(SignalKind::quit()),
        signal(SignalKind::user_defined1()),
    ) else {
        return std::future::pending().await;
    };
    let mut hung_up = hangup
        .then(|| signal(SignalKind::hangup()))
        .and_then(Result::ok);
    let started_by = getppid();
    // Its handler stands; where this is not possible, only signals are heard.
    let tied = parent && set_parent_process_death_signal(Some(Signal::USR1)).is_ok();
    // Whoever started us may have died while nobody listened yet. One that died before we could ask
    // who it was is not known: there the runner's last step ends us, and the next run settles it.
    let is_late = tied && getppid() != started_by;
    if is_late {
        canceller.cancel();
    }
    for _ in usize::from(is_late)..2 {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = quit.recv() => {}
            () = hears(hung_up.as_mut()) => {}
            () = orphan(&mut orphaned, tied && !is_late, started_by) => {}
        }
        canceller.cancel();
    }
}

/// Ends with the signal; never, where none is listened for.
async fn hears(signal: Option<&mut tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Ends when whoever started us is gone. The signal alone does not say so: it comes when the thread
/// that started us ends, of which a parent may have others.
async fn orphan(
    signal: &mut tokio::signal::unix::Signal,
    tied: bool,
    started_by: Option<rustix::process::Pid>,
) {
    while signal.recv().await.is_some() {
        if tied && getppid() != started_by {
            return;
        }
    }
    std::future::pending().await
}
