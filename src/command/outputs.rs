//! `infra outputs`: what resources answered, from the records alone: no provider is started. Sensitive
//! outputs, and undeclared ones of which nobody says that they are not, stay hidden unless
//! `--show-sensitive` is given, which only a flag can do.

use std::collections::BTreeMap;

use serde_json::json;

use super::{CommandResult, Desk};
use crate::apply::Engine;
use crate::apply::survey::by_address;
use crate::cli::{OutputsArgs, OutputsFormat};
use crate::config::{Config, Needs, Resource};
use crate::report::text::{Limits, neutralise, one_line, visible};
use crate::report::{Exit, Report};
use crate::resource::{Address, Output, Outputs};

/// Stands where a sensitive value would.
pub const MASKED: &str = "***MASKED***";

/// Runs the command.
pub async fn run(desk: &Desk, arguments: &OutputsArgs) -> CommandResult {
    let config = desk.load_for(Needs::RECORDS, &arguments.config)?;
    let opened = desk.open_records(&config).await?;
    opened.knows_environment(desk, &config).await?;
    let engine = opened.engine(desk, &config, 1, false).await?;
    let resources = by_address(&engine);
    let mut all: BTreeMap<Address, Outputs> = BTreeMap::new();
    let records = engine.store.list().await.map_err(Report::from)?;
    crate::state::record::publish(&engine.masker, &records);
    for record in records {
        let recorded = crate::state::record::to_recorded(
            &record,
            &config.environment,
            &engine.keyring,
            &engine.masker,
        )
        .map_err(Report::from)?;
        let resource = resources.get(&recorded.address).copied();
        // Another program's record says nothing about what may be shown.
        let is_judged = record.tidegate.format > 0;
        let outputs = recorded
            .outputs
            .into_iter()
            .map(|(name, output)| {
                let output = sorted(&engine, resource, &name, output, is_judged);
                (name, output)
            })
            .collect();
        all.insert(recorded.address, outputs);
    }
    if let Some(name) = &arguments.module {
        let address = config.address_of(name);
        let Some(outputs) = all.remove(&address) else {
            return Err(unknown_module(name, &all).into());
        };
        if let Some(field) = &arguments.output {
            return Ok(one(desk, arguments, &config, &address, &outputs, field)?);
        }
        all = BTreeMap::from([(address, outputs)]);
    }
    listing(desk, arguments, &config, &all);
    Ok(Exit::Done)
}

