//! `infra cleanup`: everything with a tag goes. `infra prune`: everything of a type that is old and
//! not in use goes. Both start from what the provider lists, not from the config.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::infra::{approve, count, unlock};
use super::open::Opened;
use super::up::protected_problem;
use super::{CommandResult, Desk, Problems, rotate};
use crate::apply::Engine;
use crate::apply::credential::{self, Label};
use crate::apply::ownership::{self, Owner};
use crate::apply::survey::owner_of;
use crate::apply::teardown::{
    Discovered, Removed, Target, is_of_others, is_same_provider, listers, of_others, plan_of,
    remove, tagged, target_of,
};
use crate::cli::infra::{CleanupArgs, PruneArgs};
use crate::config::Config;
use crate::face::table;
use crate::plan::Plan;
use crate::provider::{DriverError, Provider};
use crate::report::{Event, Exit, Outcome, Report, Reporter as _};
use crate::resource::{Address, Kind, ProviderId};
use crate::settings;
use crate::state::{Lease, Record};

/// Why what another environment has on record stays.
pub(super) const ELSEWHERE: &str =
    "on record in another environment of this state, or being made there";

/// How many removals may run at once.
const AT_ONCE: usize = 10;

/// Runs `infra cleanup`.
pub async fn by_tag(desk: &Desk, arguments: &CleanupArgs) -> CommandResult {
    let owner = desk.owner(&arguments.owner)?;
    let config = desk.load(&arguments.config)?;
    let opened = desk.open(&config).await?;
    let result = by_tag_opened(desk, arguments, &owner, &config, &opened).await;
    opened.close().await;
    result
}

async fn by_tag_opened(
    desk: &Desk,
    arguments: &CleanupArgs,
    owner: &Owner,
    config: &Config,
    opened: &Opened,
) -> CommandResult {
    if arguments.fix {
        let lease = opened
            .lock(desk, "infra cleanup", arguments.lock_timeout)
            .await?;
        let result = clean(desk, arguments, owner, config, opened, Some(&lease)).await;
        unlock(desk, opened, &lease, result).await
    } else {
        clean(desk, arguments, owner, config, opened, None).await
    }
}

async fn clean(
    desk: &Desk,
    arguments: &CleanupArgs,
    owner: &Owner,
    config: &Config,
    opened: &Opened,
    lease: Option<&Lease>,
) -> CommandResult {
    let engine = opened
        .engine(desk, config, AT_ONCE, lease.is_some())
        .await?;
    let (can, cannot) = listers(&engine);
    if can.is_empty() {
        return Err(cannot_list(&cannot).into());
    }
    for provider in cannot {
        desk.ui.note(format!(
            "Provider `{provider}` cannot list by tag: nothing of it is touched."
        ));
    }
    let mut targets = Vec::new();
    let mut failed = Vec::new();
    for one in tagged(&engine, &arguments.tag).await {
        match one {
            Discovered::There(target) => targets.push(*target),
            Discovered::Failed {
                address, message, ..
            } => failed.push((address, message)),
            Discovered::Missing { .. } => {}
        }
    }
    let records = engine.store.list().await.map_err(Report::from)?;
    let (mut targets, others) = ownership::sort(&engine, targets, owner).await;
    let kept: Vec<Kept> = others.into_iter().map(Kept::of).collect();
    engine.cancel.go_on()?;
    know(&engine, &records, &mut targets);
    let plan = plan_of(&config.environment, &targets)?;
    let mut story = Story {
        command: "infra cleanup",
        config,
        targets: &targets,
        kept: &kept,
        failed: &failed,
        removed: Removed::default(),
        dry_run: lease.is_none(),
        exit: Exit::Done,
    };
    story.show(desk);
    if lease.is_some() && !targets.is_empty() {
        gate(&plan, &arguments.approval.allow_replace)?;
        approve(
            desk,
            arguments.approval.yes,
            &format!(
                "Delete {} with the tag `{}`? Only `yes` is taken as a yes: ",
                count(targets.len(), "resource"),
                arguments.tag
            ),
            "the cleanup",
        )
        .await?;
        story.removed = remove(&engine, lease, &plan, &targets).await;
    }
    Ok(story.end(desk))
}

