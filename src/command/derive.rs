//! `infra derive`: what the modules of a config need, asked of a provider, and put into the config.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::infra::count;
use super::{CommandResult, Desk, Problems, discover};
use crate::apply::Providers;
use crate::cli::infra::DeriveArgs;
use crate::config::{self, Config, Files, Sketch};
use crate::disk::{DiskExt as _, folder_turn};
use crate::package::{disk_failed, edit, read_text};
use crate::provider::ability::{Ability, Derivation, Requirement};
use crate::provider::plugin::find::{self, Found};
use crate::provider::plugin::{self, needs};
use crate::report::{Event, Exit, Report, Reporter as _};
use crate::resource::{ProviderId, PublicMap};

/// Most modules one answer may bring. More is no suggestion that anybody reads.
const MODULES_MAX: usize = 256;
/// Longest name or type of a module a provider may suggest.
const NAME_BYTES_MAX: usize = 253;
/// Most causes repeated when the config would not be valid.
const CAUSES_MAX: usize = 8;

/// A module as it is written into the config, in this order of keys.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct NewModule {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    satisfies: Vec<String>,
    #[serde(rename = "dependsOn", skip_serializing_if = "Vec::is_empty")]
    depends_on: Vec<String>,
    #[serde(skip_serializing_if = "PublicMap::is_empty")]
    config: PublicMap,
}

/// Everything a run finds out.
#[derive(Default)]
struct Findings {
    asked: Vec<Requirement>,
    satisfied: Vec<String>,
    provider: Option<ProviderId>,
    derivation: Derivation,
    modules: Vec<NewModule>,
    variables: Vec<String>,
    changed: bool,
}

/// Runs the command.
pub async fn run(desk: &Desk, arguments: &DeriveArgs) -> CommandResult {
    let path = desk.find_config(&arguments.config)?;
    let config = desk.load(&arguments.config)?;
    let before = read_text(&*desk.disk, &path)?.unwrap_or_default();
    let sketches =
        desk.with_files(|files| config::sketches(&path, desk.global.env.as_deref(), files));
    let mut found = Findings::default();
    let plugins = installed(desk)?;
    wanted(arguments, &config, &sketches, &plugins, &mut found)?;
    let discoverers = discover::who(&config, &plugins);
    if !found.asked.is_empty() || !discoverers.is_empty() {
        let asking = Asking {
            application: discover::name(&*desk.disk, &config),
            config: &config,
            sketches: &sketches,
            plugins: &plugins,
            discoverers,
        };
        ask_provider(desk, arguments, &asking, &mut found).await?;
    }
    let mut items = Vec::new();
    for module in &found.modules {
        items.push(serde_json::to_value(module).unwrap_or_default());
    }
    let yaml = config::list_to_yaml(&found.modules).unwrap_or_default();
    if !found.modules.is_empty() && !desk.global.json {
        // As it would stand in the file, so that it can be copied from here.
        desk.ui.data(&edit::append(
            &path,
            "modules:\n",
            "modules",
            &yaml,
            &items,
        )?);
    }
    for note in &found.derivation.notes {
        desk.ui.note(match note.key.as_str() {
            "" => note.message.clone(),
            key => format!("{key}: {}", note.message),
        });
    }
    refuse_rejected(&found)?;
    if !found.modules.is_empty() {
        let edited = edit::append(&path, &before, "modules", &yaml, &items)?;
        found.variables = check(desk, &config, &edited)?;
        for variable in &found.variables {
            desk.ui.note(format!(
                "The new modules read the variable `{variable}`; nothing in this config did before."
            ));
        }
        if arguments.write {
            decide(desk, arguments, &found).await?;
            write(desk, &config, &before, &edited).await?;
            found.changed = true;
        }
    }
    say(desk, arguments, &config, &found);
    Ok(Exit::Done)
}

/// What stands around a question to providers.
struct Asking<'a> {
    /// What the application is called.
    application: String,
    config: &'a Config,
    sketches: &'a [Sketch],
    plugins: &'a [Found],
    /// Those whose plugins say that they discover needs.
    discoverers: BTreeSet<ProviderId>,
}

/// The plugins that can be used, in the order of their names.
fn installed(desk: &Desk) -> Result<Vec<Found>, Problems> {
    let folder = plugin::folder(desk.global.plugin_dir.as_deref(), &desk.settings.variables);
    let (plugins, skipped) = find::list(&*desk.disk, &folder)?;
    for skipped in skipped {
        desk.ui.say(Event::Problem(Box::new(
            Report::warning(
                "derive/plugin-left-out",
                format!(
                    "what the plugin in `{}` needs is not known: it is left out",
                    skipped.name
                ),
            )
            .because(skipped.why),
        )));
    }
    Ok(plugins)
}

