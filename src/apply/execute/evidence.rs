//! Why did it fail? Asked of the driver after each failed action, on a budget. Best effort: its own
//! failures say nothing.

use std::cell::Cell;
use std::time::Duration;

use crate::apply::Engine;
use crate::provider::Driver;
use crate::provider::ability::Evidence;
use crate::resource::Recorded;
use crate::secret::Masker;

/// For one action.
const EACH: Duration = Duration::from_secs(10);
/// For all actions of a run.
const ALL: Duration = Duration::from_secs(30);
/// Pieces kept of one action.
const PIECES: usize = 10;
/// Longest text kept, in characters.
const CHARACTERS: usize = 4_000;

/// The time left for asking.
#[derive(Debug)]
pub(super) struct Budget(Cell<Duration>);

impl Default for Budget {
    fn default() -> Self {
        Self(Cell::new(ALL))
    }
}

impl Budget {
    /// What the driver knows about the failure.
    pub(super) async fn gather(
        &self,
        engine: &Engine<'_>,
        driver: &dyn Driver,
        prior: &Recorded,
        failure: &str,
    ) -> Vec<Evidence> {
        let limit = EACH.min(self.0.get());
        if limit.is_zero() || engine.cancel.is_cancelled() {
            return Vec::new();
        }
        let started = engine.clock.monotonic();
        let found = tokio::select! {
            biased;
            () = engine.cancel.cancelled() => Vec::new(),
            found = driver.troubleshoot(prior, failure) => found.unwrap_or_default(),
            () = engine.clock.sleep(limit) => Vec::new(),
        };
        let took = engine.clock.monotonic().saturating_sub(started);
        self.0.set(self.0.get().saturating_sub(took));
        let found = found.into_iter().take(PIECES);
        found.map(|one| bounded(one, &engine.masker)).collect()
    }
}

fn bounded(evidence: Evidence, masker: &Masker) -> Evidence {
    let cut = |text: String| masker.excerpt(&text, CHARACTERS);
    Evidence {
        id: cut(evidence.id),
        phase: cut(evidence.phase),
        cause: cut(evidence.cause),
        at: cut(evidence.at),
        detail: cut(evidence.detail),
    }
}

/// One piece in one line, for messages.
pub fn sentence(evidence: &Evidence) -> String {
    let mut text = String::new();
    if !evidence.phase.is_empty() {
        text.push_str(&format!("{}: ", evidence.phase));
    }
    text.push_str(if evidence.cause.is_empty() {
        &evidence.detail
    } else {
        &evidence.cause
    });
    if !evidence.id.is_empty() {
        text.push_str(&format!(" ({})", evidence.id));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_before_it_is_cut() {
        let masker = Masker::default();
        masker.admit("s", "correct-horse-battery-staple".to_owned());
        let text = format!(
            "{}correct-horse-battery-staple",
            "x".repeat(CHARACTERS - 10)
        );
        let evidence = Evidence {
            id: String::new(),
            phase: text.clone(),
            cause: text.clone(),
            at: String::new(),
            detail: text,
        };
        let shown = format!("{:?}", bounded(evidence, &masker));
        assert!(
            !shown.contains("correct") && shown.contains("xx***"),
            "{shown}"
        );
    }
}