/// A provider that can list was asked to, and could not.
pub(super) fn not_listed(id: &ProviderId, kind: &Kind, error: &DriverError) -> Report {
    Report::error(
        "provider/failed",
        format!("provider `{id}` could not list its resources of type `{kind}`"),
    )
    .because(format!("{} ({})", error.message, error.class.word()))
    .fix("nothing was changed; remove the cause, then run the command again")
}

pub(super) fn cannot_list(providers: &[&ProviderId]) -> Report {
    Report::error(
        "provider/cannot-list",
        format!(
            "no provider of this config can list resources ({})",
            providers
                .iter()
                .map(|id| format!("`{id}`"))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    )
    .fix("use a provider that can, or `tidegate infra teardown`, which looks up by name")
    .exit(Exit::Usage)
}

/// What config and records know about listed resources: whether they are protected, what stands on
/// what, and a name of its own for each.
pub(super) fn know(engine: &Engine<'_>, records: &[Record], targets: &mut [Target]) {
    let mut names = BTreeSet::new();
    for target in targets {
        let declared = engine.config.resources.iter().find(|resource| {
            resource.provider == target.provider
                && resource.kind == target.kind
                && resource.address == target.prior.address
        });
        let record = record_of(engine, records, target);
        target.orphan = declared.is_none();
        target.protected = declared.is_some_and(|resource| resource.protected)
            || record.is_some_and(|record| record.tidegate.protected);
        target.depends_on = declared
            .map(|resource| resource.depends_on.clone())
            .into_iter()
            .chain(record.map(|record| record.dependencies.iter().cloned().collect()))
            .flatten()
            .collect();
        if !names.insert(target.address.clone()) {
            target.address = Address::new(format!(
                "{}/{}/{}",
                target.provider, target.kind, target.address
            ));
            names.insert(target.address.clone());
        }
    }
}

pub(super) fn record_of<'a>(
    engine: &Engine<'_>,
    records: &'a [Record],
    target: &Target,
) -> Option<&'a Record> {
    let is_of_kind = |record: &&Record| record.resource_type == target.kind.as_str();
    // Two provider modules may be of one account: an id is looked for at all of that type.
    let has_its_id = |record: &&Record| {
        !record.provider_id.is_empty()
            && record.provider_id == target.prior.provider_id
            && is_same_provider(engine, &owner_of(engine, record), &target.provider)
    };
    let has_its_name = |record: &&Record| {
        record.resource_id == target.prior.address && owner_of(engine, record) == target.provider
    };
    let mut of_kind = records.iter().filter(is_of_kind);
    of_kind
        .clone()
        .find(has_its_id)
        .or_else(|| of_kind.find(has_its_name))
}

/// Every protected resource that is not named, in one message.
pub(super) fn gate(plan: &Plan, allowed: &[String]) -> Result<(), Problems> {
    let allowed: BTreeSet<String> = allowed.iter().cloned().collect();
    let blocked = plan.blocked(&allowed);
    if blocked.is_empty() {
        Ok(())
    } else {
        Err(protected_problem(&blocked).into())
    }
}

/// Runs `infra prune`.
pub async fn prune(desk: &Desk, arguments: &PruneArgs) -> CommandResult {
    // Both keys before anything is even looked at.
    let variable = desk.settings.variables.get(settings::CONFIRM_PRUNE) == Some("1");
    if !(arguments.confirm && variable) {
        return Err(two_keys(arguments.confirm, variable).into());
    }
    let recovered = if arguments.recovery_from_last_rotation {
        rotate::recover(desk, arguments)?
    } else {
        arguments.clone()
    };
    let arguments = &recovered;
    let owner = desk.owner(&arguments.owner)?;
    let before = OffsetDateTime::parse(&arguments.created_before, &Rfc3339).map_err(|_| {
        Report::error(
            "prune/bad-time",
            format!(
                "`--created-before {}` is not an RFC 3339 time",
                arguments.created_before
            ),
        )
        .fix("write it like 2026-01-31T00:00:00Z")
        .exit(Exit::Usage)
    })?;
    let config = desk.load(&arguments.config)?;
    let opened = desk.open(&config).await?;
    let result = prune_opened(desk, arguments, &owner, &config, &opened, before).await;
    opened.close().await;
    result
}