/// What the modules of the config need and none of them meets, as far as plugins have it in writing.
fn wanted(
    arguments: &DeriveArgs,
    config: &Config,
    sketches: &[Sketch],
    plugins: &[Found],
    found: &mut Findings,
) -> Result<(), Problems> {
    for sketch in sketches {
        for plugin in plugins {
            for need in needs::of_kind(plugin, &sketch.kind)? {
                found.add(need, arguments, config, sketches);
            }
        }
    }
    Ok(())
}

impl Findings {
    /// Takes a need up, unless it is somebody else's, known already, or met.
    fn add(
        &mut self,
        need: Requirement,
        arguments: &DeriveArgs,
        config: &Config,
        sketches: &[Sketch],
    ) {
        let runtime = arguments.runtime.as_deref().unwrap_or_default();
        let is_elsewhere = !need.environment.is_empty() && need.environment != config.environment;
        let is_other_runtime = !runtime.is_empty()
            && !need.runtimes.is_empty()
            && !need.runtimes.iter().any(|word| is_runtime(word, runtime));
        let is_known =
            self.asked.iter().any(|one| one.key == need.key) || self.satisfied.contains(&need.key);
        if is_elsewhere || is_other_runtime || is_known {
            return;
        }
        if sketches.iter().any(|one| one.satisfies.contains(&need.key)) {
            self.satisfied.push(need.key);
        } else {
            self.asked.push(need);
        }
    }
}

/// True when a plugin's word for a runtime is ours, however it is written.
fn is_runtime(word: &str, ours: &str) -> bool {
    let word = word.to_ascii_lowercase().replace('_', "-");
    word == ours || word.strip_prefix("requirement-runtime-") == Some(ours)
}

/// Opens the providers that are to answer, and takes their answers apart.
async fn ask_provider(
    desk: &Desk,
    arguments: &DeriveArgs,
    asking: &Asking<'_>,
    found: &mut Findings,
) -> Result<(), Problems> {
    let config = asking.config;
    let mut only = config.clone();
    if let Some(named) = &arguments.provider {
        only.providers
            .retain(|id, _| id.as_str() == named || asking.discoverers.contains(id));
    }
    let mut problems = Vec::new();
    let providers = desk.open_providers(&only, &mut problems).await;
    let result = match problems.is_empty() {
        true => answers(arguments, asking, &providers, found).await,
        false => Err(problems.into()),
    };
    for provider in providers.values() {
        provider.close().await;
    }
    let Some((id, derivation)) = result? else {
        return Ok(());
    };
    let kind = config
        .providers
        .get(&id)
        .map_or("", |declared| declared.provider.as_str());
    found.modules = judge(
        &derivation,
        &found.asked,
        asking.sketches,
        id.as_str(),
        kind,
    )
    .map_err(|why| {
        Report::error(
            "derive/answer",
            format!(
                "provider `{id}` answered with modules that cannot be used; nothing was changed"
            ),
        )
        .because(why)
        .fix("tell the author of the plugin; until then write the modules by hand")
    })?;
    found.derivation = derivation;
    found.provider = Some(id);
    Ok(())
}

/// What is needed beyond what is in writing, and then what would meet it all.
async fn answers(
    arguments: &DeriveArgs,
    asking: &Asking<'_>,
    providers: &Providers,
    found: &mut Findings,
) -> Result<Option<(ProviderId, Derivation)>, Problems> {
    let Asking {
        application,
        config,
        sketches,
        plugins,
        ..
    } = asking;
    for need in discover::ask(application, config, sketches, plugins, providers).await? {
        found.add(need, arguments, config, sketches);
    }
    if found.asked.is_empty() {
        return Ok(None);
    }
    answer(arguments, config, providers, &found.asked)
        .await
        .map(Some)
}

