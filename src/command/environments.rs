//! Which environment a command is about, said before somebody wonders.

use super::{Desk, Problems};
use crate::apply::Engine;
use crate::apply::survey::Survey;
use crate::config::{Config, NO_ENVIRONMENT};
use crate::report::{Event, Report, Reporter as _};

/// Environments named in one message.
const AT_MOST: usize = 5;

pub(super) fn listed(names: &[String]) -> String {
    let mut text = names
        .iter()
        .take(AT_MOST)
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > AT_MOST {
        text.push_str(&format!(" and {} more", names.len() - AT_MOST));
    }
    text
}

impl Desk {
    /// Warns when a config has environments and the command names none: what happens then happens in
    /// an environment of its own, which hardly anybody means.
    pub(super) fn warn_of_no_environment(&self, config: &Config) {
        let declared = &config.environments;
        if self.global.env.is_some()
            || declared.is_empty()
            || declared.iter().any(|name| name == NO_ENVIRONMENT)
        {
            return;
        }
        self.ui.say(Event::Problem(Box::new(
            Report::warning(
                "config/no-environment",
                format!("no environment is named, so this is about one called `{NO_ENVIRONMENT}`"),
            )
            .because(format!("the config declares {}", listed(declared)))
            .fix("name one with `--env`")
            .fix(format!(
                "if the config without any of them is meant, declare `{NO_ENVIRONMENT}: {{}}` under `environments:`"
            )),
        )));
    }
}

/// Warns when an environment begins from nothing while the state knows one that the config does not: it
/// may have been renamed, and everything would be made a second time.
pub(super) async fn warn_of_renamed(
    desk: &Desk,
    engine: &Engine<'_>,
    survey: &Survey,
) -> Result<(), Problems> {
    let config = engine.config;
    if config.environments.is_empty()
        || survey.records.iter().next().is_some()
        || survey.plan.is_empty()
    {
        return Ok(());
    }
    let recorded = engine.store.environments().await.map_err(Report::from)?;
    let others: Vec<String> = recorded
        .into_iter()
        .filter(|name| {
            *name != config.environment
                && name != NO_ENVIRONMENT
                && !config.environments.contains(name)
        })
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    let environment = &config.environment;
    desk.ui.say(Event::Problem(Box::new(
        Report::warning(
            "state/other-environments",
            format!(
                "nothing is recorded of environment `{environment}` yet, but of {}, which the config does not declare",
                listed(&others)
            ),
        )
        .because("the state and the cloud know an environment by its name alone")
        .fix(format!(
            "if `{environment}` is a new name for it, give it its old name: everything would be made a second time"
        ))
        .fix("if it is not wanted any more: `tidegate infra destroy --env NAME`"),
    )));
    Ok(())
}