pub(super) fn two_keys(flag: bool, variable: bool) -> Report {
    let mut report = Report::error(
        "prune/two-keys",
        "a prune needs two keys, the flag `--confirm` and the variable `WFCTL_CONFIRM_PRUNE=1`; nothing was looked at",
    )
    .exit(Exit::Usage);
    if !flag {
        report = report.because("the flag `--confirm` is missing");
    }
    if !variable {
        report = report.because("the variable WFCTL_CONFIRM_PRUNE is not 1");
    }
    report.fix("give both, then answer the question")
}

async fn prune_opened(
    desk: &Desk,
    arguments: &PruneArgs,
    owner: &Owner,
    config: &Config,
    opened: &Opened,
    before: OffsetDateTime,
) -> CommandResult {
    let lease = opened
        .lock(desk, "infra prune", arguments.lock_timeout)
        .await?;
    let result = prune_locked(desk, arguments, owner, config, opened, before, &lease).await;
    unlock(desk, opened, &lease, result).await
}

async fn prune_locked(
    desk: &Desk,
    arguments: &PruneArgs,
    owner: &Owner,
    config: &Config,
    opened: &Opened,
    before: OffsetDateTime,
    lease: &Lease,
) -> CommandResult {
    let engine = opened.engine(desk, config, AT_ONCE, true).await?;
    let kind = Kind::new(arguments.kind.clone());
    let mut listed = Vec::new();
    for (id, provider) in chosen(&engine, arguments.provider.as_deref(), &kind)? {
        // Half a listing could miss the one that is in use.
        let found = provider
            .enumerate(&kind)
            .await
            .map_err(|error| not_listed(id, &kind, &error))?;
        listed.extend(found.into_iter().map(|one| target_of(&engine, id, one)));
    }
    let unknown: Vec<&String> = arguments
        .exclude
        .iter()
        .filter(|excluded| !listed.iter().any(|target| is_called(target, excluded)))
        .collect();
    if !unknown.is_empty() {
        return Err(Report::error(
            "prune/unknown-exclusion",
            format!(
                "{} is not among the {} that were listed; nothing was changed",
                unknown
                    .iter()
                    .map(|name| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(", "),
                count(listed.len(), "resource"),
            ),
        )
        .because("what must stay has to exist: a misspelt exclusion would delete the one in use")
        .fix("take the id from `tidegate infra audit-keys --type TYPE`")
        .exit(Exit::Usage)
        .into());
    }
    let records = engine.store.list().await.map_err(Report::from)?;
    let credentials = credential::in_use(&engine).await?;
    let others = of_others(&engine).await.map_err(Report::from)?;
    know(&engine, &records, &mut listed);
    let mut targets = Vec::new();
    let mut kept = Vec::new();
    for target in listed {
        let recorded = record_of(&engine, &records, &target).is_some();
        let in_use = credentials
            .iter()
            .any(|(_, label)| is_label(&target, label));
        let why = stays(arguments, &target, recorded, before)
            .or(is_of_others(&others, &target).map(|_| ELSEWHERE))
            .or(in_use.then_some("in use by a generated secret"));
        match why {
            Some(why) => kept.push(Kept::of((target, why.to_owned()))),
            None => targets.push(target),
        }
    }
    let (targets, owned) = ownership::sort(&engine, targets, owner).await;
    kept.extend(owned.into_iter().map(Kept::of));
    engine.cancel.go_on()?;
    let plan = plan_of(&config.environment, &targets)?;
    let mut story = Story {
        command: "infra prune",
        config,
        targets: &targets,
        kept: &kept,
        failed: &[],
        removed: Removed::default(),
        dry_run: false,
        exit: Exit::Done,
    };
    story.show(desk);
    if !targets.is_empty() {
        gate(&plan, &[])?;
        approve(
            desk,
            arguments.yes,
            &format!(
                "Delete {} of type `{kind}`? Only `yes` is taken as a yes: ",
                count(targets.len(), "resource")
            ),
            "the prune",
        )
        .await?;
        story.removed = remove(&engine, Some(lease), &plan, &targets).await;
    }
    Ok(story.end(desk))
}

/// The providers to list from.
pub(super) fn chosen<'a>(
    engine: &Engine<'a>,
    module: Option<&str>,
    kind: &Kind,
) -> Result<Vec<(&'a ProviderId, &'a dyn Provider)>, Problems> {
    let (mut can, cannot) = listers(engine);
    if let Some(module) = module {
        if !engine.providers.contains_key(&ProviderId::new(module)) {
            return Err(Report::error(
                "provider/not-declared",
                format!("this config declares no provider module `{module}`"),
            )
            .fix("name the module of type `iac.provider`")
            .exit(Exit::Usage)
            .into());
        }
        can.retain(|(id, _)| id.as_str() == module);
    }
    if can.is_empty() {
        return Err(cannot_list(&cannot).into());
    }
    can.retain(|(_, provider)| provider.kinds().contains(kind));
    if can.is_empty() {
        return Err(Report::error(
            "provider/unsupported-type",
            format!("no provider that can list has resources of type `{kind}`"),
        )
        .fix("check the spelling of `--type`")
        .exit(Exit::Usage)
        .into());
    }
    Ok(can)
}

