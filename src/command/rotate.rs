//! `infra rotate-and-prune`: a credential is made anew, what was made is written down, and older
//! ones go. Only what this state made goes by itself; everything else has to be named.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::cleanup::{
    ELSEWHERE, cannot_list, gate, is_called, is_label, know, not_listed, record_of, two_keys,
};
use super::infra::{approve, count, settle, unlock};
use super::open::Opened;
use super::{CommandResult, Desk, Problems};
use crate::apply::credential::{self, Standing};
use crate::apply::ownership::{self, Owner};
use crate::apply::teardown::{
    Removed, Target, is_of_others, of_others, plan_of, remove, target_of,
};
use crate::apply::{Engine, secrets};
use crate::cli::infra::{PruneArgs, RotateArgs};
use crate::clock::rfc3339;
use crate::config::{Config, Credential};
use crate::disk::DiskExt as _;
use crate::face::table;
use crate::provider::ability::Ability;
use crate::report::{Event, Exit, Outcome, Report, Reporter as _};
use crate::settings;
use crate::state::Lease;

/// How many removals may run at once.
const AT_ONCE: usize = 10;

const RECOVERY_FILE: &str = "last-rotation.json";
const RECOVERY_BYTES_MAX: u64 = 64 << 10;

/// What is written down, under the names other tools of the field use.
#[derive(Serialize, Deserialize)]
struct Rotation {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    /// The provider's id; where ids are access keys, it is the access key.
    access_key: String,
    created_at: String,
    source: String,
    rotated_at: String,
}

/// Runs the command.
pub async fn run(desk: &Desk, arguments: &RotateArgs) -> CommandResult {
    // Both keys before anything is even looked at.
    let variable = desk.settings.variables.get(settings::CONFIRM_PRUNE) == Some("1");
    if !(arguments.confirm && variable) {
        return Err(two_keys(arguments.confirm, variable).into());
    }
    let config = desk.load(&arguments.config)?;
    let item = named(&config, &arguments.name)?;
    let opened = desk.open(&config).await?;
    let result = locked(desk, arguments, &config, &opened, item).await;
    opened.close().await;
    result
}

/// Exactly one credential, by its name at the provider, else by its key.
fn named<'a>(config: &'a Config, name: &str) -> Result<&'a Credential, Problems> {
    let by_name = || config.credentials.iter().filter(|item| item.name == name);
    let refused = |message: String| {
        let known: Vec<String> = config
            .credentials
            .iter()
            .map(|item| format!("`{}` (key `{}`)", item.name, item.key))
            .collect();
        Report::error("rotate/unknown-credential", message)
            .fix(if known.is_empty() {
                "declare one under `secrets.generate` with `type: provider_credential`".to_owned()
            } else {
                format!("name one of {}", known.join(", "))
            })
            .exit(Exit::Usage)
            .into()
    };
    match by_name().count() {
        0 => config
            .credentials
            .iter()
            .find(|item| item.key == name)
            .ok_or_else(|| refused(format!("the config declares no credential `{name}`"))),
        1 => by_name()
            .next()
            .ok_or_else(|| refused(format!("the config declares no credential `{name}`"))),
        _ => Err(refused(format!(
            "the config declares several credentials that are called `{name}`"
        ))),
    }
}

async fn locked(
    desk: &Desk,
    arguments: &RotateArgs,
    config: &Config,
    opened: &Opened,
    item: &Credential,
) -> CommandResult {
    let lease = opened
        .lock(desk, "infra rotate-and-prune", arguments.lock_timeout)
        .await?;
    let result = under_lock(desk, arguments, config, opened, item, &lease).await;
    unlock(desk, opened, &lease, result).await
}

