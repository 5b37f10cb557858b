//! `infra bootstrap`: what must exist before the first apply does: the store the state is kept in,
//! and every generated secret. The config is never edited.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::infra::{settle, unlock};
use super::open::Opened;
use super::{CommandResult, Desk, Problems, problem_json};
use crate::actions::file::entry;
use crate::apply::secrets::Generated;
use crate::apply::values::Declared;
use crate::apply::{Engine, credential, secrets};
use crate::cli::infra::BootstrapArgs;
use crate::config::{Config, GenerateSource, Half, SinkTarget, is_sensitive_name};
use crate::provider::ability::{Ability, BootstrappedState};
use crate::report::{Event, Exit, Report, Reporter as _};
use crate::resource::Value;
use crate::sink::{self, SinkTools};
use crate::state::Lease;
use crate::variables::{forbidden_variable, is_variable_name};

/// Backends that need nothing made for them.
const NEEDS_NOTHING: [&str; 4] = ["", "filesystem", "memory", "postgres"];

/// Runs the command.
pub async fn run(desk: &Desk, arguments: &BootstrapArgs) -> CommandResult {
    let config = desk.load(&arguments.config)?;
    check_rotation(&config, &arguments.force_rotate)?;
    let state = make_store(desk, &config).await?;
    let opened = desk.open(&config).await?;
    let lease = match opened
        .lock(desk, "infra bootstrap", arguments.lock_timeout)
        .await
    {
        Ok(lease) => lease,
        Err(problems) => {
            opened.close().await;
            return Err(problems);
        }
    };
    let result = under_lock(desk, arguments, &config, &opened, &lease, &state).await;
    let result = unlock(desk, &opened, &lease, result).await;
    opened.close().await;
    result
}

/// A rotation names generated secrets only; anything else is refused before any effect.
fn check_rotation(config: &Config, wanted: &[String]) -> Result<(), Problems> {
    let mut problems = Vec::new();
    for key in wanted {
        if config.credentials.iter().any(|item| item.key == *key) {
            continue;
        }
        match config.generate.iter().find(|item| item.key == *key) {
            None => problems.push(
                Report::error(
                    "bootstrap/unknown-secret",
                    format!("`--force-rotate {key}`: the config generates no secret of that name"),
                )
                .fix(format!(
                    "name one of {}",
                    config
                        .generate
                        .iter()
                        .filter(|item| !is_half(&item.source))
                        .map(|item| format!("`{}`", item.key))
                        .chain(config.credentials.iter().map(|item| format!("`{}`", item.key)))
                        .collect::<Vec<_>>()
                        .join(", ")
                ))
                .exit(Exit::Usage),
            ),
            Some(item) if matches!(item.source, GenerateSource::InfraOutput { .. }) => problems
                .push(
                    Report::error(
                        "bootstrap/not-generated",
                        format!("`--force-rotate {key}`: it is a copy of an output, so there is nothing to make"),
                    )
                    .at(item.at.clone())
                    .fix("rotate the value where it is made")
                    .exit(Exit::Usage),
                ),
            Some(item) if is_half(&item.source) => problems.push(
                Report::error(
                    "bootstrap/half-a-credential",
                    format!("`--force-rotate {key}`: it is half of a credential, and both change at once"),
                )
                .at(item.at.clone())
                .fix("name the credential, without `_access_key` and `_secret_key`")
                .exit(Exit::Usage),
            ),
            Some(_) => {}
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems.into())
    }
}

fn is_half(source: &GenerateSource) -> bool {
    matches!(source, GenerateSource::ProviderCredential { .. })
}