async fn answer(
    arguments: &DeriveArgs,
    config: &Config,
    providers: &Providers,
    asked: &[Requirement],
) -> Result<(ProviderId, Derivation), Problems> {
    let mut able = providers
        .iter()
        .filter(|(id, _)| match arguments.provider.as_deref() {
            Some(named) => named == id.as_str(),
            None => true,
        })
        .filter(|(_, provider)| provider.abilities().contains(&Ability::Requirements));
    let (id, provider) = match (able.next(), able.next()) {
        (Some(one), None) => one,
        (first, _) => {
            let what = match (&arguments.provider, first) {
                (_, Some(_)) => "several providers could say what would meet them".to_owned(),
                (Some(named), None) => {
                    format!("provider `{named}` cannot say what would meet them")
                }
                (None, None) => {
                    "no provider of this config can say what would meet them".to_owned()
                }
            };
            return Err(Report::error(
                "derive/no-provider",
                format!("{} not met, and {what}", count(asked.len(), "requirement")),
            )
            .because(format!("not met: {}", keys(asked)))
            .fix("name the module of a provider that maps requirements: `--provider MODULE`")
            .fix("or write the modules by hand, each with the keys it meets under `satisfies`")
            .exit(Exit::Usage)
            .into());
        }
    };
    let runtime = arguments.runtime.as_deref().unwrap_or_default();
    let derivation = provider
        .derive(runtime, &config.environment, asked)
        .await
        .map_err(|error| {
            Report::error(
                "provider/failed",
                format!("provider `{id}` could not say what would meet the requirements"),
            )
            .because(format!("{} ({})", error.message, error.class.word()))
            .fix("remove the cause, then run the command again")
        })?;
    Ok((id.clone(), derivation))
}

fn keys(asked: &[Requirement]) -> String {
    let keys: Vec<String> = asked.iter().map(|need| format!("`{}`", need.key)).collect();
    keys.join(", ")
}

/// Turns a provider's suggestions into modules for a file that people trust. `Err` says, in one
/// clause, why they cannot stand there.
fn judge(
    derivation: &Derivation,
    asked: &[Requirement],
    sketches: &[Sketch],
    provider: &str,
    kind: &str,
) -> Result<Vec<NewModule>, String> {
    let is_asked = |key: &String| asked.iter().any(|need| need.key == *key);
    let answered = derivation
        .accepted
        .iter()
        .chain(derivation.rejected.iter().map(|no| &no.key));
    for key in answered {
        if !is_asked(key) {
            return Err(format!("nobody asked about {}", shown(key)));
        }
    }
    if derivation.modules.len() > MODULES_MAX {
        return Err(format!("they are more than {MODULES_MAX}"));
    }
    let mut modules: Vec<NewModule> = Vec::new();
    for suggested in &derivation.modules {
        let name = &suggested.name;
        let is_name = !name.trim().is_empty()
            && name.len() <= NAME_BYTES_MAX
            && !name.contains("${")
            && !name.chars().any(char::is_control);
        if !is_name {
            return Err(format!("{} cannot be the name of a module", shown(name)));
        }
        let is_taken = sketches.iter().any(|module| module.name == *name)
            || modules.iter().any(|module| module.name == *name);
        if is_taken {
            return Err(format!("there is a module `{name}` already"));
        }
        // Only resources: a provider has no say in where state is kept, which secrets there are, or
        // which other program is started.
        let is_resource = suggested.kind.len() <= NAME_BYTES_MAX
            && suggested.kind.strip_prefix("infra.").is_some_and(|rest| {
                !rest.is_empty()
                    && rest
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            });
        if !is_resource {
            return Err(format!(
                "`{name}` is of type {}, which is no type of a resource",
                shown(&suggested.kind)
            ));
        }
        // Without a key that was asked for, the next run would suggest the module again.
        if suggested.satisfies.is_empty() || !suggested.satisfies.iter().all(is_asked) {
            return Err(format!(
                "`{name}` does not say which of the requirements it meets"
            ));
        }
        if suggested.config.contains_key("adopt_existing") {
            return Err(format!(
                "`{name}` would take over something that exists already, which only people decide"
            ));
        }
        let mut settings = suggested.config.clone();
        // Plugins know what kind of provider they are, not what its module is called here.
        let is_ours = settings
            .get("provider")
            .is_none_or(|said| said.is_null() || *said == kind || *said == "");
        if is_ours {
            settings.insert("provider".to_owned(), provider.into());
        }
        modules.push(NewModule {
            name: name.clone(),
            kind: suggested.kind.clone(),
            satisfies: suggested.satisfies.clone(),
            depends_on: suggested.depends_on.clone(),
            config: settings,
        });
    }
    Ok(modules)
}

/// Somebody else's text, cut and quoted.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(80).collect();
    format!("{cut:?}")
}