/// What is going to happen, decided before anything does.
struct Preview {
    before: Standing,
    targets: Vec<Target>,
    stays: Vec<(Target, &'static str)>,
}

async fn under_lock(
    desk: &Desk,
    arguments: &RotateArgs,
    config: &Config,
    opened: &Opened,
    item: &Credential,
    lease: &Lease,
) -> CommandResult {
    let owner = desk.owner(&arguments.owner)?;
    let engine = opened.engine(desk, config, AT_ONCE, true).await?;
    settle(desk, &engine, lease).await?;
    let mut values = secrets::known(&engine, &opened.secret_stores).await?;
    let preview = preview(&engine, arguments, &owner, item).await?;
    let plan = plan_of(&config.environment, &preview.targets)?;
    show(desk, item, &preview);
    gate(&plan, &[])?;
    approve(
        desk,
        arguments.yes,
        &format!(
            "Make `{}` anew and delete {}? Only `yes` is taken as a yes: ",
            item.name,
            count(
                preview.targets.len() + preview.before.retiring.len(),
                "older one"
            )
        ),
        "the rotation",
    )
    .await?;
    // A folder that cannot be written is found out before anything is made.
    let path = recovery_path(desk)?;
    let mut removed = Removed::default();
    if arguments.prune_first {
        removed = remove(&engine, Some(lease), &plan, &preview.targets).await;
        if !removed.is_success() {
            return Ok(end(
                desk, config, item, &preview, &removed, None, &path, false,
            ));
        }
    }
    credential::rotate(&engine, lease, item, &mut values, &opened.secret_stores).await?;
    let Some(standing) = credential::standing(&engine, &item.key).await? else {
        return Err(Report::error(
            "credential/not-made",
            format!("the credential `{}` is not kept", item.key),
        )
        .into());
    };
    desk.ui.note(format!(
        "Made `{}` at {}.",
        standing.current.name, standing.created_at
    ));
    // Before anything is deleted: whoever has to find out what is in use can.
    write_down(desk, &path, &standing)?;
    if !arguments.prune_first {
        removed = remove(&engine, Some(lease), &plan, &preview.targets).await;
    }
    let used = credential::is_used(config, &item.key);
    for problem in credential::retire(&engine, lease, |key| key == item.key && !used).await {
        desk.ui.say(Event::Problem(Box::new(problem)));
    }
    let standing = credential::standing(&engine, &item.key)
        .await?
        .unwrap_or(standing);
    Ok(end(
        desk,
        config,
        item,
        &preview,
        &removed,
        Some(&standing),
        &path,
        used,
    ))
}

/// Lists what the provider has and sorts it: what goes because it was named, and what stays and why.
async fn preview(
    engine: &Engine<'_>,
    arguments: &RotateArgs,
    owner: &Owner,
    item: &Credential,
) -> Result<Preview, Problems> {
    let (id, provider, kind) = credential::maker(engine, item)?;
    if let Some(wanted) = &arguments.kind
        && wanted != kind.as_str()
    {
        return Err(Report::error(
            "rotate/other-type",
            format!("`{}` is of type `{kind}`, not `{wanted}`", item.name),
        )
        .fix("leave `--type` out, or name another credential")
        .exit(Exit::Usage)
        .into());
    }
    if !provider.abilities().contains(&Ability::Enumerate) {
        return Err(cannot_list(&[id]).into());
    }
    let Some(before) = credential::standing(engine, &item.key).await? else {
        return Err(Report::error(
            "rotate/nothing-yet",
            format!("the credential `{}` was never made", item.name),
        )
        .at(item.at.clone())
        .fix("make it with `tidegate infra bootstrap`")
        .exit(Exit::Usage)
        .into());
    };
    let found = provider
        .enumerate(&kind)
        .await
        .map_err(|error| not_listed(id, &kind, &error))?;
    let mut listed: Vec<Target> = found
        .into_iter()
        .map(|one| target_of(engine, id, one))
        .collect();
    if !listed
        .iter()
        .any(|target| is_label(target, &before.current))
    {
        return Err(Report::error(
            "rotate/not-listed",
            format!(
                "the credential in use, `{}`, is not among the {} that were listed; nothing was changed",
                before.current.name,
                count(listed.len(), "resource")
            ),
        )
        .because("a listing that misses the one in use cannot be trusted with what to delete")
        .fix("look with `tidegate infra audit-keys`; `tidegate infra bootstrap --force-rotate` makes a new one and deletes nothing else")
        .into());
    }
    let unknown: Vec<String> = arguments
        .also
        .iter()
        .filter(|name| !listed.iter().any(|target| is_called(target, name)))
        .map(|name| format!("`{name}`"))
        .collect();
    if !unknown.is_empty() {
        return Err(refused_also(
            format!("{} is not among what was listed", unknown.join(", ")),
            "take the id from `tidegate infra audit-keys --type TYPE`",
        ));
    }
    let records = engine.store.list().await.map_err(Report::from)?;
    know(engine, &records, &mut listed);
    let in_use = credential::in_use(engine).await?;
    let others = of_others(engine).await.map_err(Report::from)?;
    let (mut targets, mut stays) = (Vec::new(), Vec::new());
    for target in listed {
        if before.retiring.iter().any(|label| is_label(&target, label)) {
            continue;
        }
        let why = if in_use.iter().any(|(_, label)| is_label(&target, label)) {
            Some("in use by a generated secret")
        } else if record_of(engine, &records, &target).is_some() {
            Some("recorded in this environment's state")
        } else if is_of_others(&others, &target).is_some() {
            Some(ELSEWHERE)
        } else if !target.orphan {
            Some("declared in the config")
        } else {
            None
        };
        let is_named = arguments.also.iter().any(|name| is_called(&target, name));
        match (is_named, why) {
            (true, None) => targets.push(target),
            (true, Some(why)) => {
                return Err(refused_also(
                    format!("`{}` is {why}", target.prior.address),
                    "take it out of `--also`",
                ));
            }
            (false, Some(_)) => {}
            (false, None) => {
                let family = target
                    .prior
                    .address
                    .as_str()
                    .strip_prefix(item.name.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
                if family {
                    stays.push((
                        target,
                        "not made by this state; `--also` with its id deletes it",
                    ));
                }
            }
        }
    }
    let (targets, owned) = ownership::sort(engine, targets, owner).await;
    engine.cancel.go_on()?;
    if let Some((target, why)) = owned.first() {
        return Err(refused_also(
            format!("`{}` stays: {why}", target.prior.address),
            "take it out of `--also`, or say with `--owner` for whom you work",
        ));
    }
    Ok(Preview {
        before,
        targets,
        stays,
    })
}

fn refused_also(message: String, fix: &str) -> Problems {
    Report::error(
        "rotate/not-deletable",
        format!("{message}; nothing was changed"),
    )
    .fix(fix)
    .exit(Exit::Usage)
    .into()
}

fn show(desk: &Desk, item: &Credential, preview: &Preview) {
    let row = |name: &str, id: &str, word: String| {
        vec![
            preview.before.current.kind.to_string(),
            name.to_owned(),
            format!("({id})"),
            word,
        ]
    };
    let current = &preview.before.current;
    let mut rows = vec![row(
        &current.name,
        &current.provider_id,
        format!("→ ROTATE (made {})", preview.before.created_at),
    )];
    for label in &preview.before.retiring {
        rows.push(row(&label.name, &label.provider_id, "→ REVOKE".to_owned()));
    }
    for target in &preview.targets {
        let mark = if target.protected { " [protected]" } else { "" };
        rows.push(row(
            target.prior.address.as_str(),
            &target.prior.provider_id,
            format!("→ DELETE{mark}"),
        ));
    }
    for (target, why) in &preview.stays {
        rows.push(row(
            target.prior.address.as_str(),
            &target.prior.provider_id,
            format!("stays: {why}"),
        ));
    }
    let mut text = table::render(&[], &rows);
    text.push_str(&format!(
        "`{}` is made anew; {} to delete.\n",
        item.key,
        count(
            preview.targets.len() + preview.before.retiring.len(),
            "older one"
        )
    ));
    desk.ui.say(Event::Block { text });
}

#[expect(
    clippy::too_many_arguments,
    reason = "the one place that says how it all ended"
)]
fn end(
    desk: &Desk,
    config: &Config,
    item: &Credential,
    preview: &Preview,
    removed: &Removed,
    standing: Option<&Standing>,
    path: &std::path::Path,
    used: bool,
) -> Exit {
    let left = standing.map_or(0, |standing| standing.retiring.len());
    let exit = if removed.lost_lock {
        Exit::Locked
    } else if removed.interrupted {
        Exit::Interrupted
    } else if !removed.is_success() || (left > 0 && !used) {
        if standing.is_some() {
            Exit::Partial
        } else {
            Exit::Failed
        }
    } else {
        Exit::Done
    };
    let deleted = removed.count(Outcome::Success);
    let mut text = match standing {
        Some(standing) => format!(
            "Rotated `{}`: `{}` is in use now. What was made is written down in {}.\n",
            item.key,
            standing.current.name,
            path.display()
        ),
        None => format!("`{}` was not rotated.\n", item.key),
    };
    text.push_str(&format!(
        "Deleted {deleted} of {}.\n",
        count(preview.targets.len(), "named one")
    ));
    if used && left > 0 {
        text.push_str(
            "The old one works until an apply has handed the new one on; that apply revokes it.\n",
        );
    }
    desk.ui.say(Event::Result { text });
    desk.emit(&json!({
        "command": "infra rotate-and-prune",
        "config": config.path,
        "environment": config.environment,
        "exit_code": exit as u8,
        "changed": standing.is_some() || deleted > 0,
        "failed": exit != Exit::Done,
        "credential": standing.map(|standing| json!({
            "key": item.key,
            "name": standing.current.name,
            "provider": standing.current.provider,
            "type": standing.current.kind,
            "created_at": standing.created_at,
            "still_to_revoke": standing.retiring.iter().map(|label| &label.name).collect::<Vec<_>>(),
        })),
        "recovery_file": standing.map(|_| path),
        "resources": preview.targets.iter().map(|target| {
            let removal = removed.of(&target.address);
            json!({
                "resource": target.prior.address,
                "type": target.kind,
                "provider": target.provider,
                "provider_id": target.prior.provider_id,
                "status": match removal.map(|removal| removal.outcome) {
                    None => "found",
                    Some(Outcome::Success) => "deleted",
                    Some(outcome) => outcome.word(),
                },
                "error": removal.map(|removal| &removal.message).filter(|message| !message.is_empty()),
            })
        }).collect::<Vec<_>>(),
        "kept": preview.stays.iter().map(|(target, why)| json!({
            "resource": target.prior.address,
            "type": target.kind,
            "provider_id": target.prior.provider_id,
            "why": why,
        })).collect::<Vec<_>>(),
    }));
    exit
}