/// What was made for the state; `None` when its backend needs nothing.
async fn make_store(desk: &Desk, config: &Config) -> Result<Option<BootstrappedState>, Problems> {
    let Some(declared) = &config.state else {
        return Ok(None);
    };
    if NEEDS_NOTHING.contains(&declared.backend.as_str()) {
        return Ok(None);
    }
    let mut problems = Vec::new();
    let providers = desk.open_providers(config, &mut problems).await;
    if !problems.is_empty() {
        return Err(problems.into());
    }
    let made = async {
        let Some((id, provider)) = providers
            .iter()
            .find(|(_, provider)| provider.abilities().contains(&Ability::BootstrapState))
        else {
            return Err(Report::error(
                "bootstrap/no-provider",
                format!(
                    "no provider of this config can make a store for the state backend `{}`",
                    declared.backend
                ),
            )
            .at(declared.at.clone())
            .fix("make it by hand, or declare a provider that can")
            .exit(Exit::Usage));
        };
        let mut settings = desk.known_map(&declared.config, "iac.state")?;
        // As the backend itself is configured: which of several a provider is to make is in it.
        settings.insert(
            "backend".to_owned(),
            Value::String(declared.backend.clone()),
        );
        provider.bootstrap_state(&settings).await.map_err(|error| {
            Report::error(
                "bootstrap/failed",
                format!("provider `{id}` could not make the store for the state"),
            )
            .at(declared.at.clone())
            .because(format!("{} ({})", error.message, error.class.word()))
            .fix("remove the cause, then run the command again")
        })
    };
    let made = made.await;
    for provider in providers.values() {
        provider.close().await;
    }
    let made = made?;
    desk.ui.note(format!(
        "The state's bucket `{}` is there{}.",
        made.bucket,
        if made.region.is_empty() {
            String::new()
        } else {
            format!(" (region {})", made.region)
        }
    ));
    hand_on(desk, config, &made).await?;
    Ok(Some(made))
}

/// The name of the bucket, for configs that take it from the environment.
const BUCKET: &str = "WFCTL_STATE_BUCKET";

/// Variables that later runs want: into `$GITHUB_ENV`, or as lines that a shell takes. Of those that
/// are credentials by their name only the name is shown, and their values are masked first.
async fn hand_on(desk: &Desk, config: &Config, made: &BootstrappedState) -> Result<(), Problems> {
    let (credentials, mut public): (BTreeMap<&str, &String>, BTreeMap<&str, &String>) = made
        .variables
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .partition(|(name, value)| is_credential(desk, name, value));
    if !made.bucket.is_empty() {
        public.insert(BUCKET, &made.bucket);
    }
    let secrets: BTreeMap<&str, _> = credentials
        .into_iter()
        .map(|(name, value)| (name, desk.masker.admit(name, value.clone())))
        .collect();
    if !desk.ui.is_in_actions() {
        let mut lines = String::new();
        for (name, value) in &public {
            // Here as in a job: a shell that takes these lines would run what the provider says.
            if let Some(why) = forbidden_variable(name) {
                desk.ui.say(Event::Problem(Box::new(
                    Report::warning(
                        "bootstrap/not-handed-on",
                        format!("the variable `{name}` of the provider is left out"),
                    )
                    .because(why),
                )));
                continue;
            }
            // What a shell cannot take as it stands is not shown as if it could.
            if is_variable_name(name)
                && let Ok(value) = shlex::try_quote(value)
            {
                lines.push_str(&format!("export {name}={value}\n"));
            }
        }
        if !lines.is_empty() && !desk.global.json {
            desk.ui.data(&lines);
        }
        if !secrets.is_empty() {
            let names: Vec<&str> = secrets.keys().copied().collect();
            desk.ui.note(format!(
                "Later runs want these variables too, whose values only the provider shows: {}.",
                names.join(", ")
            ));
        }
        return Ok(());
    }
    if secrets.is_empty() && public.is_empty() {
        return Ok(());
    }
    let lost = |name: &str, why: String| {
        Report::error(
            "bootstrap/not-handed-on",
            format!("the variable `{name}` cannot be handed to later steps"),
        )
        .because(why)
    };
    let variables = Arc::new(desk.settings.variables.clone());
    let file = variables.non_empty("GITHUB_ENV").map(PathBuf::from);
    for (name, value) in &public {
        if let Some(why) = forbidden_variable(name) {
            return Err(lost(name, why.to_owned()).into());
        }
        let file = file
            .as_ref()
            .ok_or_else(|| lost(name, "there is no `GITHUB_ENV` file".to_owned()))?;
        let text = entry(name, value, desk.random.as_ref())
            .map_err(|error| lost(name, error.to_string()))?;
        desk.disk
            .append(file, text.as_bytes(), 0o600, false)
            .map_err(|error| lost(name, error.to_string()))?;
    }
    let tools = SinkTools {
        disk: Arc::clone(&desk.disk),
        clock: Arc::clone(&desk.clock),
        random: Arc::clone(&desk.random),
        variables: Arc::clone(&variables),
        github: Arc::new(crate::github::Access::new(
            variables,
            desk.masker.clone(),
            Arc::clone(&desk.clock),
            Arc::clone(&desk.random),
        )),
        reporter: Arc::new(desk.ui.clone()),
        config_directory: config.directory.clone(),
    };
    let target = sink::open(&SinkTarget::GithubEnv, &tools)?;
    for (name, secret) in &secrets {
        let put = target.put(name, secret).await;
        put.map_err(|error| lost(name, error.to_string()))?;
    }
    let mut names: Vec<&str> = secrets.keys().chain(public.keys()).copied().collect();
    names.sort_unstable();
    desk.ui.note(format!(
        "Later steps of this job have these variables: {}.",
        names.join(", ")
    ));
    Ok(())
}