/// Something that was listed and stays.
struct Kept {
    target: Target,
    why: String,
}

impl Kept {
    fn of((target, why): (Target, String)) -> Self {
        Self { target, why }
    }
}

pub(super) fn is_called(target: &Target, name: &str) -> bool {
    target.prior.provider_id == name
        || target.prior.address.as_str() == name
        || (!name.is_empty() && target.access_key == name)
}

/// True for the very credential that a label names.
pub(super) fn is_label(target: &Target, label: &Label) -> bool {
    target.provider == label.provider
        && target.kind == label.kind
        && target.prior.provider_id == label.provider_id
}

/// Why a resource stays; `None` when it goes. In doubt it stays.
fn stays(
    arguments: &PruneArgs,
    target: &Target,
    recorded: bool,
    before: OffsetDateTime,
) -> Option<&'static str> {
    if arguments
        .exclude
        .iter()
        .any(|excluded| is_called(target, excluded))
    {
        return Some("excluded");
    }
    if arguments
        .preserve_names
        .iter()
        .any(|pattern| matches(pattern, target.prior.address.as_str()))
    {
        return Some("its name is preserved");
    }
    if recorded {
        return Some("recorded in this environment's state");
    }
    if !target.orphan {
        return Some("declared in the config");
    }
    match OffsetDateTime::parse(&target.created_at, &Rfc3339).ok() {
        None => Some("when it was made is not known"),
        Some(made) if made >= before => Some("too young"),
        Some(_) => None,
    }
}

/// A name against a pattern in which `*` stands for anything, also nothing.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = pattern.rsplit_once('*').map(|(_, last)| last) else {
        return rest.is_empty();
    };
    let middle: Vec<&str> = parts.collect();
    for part in &middle[..middle.len().saturating_sub(1)] {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Everything that happened, for people and for the JSON document.
struct Story<'a> {
    command: &'static str,
    config: &'a Config,
    targets: &'a [Target],
    kept: &'a [Kept],
    failed: &'a [(Address, String)],
    removed: Removed,
    dry_run: bool,
    exit: Exit,
}