fn recovery_path(desk: &Desk) -> Result<PathBuf, Report> {
    let variables = &desk.settings.variables;
    let set = |name: &str| {
        variables
            .get(name)
            .filter(|text| !text.is_empty())
            .map(PathBuf::from)
    };
    let folder = set(settings::ROTATION_FOLDER)
        .or_else(|| set("HOME").map(|home| home.join(".wfctl")))
        .ok_or_else(|| {
            Report::error(
                "rotate/no-folder",
                "there is no place to write down what is made; nothing was changed",
            )
            .because("neither WFCTL_STATE_DIR nor HOME is set")
            .fix("set WFCTL_STATE_DIR to a folder that is kept")
            .exit(Exit::Usage)
        })?;
    desk.disk
        .create_directories(&folder, 0o700)
        .map_err(|error| {
            Report::error(
                "rotate/no-folder",
                format!(
                    "the folder `{}` cannot be made; nothing was changed",
                    folder.display()
                ),
            )
            .because(error.source.to_string())
            .fix("set WFCTL_STATE_DIR to a folder that can be written")
        })?;
    Ok(folder.join(RECOVERY_FILE))
}

fn write_down(desk: &Desk, path: &std::path::Path, standing: &Standing) -> Result<(), Report> {
    let rotation = Rotation {
        kind: standing.current.kind.to_string(),
        name: standing.current.name.clone(),
        access_key: standing.current.provider_id.clone(),
        created_at: standing.created_at.clone(),
        source: standing.current.source.clone(),
        rotated_at: rfc3339(desk.clock.now()),
    };
    let unwritten = |why: String| {
        Report::error(
            "rotate/not-written-down",
            format!(
                "`{}` was made and is in use, but `{}` cannot be written, so nothing was deleted",
                standing.current.name,
                path.display()
            ),
        )
        .because(why)
        .fix("delete older ones with `tidegate infra prune`, when you know which")
    };
    let text =
        serde_json::to_string_pretty(&rotation).map_err(|error| unwritten(error.to_string()))?;
    desk.disk
        .write_atomic(path, format!("{text}\n").as_bytes(), 0o600)
        .map_err(|error| unwritten(error.source.to_string()))
}

/// What `infra prune --recovery-from-last-rotation` prunes by: the one that was made last stays, and
/// whatever is older goes.
pub(super) fn recover(desk: &Desk, arguments: &PruneArgs) -> Result<PruneArgs, Problems> {
    let path = recovery_path(desk)?;
    let refused = |why: String| {
        Report::error(
            "rotate/no-recovery",
            format!("`{}` says nothing of a last rotation", path.display()),
        )
        .because(why)
        .fix("give `--created-before` and `--exclude` yourself")
        .exit(Exit::Usage)
    };
    let bytes = desk
        .disk
        .read(&path, RECOVERY_BYTES_MAX)
        .map_err(|error| refused(error.source.to_string()))?;
    let rotation: Rotation =
        serde_json::from_slice(&bytes).map_err(|error| refused(error.to_string()))?;
    if rotation.kind != arguments.kind {
        return Err(refused(format!(
            "it is about the type `{}`, not `{}`",
            rotation.kind, arguments.kind
        ))
        .into());
    }
    let mut arguments = arguments.clone();
    arguments.exclude.push(rotation.access_key);
    if arguments.created_before.is_empty() {
        arguments.created_before = rotation.created_at;
    }
    Ok(arguments)
}