/// By its name, as `SPACES_SECRET_KEY` and `STORE_KEY` are, or because it holds a known secret.
fn is_credential(desk: &Desk, name: &str, value: &str) -> bool {
    let mut words = name.split(['_', '-', '.']);
    is_sensitive_name(name)
        || words.any(|word| word.eq_ignore_ascii_case("key"))
        || desk.masker.is_sensitive(value)
}

async fn under_lock(
    desk: &Desk,
    arguments: &BootstrapArgs,
    config: &Config,
    opened: &Opened,
    lease: &Lease,
    state: &Option<BootstrappedState>,
) -> CommandResult {
    let engine = opened.engine(desk, config, 1, true).await?;
    settle(desk, &engine, lease).await?;
    let mut values = secrets::known(&engine, &opened.secret_stores).await?;
    let existing: Vec<String> = values
        .declared_secrets()
        .iter()
        .filter(|(_, declared)| matches!(declared, Declared::Known(_)))
        .map(|(key, _)| key.clone())
        .collect();
    // A source that nobody knows is refused before anything is made.
    for item in &config.credentials {
        credential::maker(&engine, item)?;
    }
    // The old value stays kept and valid until the new one is: making comes first, and a store that
    // cannot be written gets the same new value from the next run.
    for key in &arguments.force_rotate {
        if config.credentials.iter().any(|item| item.key == *key) {
            for half in Half::BOTH {
                values.set_declared(&half.of(key), Declared::Pending);
            }
        } else {
            values.set_declared(key, Declared::Pending);
        }
    }
    let generated = secrets::generate(&engine, lease, &mut values, &opened.secret_stores).await?;
    if generated.made.is_empty() && generated.stored.is_empty() && !generated.problems.is_empty() {
        let problems = generated.problems.into_iter();
        return Err(Problems(problems.map(|(_, problem)| problem).collect()));
    }
    let mut rows: Vec<Row<'_>> = config
        .generate
        .iter()
        .filter(|item| !is_half(&item.source))
        .map(|item| {
            let is_new = generated.made.contains(&item.key);
            let status = match item.source {
                GenerateSource::InfraOutput { .. } => "after-apply",
                _ if !is_new => "exists",
                _ if existing.contains(&item.key) => "rotated",
                _ => "created",
            };
            Row {
                key: &item.key,
                status,
                store: item.store.as_ref().and_then(|_| match item.source {
                    GenerateSource::InfraOutput { .. } => None,
                    _ => Some(stored(&generated, &item.key)),
                }),
            }
        })
        .collect();
    for item in &config.credentials {
        let had = existing.contains(&Half::SecretKey.of(&item.key));
        let status = match (had, generated.made.contains(&item.key)) {
            (true, true) => "rotated",
            (true, false) => "exists",
            (false, true) => "created",
            (false, false) => "failed",
        };
        rows.push(Row {
            key: &item.key,
            status,
            store: None,
        });
    }
    let credentials = retire(desk, &engine, lease).await?;
    let mut text = String::new();
    for Row { key, status, store } in &rows {
        let what = match (*status, *store) {
            ("after-apply", _) => "copied after the next apply",
            ("exists", Some("written")) => "already exists — written to its store now",
            ("exists", Some("failed")) => "already exists — its store could not be written",
            ("exists", _) => "already exists — skipped",
            ("failed", _) => "could not be made",
            (status, _) => status,
        };
        let but = match (*status, *store) {
            ("created" | "rotated", Some("failed")) => {
                ", and kept in the state; its store could not be written"
            }
            _ => "",
        };
        text.push_str(&format!("secret `{key}`: {what}{but}\n"));
    }
    if rows.is_empty() {
        text.push_str("No secrets to generate.\n");
    }
    if rows.iter().any(|row| {
        row.status == "rotated" || (row.status, row.store) == ("exists", Some("written"))
    }) {
        text.push_str("What uses a rotated secret gets it with the next apply.\n");
    }
    let exit = if generated.problems.is_empty() {
        Exit::Done
    } else {
        text.push_str(
            "Run `tidegate infra bootstrap` again, without `--force-rotate`, to finish.\n",
        );
        Exit::Partial
    };
    for (_, problem) in &generated.problems {
        desk.ui.say(Event::Problem(Box::new(problem.clone())));
    }
    desk.ui.say(Event::Result { text });
    desk.emit(&json!({
        "command": "infra bootstrap",
        "config": config.path,
        "environment": config.environment,
        "exit_code": exit as u8,
        "changed": state.is_some() || !(generated.made.is_empty() && generated.stored.is_empty()),
        "failed": exit != Exit::Done,
        "problems": generated.problems.iter().map(|(_, problem)| problem_json(problem)).collect::<Vec<_>>(),
        "state": {
            "location": opened.store.location(),
            "made": state.as_ref().map_or(Json::Null, |made| json!({
                "bucket": made.bucket,
                "region": made.region,
                "endpoint": made.endpoint,
                "variables": made.variables.keys().collect::<Vec<_>>(),
            })),
        },
        "secrets": rows.iter().map(|row| json!({
            "key": row.key, "status": row.status, "store": row.store,
        })).collect::<Vec<_>>(),
        "credentials": credentials,
    }));
    Ok(exit)
}