/// All or nothing: a config that meets half of what it needs looks finished and is not.
fn refuse_rejected(found: &Findings) -> Result<(), Report> {
    let derivation = &found.derivation;
    let mut report: Option<Report> = None;
    let mut add = |key: &str, why: String| {
        let so_far = report.take().unwrap_or_else(|| {
            Report::error(
                "derive/rejected",
                "some requirements cannot be met by this provider; nothing was changed",
            )
        });
        report = Some(so_far.because(format!("`{key}`: {why}")));
    };
    for no in &derivation.rejected {
        add(&no.key, format!("{} ({})", no.message, no.code));
    }
    for need in &found.asked {
        let is_answered = derivation.accepted.contains(&need.key)
            || derivation.rejected.iter().any(|no| no.key == need.key);
        if !is_answered {
            add(&need.key, "the provider says nothing about it".to_owned());
        }
    }
    match report {
        None => Ok(()),
        Some(report) => Err(report
            .fix("write a module that meets it, with the key under `satisfies`, and run this again: the rest is derived then")
            .fix("or ask another provider: `--provider MODULE`")),
    }
}

/// Resolves the config as it would be. Answers the variables it asks for and did not before.
fn check(desk: &Desk, config: &Config, edited: &str) -> Result<Vec<String>, Report> {
    let loaded = desk.with_files(|files| {
        let read = |path: &std::path::Path| {
            if path == config.path {
                Ok(edited.as_bytes().to_vec())
            } else {
                (files.read)(path)
            }
        };
        config::load(
            &config.path,
            desk.global.env.as_deref(),
            Files {
                read: &read,
                canonical: files.canonical,
            },
            &desk.settings.variables,
            &desk.masker,
        )
    });
    match loaded {
        Ok(loaded) => Ok(loaded
            .config
            .variables
            .difference(&config.variables)
            .cloned()
            .collect()),
        Err(problems) => {
            let mut report = Report::error(
                "derive/invalid",
                "with these modules the config would not be valid; nothing was changed",
            );
            for problem in problems.iter().take(CAUSES_MAX) {
                report = report.because(format!("{} ({})", problem.message, problem.code));
            }
            Err(report
                .fix("declare what they refer to (a secret, a variable), or write them by hand")
                .exit(Exit::Usage))
        }
    }
}

/// Advice that needs a decision: somebody takes it, or nothing is written.
async fn decide(desk: &Desk, arguments: &DeriveArgs, found: &Findings) -> Result<(), Report> {
    if !found.derivation.notes.iter().any(|note| note.interactive) {
        return Ok(());
    }
    if !arguments.non_interactive {
        let question =
            "The provider leaves something to you, see above. Write the modules? (yes/no) ";
        match super::up::ask(desk, question, "the change of the config").await {
            Err(problem) if problem.code == "approval/needed" => {}
            answered => return answered,
        }
    }
    Err(Report::error(
        "derive/needs-a-person",
        "the provider leaves something to a person, and nobody is here to ask; nothing was changed",
    )
    .fix("read its advice above, then run this in a terminal without --non-interactive")
    .fix("or copy the modules from the preview and decide there")
    .exit(Exit::Usage))
}

/// Replaces the file in one step, unless somebody else did meanwhile.
async fn write(desk: &Desk, config: &Config, before: &str, edited: &str) -> Result<(), Report> {
    // What stands at the end of a link is changed, not the link.
    let target = desk
        .disk
        .canonical(&config.path)
        .map_err(|error| disk_failed(&error))?;
    let folder = target.parent().unwrap_or_else(|| Path::new("."));
    let _turn = folder_turn(&*desk.disk, &*desk.clock, folder)
        .await
        .map_err(|error| disk_failed(&error))?;
    if read_text(&*desk.disk, &target)?.as_deref() != Some(before) {
        return Err(Report::error(
            "derive/overtaken",
            format!(
                "`{}` was changed while the provider was asked; nothing was written",
                config.path.display()
            ),
        )
        .fix("run the command again"));
    }
    desk.disk
        .rewrite(&target, edited.as_bytes(), 0o644)
        .map_err(|error| disk_failed(&error))
}

