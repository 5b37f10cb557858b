//! Store errors as reports: one place for the words and the remedies.

use crate::report::{Exit, Report};

use super::StoreError;

impl From<StoreError> for Report {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Locked {
                holder, expires_in, ..
            } => {
                let mut report = Self::error("state/locked", message)
                    .exit(Exit::Locked)
                    .because(format!(
                        "`{}` (run {}, process {}) has held it since {}",
                        holder.command, holder.run_id, holder.process_id, holder.since
                    ));
                if let Some(url) = &holder.run_url {
                    report = report.because(format!("its run: {url}"));
                }
                report
                    .because(format!(
                        "if that run is dead, whoever waits for {} s without its renewing the lock takes it over",
                        expires_in.as_secs() + u64::from(expires_in.subsec_nanos() > 0)
                    ))
                    .fix("wait for that run to end, or pass `--lock-timeout 5m` to wait here")
                    .fix(format!(
                        "if it is certain to have ended: `tidegate state unlock {}`",
                        holder.run_id
                    ))
            }
            StoreError::LostLock { .. } => Self::error("state/lost-lock", message)
                .exit(Exit::Locked)
                .because("another run took the lock over while this one was stopped or cut off")
                .fix("look at what the other run did, then run this command again"),
            StoreError::Corrupt { .. } => Self::error("state/corrupt", message)
                .because("a state file that cannot be read is never treated as absent")
                .fix("`tidegate state verify` names all that is damaged")
                .fix("`tidegate state restore FILE` puts a backup in its place; `.tidegate/backups` has those that earlier changes kept")
                .fix("without one, `tidegate state rm NAME --force` drops a record that cannot be read, and `tidegate state wipe --force` a state whose head cannot; docs/state.md, section \"Repair\", says what each store can do"),
            StoreError::Aside { path, .. } => Self::error("state/aside", message)
                .because("until that is settled nobody may plan: what was done would be done again")
                .fix("bring back the file, or the state and the key (TIDEGATE_STATE_KEY), as that run left them")
                .fix(format!(
                    "to go on without it, move `{path}` away: the next run then asks the provider \
                     what became of each action that was under way"
                )),
            StoreError::Newer { .. } => Self::error("state/newer", message)
                .fix("use the newer Tidegate that wrote this state, or one after it"),
            StoreError::Conflict { .. } => Self::error("state/conflict", message)
                .exit(Exit::Locked)
                .because("nothing was written; the other change stays as it is")
                .fix("look at what changed (`tidegate state show`), then run this command again"),
            StoreError::Invalid(_) => Self::error("state/invalid", message).exit(Exit::Usage),
            StoreError::Cancelled => {
                Self::error("state/cancelled", message).exit(Exit::Interrupted)
            }
            StoreError::Kept { path, command, .. } => Self::error("state/kept-aside", message)
                .because("the store was down at the moment of saving, for longer than we wait")
                .fix(format!(
                    "when the store answers again, run `tidegate {command}` here once more: it \
                     saves what is kept before it plans anything, so that nothing is made twice"
                ))
                .fix(format!(
                    "until then do not lose `{path}`: it is sealed with the state key, and the \
                     only record of what was done; take it along if this machine goes away"
                )),
            StoreError::TooLarge(_) => Self::error("state/too-large", message)
                .fix("keep what is that large elsewhere; docs/state.md lists what each store takes"),
            StoreError::Guarded(_) => Self::error("state/guarded", message)
                .exit(Exit::Locked)
                .because("a run that is killed in the middle of a write leaves it taken, and it never lapses")
                .fix("if another run is writing, wait for its end")
                .fix("if none is, `tidegate state unlock RUN-ID` frees it, with the id of the run that was killed"),
            StoreError::Storage(_) => Self::error("state/storage", message)
                .fix("check that the store can be reached and written, and is not full"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::state::Holder;

    #[test]
    fn a_held_lock_names_its_holder() {
        let report = Report::from(StoreError::Locked {
            environment: "dev".to_owned(),
            holder: Box::new(Holder {
                run_id: "r-1".to_owned(),
                who: "ann@build-3".to_owned(),
                process_id: 4711,
                command: "up".to_owned(),
                run_url: Some("https://forge.test/runs/1".to_owned()),
                job: String::new(),
                since: "2024-01-02T03:04:05Z".to_owned(),
                mark: String::new(),
            }),
            expires_in: Duration::from_millis(41_500),
        });
        let text = format!("{} {:?}", report.message, report.because);
        for expected in [
            "ann@build-3",
            "4711",
            "r-1",
            "`up`",
            "2024-01-02T03:04:05Z",
            "42 s",
            "https://forge.test/runs/1",
            "`dev`",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        assert_eq!(report.exit, Exit::Locked);
    }
}