impl Story<'_> {
    fn show(&self, desk: &Desk) {
        let row = |target: &Target, word: String| {
            vec![
                target.kind.to_string(),
                target.address.to_string(),
                format!("({})", target.prior.provider_id),
                word,
            ]
        };
        let mut rows: Vec<Vec<String>> = self
            .targets
            .iter()
            .map(|target| {
                let mark = if target.protected { " [protected]" } else { "" };
                row(target, format!("→ DELETE{mark}"))
            })
            .collect();
        rows.extend(
            self.kept
                .iter()
                .map(|kept| row(&kept.target, format!("stays: {}", kept.why))),
        );
        let mut text = table::render(&[], &rows);
        for (name, why) in self.failed {
            text.push_str(&format!("{name}: {why}\n"));
        }
        text.push_str(&format!(
            "{} to delete.\n",
            count(self.targets.len(), "resource")
        ));
        desk.ui.say(Event::Block { text });
    }

    fn end(mut self, desk: &Desk) -> Exit {
        let destroyed = self.removed.count(Outcome::Success);
        let is_all_removed = self.dry_run || self.removed.is_success();
        self.exit = if self.removed.lost_lock {
            Exit::Locked
        } else if self.removed.interrupted {
            Exit::Interrupted
        } else if !is_all_removed && destroyed > 0 {
            Exit::Partial
        } else if !is_all_removed {
            Exit::Failed
        } else if !self.failed.is_empty() {
            Exit::Unchecked
        } else {
            Exit::Done
        };
        desk.ui.say(Event::Result {
            text: if self.dry_run {
                "Nothing was changed. `--fix` deletes.\n".to_owned()
            } else {
                format!(
                    "Deleted {} of {}.\n",
                    destroyed,
                    count(self.targets.len(), "resource")
                )
            },
        });
        desk.emit(&json!({
            "command": self.command,
            "config": self.config.path,
            "environment": self.config.environment,
            "dry_run": self.dry_run,
            "exit_code": self.exit as u8,
            "changed": destroyed > 0,
            "failed": self.exit != Exit::Done,
            "resources": self.targets.iter().map(|target| self.resource(target)).collect::<Vec<_>>(),
            "kept": self.kept.iter().map(|kept| json!({
                "resource": kept.target.address,
                "type": kept.target.kind,
                "provider_id": kept.target.prior.provider_id,
                "why": kept.why,
            })).collect::<Vec<_>>(),
            "could_not_list": self.failed.iter().map(|(provider, why)| json!({
                "provider": provider, "error": why,
            })).collect::<Vec<_>>(),
        }));
        self.exit
    }

    fn resource(&self, target: &Target) -> Json {
        let removal = self.removed.of(&target.address);
        json!({
            "resource": target.address,
            "type": target.kind,
            "provider": target.provider,
            "provider_id": target.prior.provider_id,
            "protected": target.protected,
            "status": match removal.map(|removal| removal.outcome) {
                None => "found",
                Some(Outcome::Success) => "deleted",
                Some(outcome) => outcome.word(),
            },
            "error": removal.map(|removal| &removal.message).filter(|message| !message.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Recorded;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("live", "live", true),
            ("live", "live-2", false),
            ("live*", "live-2", true),
            ("*-live", "a-live", true),
            ("a*b*c", "a--b--c", true),
            ("a*b*c", "a--c", false),
            ("*", "", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn in_doubt_a_resource_stays() {
        let arguments = PruneArgs {
            exclude: vec!["LIVE".to_owned(), "AK-LIVE".to_owned()],
            preserve_names: vec!["keep-*".to_owned()],
            ..PruneArgs::default()
        };
        let before = OffsetDateTime::parse("2026-01-01T00:00:00Z", &Rfc3339).unwrap();
        let check = |name: &str, id: &str, made: Option<&str>, orphan: bool, recorded: bool| {
            let kind = Kind::new("infra.access_key");
            let mut prior = Recorded::by_name(Address::new(name), kind.clone());
            id.clone_into(&mut prior.provider_id);
            let target = Target {
                address: Address::new(name),
                kind,
                provider: ProviderId::new("cloud"),
                prior,
                depends_on: BTreeSet::new(),
                declared_depends_on: BTreeSet::new(),
                protected: false,
                orphan,
                created_at: made.unwrap_or_default().to_owned(),
                access_key: "AK".to_owned(),
            };
            stays(&arguments, &target, recorded, before)
        };
        let old = Some("2025-01-01T00:00:00Z");
        assert_eq!(check("a", "1", old, true, false), None);
        assert_eq!(check("a", "LIVE", old, true, false), Some("excluded"));
        assert_eq!(
            check("keep-it", "1", old, true, false),
            Some("its name is preserved")
        );
        assert!(check("a", "1", old, true, true).is_some());
        assert!(check("a", "1", old, false, false).is_some());
        assert!(check("a", "1", None, true, false).is_some());
        assert!(check("a", "1", Some("yesterday"), true, false).is_some());
        assert!(check("a", "1", Some("2026-01-01T00:00:00Z"), true, false).is_some());
    }
}