fn say(desk: &Desk, arguments: &DeriveArgs, config: &Config, found: &Findings) {
    desk.emit(&json!({
        "command": "infra derive",
        "config": config.path,
        "environment": config.environment,
        "exit_code": Exit::Done as u8,
        "failed": false,
        "changed": found.changed,
        "provider": found.provider,
        "runtime": arguments.runtime,
        "requirements": found.asked.iter().map(|need| json!({
            "key": need.key, "kind": need.kind, "source": need.source,
        })).collect::<Vec<_>>(),
        "satisfied": found.satisfied,
        "modules": found.modules,
        "variables": found.variables,
        "notes": found.derivation.notes,
    }));
    let path = config.path.display();
    desk.ui.note(if found.asked.is_empty() {
        match found.satisfied.len() {
            0 => "Nothing to derive: no installed plugin says that a module here needs anything."
                .to_owned(),
            met => format!(
                "Nothing to derive: {} already met.",
                count(met, "requirement")
            ),
        }
    } else if found.modules.is_empty() {
        "Nothing to add: the provider meets what is needed without a module.".to_owned()
    } else if found.changed {
        format!(
            "{} added to `{path}`.",
            count(found.modules.len(), "module")
        )
    } else {
        format!("Nothing was changed; `--write` puts this into `{path}`.")
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::ability::{DerivedModule, Rejection};

    fn asked() -> Vec<Requirement> {
        vec![Requirement {
            key: "orders".to_owned(),
            ..Requirement::default()
        }]
    }

    fn suggested() -> DerivedModule {
        DerivedModule {
            name: "orders-db".to_owned(),
            kind: "infra.database".to_owned(),
            satisfies: vec!["orders".to_owned()],
            config: PublicMap::new(),
            depends_on: Vec::new(),
        }
    }

    fn judged(change: impl Fn(&mut DerivedModule)) -> Result<Vec<NewModule>, String> {
        let mut module = suggested();
        change(&mut module);
        let derivation = Derivation {
            accepted: vec!["orders".to_owned()],
            modules: vec![module],
            ..Derivation::default()
        };
        let there = Sketch {
            name: "web".to_owned(),
            kind: "infra.container_service".to_owned(),
            satisfies: Vec::new(),
        };
        judge(&derivation, &asked(), &[there], "cloud", "files")
    }

    #[test]
    fn a_module_is_put_under_the_provider_that_suggested_it() {
        for said in [json!(null), json!(""), json!("files")] {
            let modules = judged(|module| {
                module.config.insert("provider".to_owned(), said.clone());
            })
            .unwrap();
            assert_eq!(modules[0].config["provider"], "cloud", "{said}");
        }
        let modules = judged(|module| {
            module.config.insert("provider".to_owned(), json!("other"));
        })
        .unwrap();
        assert_eq!(modules[0].config["provider"], "other");
    }

    #[test]
    fn what_could_not_stand_in_a_config_is_refused() {
        type Change = fn(&mut DerivedModule);
        let wrong: [(Change, &str); 12] = [
            (|module| module.name.clear(), "cannot be the name"),
            (|module| module.name = "a\nmodules:".to_owned(), "cannot be"),
            (|module| module.name = "${HOME}".to_owned(), "cannot be"),
            (|module| module.name = "n".repeat(300), "cannot be the name"),
            (|module| module.name = "web".to_owned(), "already"),
            (|module| module.kind = "iac.state".to_owned(), "no type"),
            (|module| module.kind = "iac.provider".to_owned(), "no type"),
            (|module| module.kind = "infra.a: b".to_owned(), "no type"),
            (|module| module.kind = "infra.".to_owned(), "no type"),
            (|module| module.satisfies.clear(), "which of"),
            (
                |module| module.satisfies.push("other".to_owned()),
                "which of",
            ),
            (
                |module| {
                    module
                        .config
                        .insert("adopt_existing".to_owned(), json!(true));
                },
                "only people",
            ),
        ];
        for (change, why) in wrong {
            let error = judged(change).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let unasked = Derivation {
            rejected: vec![Rejection {
                key: "else".to_owned(),
                code: String::new(),
                message: String::new(),
            }],
            ..Derivation::default()
        };
        assert!(judge(&unasked, &asked(), &[], "cloud", "files").is_err());
        let flood = Derivation {
            modules: vec![suggested(); MODULES_MAX + 1],
            ..Derivation::default()
        };
        assert!(judge(&flood, &asked(), &[], "cloud", "files").is_err());
    }

    #[test]
    fn silence_about_a_requirement_is_a_no() {
        let found = Findings {
            asked: asked(),
            ..Findings::default()
        };
        assert_eq!(refuse_rejected(&found).unwrap_err().code, "derive/rejected");
    }

    #[test]
    fn words_for_runtimes_are_compared_as_they_are_meant() {
        for word in ["cloud-run", "CLOUD_RUN", "REQUIREMENT_RUNTIME_CLOUD_RUN"] {
            assert!(is_runtime(word, "cloud-run"), "{word}");
        }
        assert!(!is_runtime("ecs", "cloud-run"));
    }
}