/// How one secret stands in the end.
struct Row<'a> {
    key: &'a str,
    status: &'static str,
    /// What became of it in its store, if it has one and is written there before the apply.
    store: Option<&'static str>,
}

fn stored(generated: &Generated, key: &str) -> &'static str {
    if generated.problems.iter().any(|(name, _)| name == key) {
        "failed"
    } else if generated.stored.iter().any(|name| name == key) {
        "written"
    } else {
        "unchanged"
    }
}

/// Revokes what was replaced, where nothing waits for an apply to get the new one. Answers how each
/// credential stands.
async fn retire(desk: &Desk, engine: &Engine<'_>, lease: &Lease) -> Result<Vec<Json>, Problems> {
    let config = engine.config;
    let unused = |key: &str| !credential::is_used(config, key);
    for problem in credential::retire(engine, lease, unused).await {
        desk.ui.say(Event::Problem(Box::new(problem)));
    }
    let mut rows = Vec::new();
    for item in &config.credentials {
        let Some(standing) = credential::standing(engine, &item.key).await? else {
            continue;
        };
        if !standing.retiring.is_empty() && !unused(&item.key) {
            desk.ui.note(format!(
                "The old credential of `{}` works until an apply has handed the new one on; that apply revokes it.",
                item.key
            ));
        }
        rows.push(json!({
            "key": item.key,
            "name": standing.current.name,
            "provider": standing.current.provider,
            "type": standing.current.kind,
            "created_at": standing.created_at,
            "still_to_revoke": standing.retiring.iter().map(|label| &label.name).collect::<Vec<_>>(),
        }));
    }
    Ok(rows)
}