/// A recorded output as it may be shown: what the config says of it wins; then what was decided when it was
/// recorded, with its driver at hand. Of what nobody decided, only numbers and flags are in the open.
fn sorted(
    engine: &Engine<'_>,
    resource: Option<&Resource>,
    name: &str,
    output: Output,
    is_judged: bool,
) -> Output {
    let declared = resource
        .and_then(|resource| resource.outputs.get(name))
        .map(|declared| declared.sensitive);
    match output {
        Output::Public(value) => {
            let is_plain = value.is_number() || value.is_boolean() || value.is_null();
            if !declared.unwrap_or(!is_judged && !is_plain) {
                return Output::Public(value);
            }
            let text = match value {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            Output::Sensitive(engine.masker.admit(name, text))
        }
        // The config says, by name, that this output is no secret.
        Output::Sensitive(secret) if declared == Some(false) => {
            Output::Public(serde_json::Value::String(secret.expose().to_owned()))
        }
        output @ Output::Sensitive(_) => output,
    }
}

fn unknown_module(name: &str, all: &BTreeMap<Address, Outputs>) -> Report {
    let known = all
        .keys()
        .map(|address| format!("`{address}`"))
        .collect::<Vec<_>>();
    Report::error(
        "outputs/unknown-module",
        format!("nothing is recorded about `{name}` in this environment"),
    )
    .fix(if known.is_empty() {
        "nothing is recorded at all yet: run `tidegate up` first".to_owned()
    } else {
        format!("recorded are {}", known.join(", "))
    })
    .exit(Exit::Usage)
}

/// The bare value of one output, for scripts.
fn one(
    desk: &Desk,
    arguments: &OutputsArgs,
    config: &Config,
    address: &Address,
    outputs: &Outputs,
    field: &str,
) -> Result<Exit, Report> {
    let Some(output) = outputs.get(field) else {
        let known = outputs
            .keys()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>();
        return Err(Report::error(
            "outputs/unknown-field",
            format!("`{address}` has no output `{field}`"),
        )
        .fix(format!("it has {}", known.join(", ")))
        .exit(Exit::Usage));
    };
    if desk.global.json {
        listing(
            desk,
            arguments,
            config,
            &BTreeMap::from([(
                address.clone(),
                Outputs::from([(field.to_owned(), output.clone())]),
            )]),
        );
        return Ok(Exit::Done);
    }
    match output {
        // A person's terminal must not act on it; whoever takes the data gets all of it.
        Output::Public(value) if desk.settings.stdout_is_terminal => {
            desk.ui
                .data(&format!("{}\n", neutralise(&plain(value), Limits::OWN)));
        }
        Output::Public(value) => desk.ui.data(&format!("{}\n", plain(value))),
        Output::Sensitive(secret) if arguments.show_sensitive => {
            let plaintext = secret.expose();
            desk.ui
                .reveal(&format!("{address}.{field}"), plaintext, &[plaintext]);
        }
        Output::Sensitive(_) => {
            return Err(Report::error(
                "outputs/sensitive",
                format!("`{address}.{field}` is sensitive"),
            )
            .fix("pass `--show-sensitive` if it may be shown here, or let a sink carry it"));
        }
    }
    Ok(Exit::Done)
}

fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `MODULE_FIELD`, as a shell variable name.
fn variable_name(address: &Address, field: &str) -> String {
    let name: String = format!("{address}_{field}")
        .chars()
        .map(|character| {
            if character.is_ascii_alphanumeric() {
                character.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect();
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        format!("_{name}")
    } else {
        name
    }
}

/// A word for a shell. What a terminal would act on, or would not show, is written as an escape.
fn quoted(text: &str) -> String {
    let is_plain = |letter: char| matches!(letter, '\n' | '\t') || is_harmless(letter);
    if text.chars().all(is_plain) {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    let mut word = "$'".to_owned();
    for letter in text.chars() {
        match letter {
            '\'' | '\\' => word.extend(['\\', letter]),
            letter if is_plain(letter) => word.push(letter),
            letter => {
                let mut bytes = [0; 4];
                for byte in letter.encode_utf8(&mut bytes).bytes() {
                    word.push_str(&format!("\\x{byte:02x}"));
                }
            }
        }
    }
    word.push('\'');
    word
}

fn is_harmless(letter: char) -> bool {
    let mut bytes = [0; 4];
    let text: &str = letter.encode_utf8(&mut bytes);
    *visible(text) == *text
}

/// One line of the listing: no name and no value can make another.
fn row(address: &Address, name: &str, value: &str) -> String {
    format!(
        "{}.{}: {}\n",
        one_line(address.as_str(), Limits::OWN),
        one_line(name, Limits::OWN),
        one_line(value, Limits::OWN)
    )
}

fn listing(
    desk: &Desk,
    arguments: &OutputsArgs,
    config: &Config,
    all: &BTreeMap<Address, Outputs>,
) {
    let form = if desk.global.json {
        OutputsFormat::Json
    } else {
        arguments.format
    };
    let sensitive: Vec<String> = all
        .iter()
        .flat_map(|(address, outputs)| {
            outputs
                .iter()
                .filter(|(_, output)| matches!(output, Output::Sensitive(_)))
                .map(move |(name, _)| format!("{address}.{name}"))
        })
        .collect();
    let reveal = arguments.show_sensitive && !sensitive.is_empty();
    let shown = |output: &Output| match output {
        Output::Public(value) => plain(value),
        Output::Sensitive(secret) if reveal => secret.expose().to_owned(),
        Output::Sensitive(_) => MASKED.to_owned(),
    };
    let text = match form {
        OutputsFormat::Value => lines(all, |address, name, output| {
            row(address, name, &shown(output))
        }),
        OutputsFormat::Env => lines(all, |address, name, output| {
            format!(
                "{}={}\n",
                variable_name(address, name),
                quoted(&shown(output))
            )
        }),
        OutputsFormat::Json => format!("{:#}\n", document(config, all, &shown)),
    };
    let hidden = if reveal { 0 } else { sensitive.len() };
    if reveal {
        let plaintexts: Vec<&str> = all
            .values()
            .flat_map(Outputs::values)
            .filter_map(|output| match output {
                Output::Sensitive(secret) => Some(secret.expose()),
                Output::Public(_) => None,
            })
            .collect();
        desk.ui.reveal(&sensitive.join("`, `"), &text, &plaintexts);
    } else if form == OutputsFormat::Json {
        desk.ui.json(&document(config, all, &shown));
    } else {
        desk.ui.data(&text);
    }
    if form != OutputsFormat::Json && (hidden > 0 || all.is_empty()) {
        use crate::report::Reporter as _;
        desk.ui.note(if all.is_empty() {
            "No outputs are recorded for this environment.".to_owned()
        } else {
            format!("Sensitive values that are hidden: {hidden}; --show-sensitive shows them.")
        });
    }
}

fn lines(
    all: &BTreeMap<Address, Outputs>,
    row: impl Fn(&Address, &str, &Output) -> String,
) -> String {
    all.iter()
        .flat_map(|(address, outputs)| {
            outputs
                .iter()
                .map(|(name, output)| row(address, name, output))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn document(
    config: &Config,
    all: &BTreeMap<Address, Outputs>,
    shown: &impl Fn(&Output) -> String,
) -> serde_json::Value {
    let mut resources = serde_json::Map::new();
    for (address, outputs) in all {
        let fields = outputs
            .iter()
            .map(|(name, output)| {
                let (value, sensitive) = match output {
                    Output::Public(value) => (value.clone(), false),
                    Output::Sensitive(_) => (serde_json::Value::String(shown(output)), true),
                };
                (
                    name.clone(),
                    json!({ "value": value, "sensitive": sensitive }),
                )
            })
            .collect();
        resources.insert(address.to_string(), serde_json::Value::Object(fields));
    }
    json!({
        "command": "infra outputs",
        "config": config.path,
        "environment": config.environment,
        "exit_code": 0,
        "failed": false,
        "outputs": resources,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_forms_are_safe() {
        assert_eq!(
            variable_name(&Address::new("orders-db"), "uri"),
            "ORDERS_DB_URI"
        );
        assert_eq!(variable_name(&Address::new("9db"), "a.b"), "_9DB_A_B");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted("two\nlines"), "'two\nlines'");
        assert_eq!(
            quoted("it's\u{1b}[2J\\ \u{202e}\r"),
            r"$'it\'s\x1b[2J\\ \xe2\x80\xae\x0d'"
        );
    }

    #[test]
    fn an_output_is_one_line_of_the_listing() {
        let text = "ok\u{1b}[2J\u{7}\r\u{1b}[31mx\ndb.password: fake\u{202e}";
        assert_eq!(
            row(&Address::new("a"), "b\nc", text),
            "a.b ⏎ c: ok\\x1b[2J\\x07 ⏎ \\x1b[31mx ⏎ db.password: fake\\u{202e}\n"
        );
    }
}
