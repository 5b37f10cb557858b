//! What a gate is asked to hold for, with every value known.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config;
use crate::report::{Exit, Report};
use crate::resource::{Part, Resolver, Template, Value};
use crate::secret::Secret;

/// Defaults of the command line and of the config alike.
pub mod defaults {
    use std::time::Duration;

    /// Status that counts as good.
    pub const EXPECT_STATUS: u16 = 200;
    /// For all targets together.
    pub const TIMEOUT: Duration = Duration::from_secs(300);
    /// Between two looks.
    pub const RETRY_INTERVAL: Duration = Duration::from_secs(10);
    /// Retries.
    pub const MAX_RETRIES: u32 = 30;
}

/// A text of a target: open, or a secret that may be sent but never shown.
#[derive(Clone, Debug)]
pub enum Text {
    /// Anyone may see it.
    Plain(String),
    /// Nobody may see it.
    Secret(Secret),
}

impl Text {
    /// The text itself, to be sent or searched for.
    pub(super) fn expose(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Secret(secret) => secret.expose(),
        }
    }

    /// True when it must not be shown.
    pub fn is_secret(&self) -> bool {
        matches!(self, Self::Secret(_))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::Plain(text.to_owned())
    }
}

/// One target of a gate.
#[derive(Clone, Debug)]
pub struct Target {
    /// What people call it: the URL as it stands in the config, references and all. No secret.
    pub label: String,
    /// What to ask.
    pub url: Text,
    /// Status that counts as good.
    pub expect_status: u16,
    /// Text the body must hold.
    pub expect_body_contains: Option<Text>,
    /// HTTP method.
    pub method: String,
    /// Request headers.
    pub headers: BTreeMap<String, Text>,
    /// Request body.
    pub body: Option<Text>,
    /// Check the server's certificate.
    pub tls_verify: bool,
    /// Looks in a row that must pass.
    pub consecutive: u32,
}

impl Target {
    /// A target with the defaults: GET, status 200, certificates checked, one pass.
    pub fn new(url: &str) -> Self {
        Self {
            // A URL on the command line may carry credentials; the label must not.
            label: crate::http::RedactedUrl::parse(url)
                .map_or_else(|_| "(not a URL)".to_owned(), |url| url.to_string()),
            url: url.into(),
            expect_status: defaults::EXPECT_STATUS,
            expect_body_contains: None,
            method: "GET".to_owned(),
            headers: BTreeMap::new(),
            body: None,
            tls_verify: true,
            consecutive: 1,
        }
    }
}

/// One gate: all its targets must pass within one timeout.
#[derive(Clone, Debug)]
pub struct Gate {
    /// `<pipeline>/<step>`, or `deploy verify` for the command-line form.
    pub name: String,
    /// What must answer; at least one.
    pub targets: Vec<Target>,
    /// For all targets together, and for each single request.
    pub timeout: Duration,
    /// The longest wait between two looks at one target.
    pub retry_interval: Duration,
    /// Retries per target; see [`super::gate`].
    pub max_retries: u32,
    /// Relay every answer, not only what was wrong at the end.
    pub verbose: bool,
}

/// The gate of `deploy verify --url …`: one target.
pub fn from_flags(
    url: &str,
    expect_status: u16,
    expect_body_contains: Option<&str>,
    timeout: Duration,
    retry_interval: Duration,
    max_retries: u32,
) -> Gate {
    Gate {
        name: "deploy verify".to_owned(),
        targets: vec![Target {
            expect_status,
            expect_body_contains: expect_body_contains.map(Text::from),
            ..Target::new(url)
        }],
        timeout,
        retry_interval,
        max_retries,
        verbose: false,
    }
}

impl Gate {
    /// A declared gate with every reference filled in, or every problem with that. A failed
    /// lookup is turned into text by `explain`.
    pub fn resolve<R: Resolver>(
        declared: &config::Gate,
        resolver: &R,
        explain: impl Fn(&R::Error) -> String,
    ) -> Result<Self, Vec<Report>> {
        let mut problems = Vec::new();
        let mut targets = Vec::new();
        for target in &declared.targets {
            let mut text = |key: &str, value: &Value| -> Option<Text> {
                let known = match value.resolve(resolver) {
                    Ok(known) => text_of(known, value),
                    Err(error) => Err(explain(&error)),
                };
                known
                    .map_err(|why| {
                        problems.push(
                            Report::error(
                                "verify/unknown-value",
                                format!("gate `{}`: `{key}` is not known", declared.name),
                            )
                            .at(target.at.clone())
                            .because(why)
                            .fix("apply first: a gate can ask only what exists")
                            .exit(Exit::Usage),
                        );
                    })
                    .ok()
            };
            let url = text("url", &target.url);
            let expected = target
                .expect_body_contains
                .as_ref()
                .map(|value| text("expect_body_contains", value));
            let body = target.body.as_ref().map(|value| text("body", value));
            let headers: BTreeMap<String, Option<Text>> = target
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), text(&format!("headers.{name}"), value)))
                .collect();
            let Some(url) = url else { continue };
            targets.push(Target {
                label: label(&target.url, &url),
                url,
                expect_status: target.expect_status,
                expect_body_contains: expected.flatten(),
                method: target.method.clone(),
                headers: headers
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value?)))
                    .collect(),
                body: body.flatten(),
                tls_verify: target.tls_verify,
                consecutive: target.consecutive,
            });
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            name: declared.name.clone(),
            targets,
            timeout: declared.timeout,
            retry_interval: declared.retry_interval,
            max_retries: declared.max_retries,
            verbose: false,
        })
    }
}

/// What is wrong with a declared gate as far as its own words tell: before anything is made for it.
/// A value that only an apply makes known is not looked at.
pub fn foresee(declared: &config::Gate) -> Vec<Report> {
    /// Stands in for what is not known, and is right everywhere.
    const UNKNOWN: &str = "http://unknown.invalid/";
    let known = |value: &Value| text_of(value.clone(), value).ok();
    let mut problems = Vec::new();
    for target in &declared.targets {
        let url = known(&target.url);
        let checked = Target {
            label: match (&url, &target.url) {
                (Some(url), declared) => label(declared, url),
                (None, Value::Template(template)) if !has_credential_place(template) => {
                    template.to_string()
                }
                (None, _) => "(not known yet)".to_owned(),
            },
            url: url.unwrap_or_else(|| UNKNOWN.into()),
            expect_status: target.expect_status,
            expect_body_contains: target
                .expect_body_contains
                .as_ref()
                .map(|value| known(value).unwrap_or_else(|| UNKNOWN.into())),
            method: target.method.clone(),
            headers: target
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), known(value).unwrap_or_else(|| UNKNOWN.into())))
                .collect(),
            body: None,
            tls_verify: target.tls_verify,
            consecutive: target.consecutive,
        };
        let found = super::http::check(&checked);
        problems.extend(found.into_iter().map(|report| report.at(target.at.clone())));
    }
    problems
}

fn label(declared: &Value, known: &Text) -> String {
    match (declared, known) {
        // References read better than what they stand for, but user, password and query may be
        // written out beside them.
        (Value::Template(template), _) if !has_credential_place(template) => template.to_string(),
        (_, Text::Plain(url)) => Target::new(url).label,
        (_, Text::Secret(_)) => "(sensitive)".to_owned(),
    }
}

fn has_credential_place(template: &Template) -> bool {
    template.parts.iter().any(|part| match part {
        Part::Literal(text) => text.contains(['@', '?', '#']),
        Part::Secret(_) | Part::Declared(_) | Part::Unset(_) | Part::Reference(_) => false,
    })
}

fn text_of(known: Value, declared: &Value) -> Result<Text, String> {
    match known {
        Value::String(text) => Ok(Text::Plain(text)),
        Value::Secret(secret) => Ok(Text::Secret(secret)),
        Value::Number(number) => Ok(Text::Plain(number.to_string())),
        Value::Bool(flag) => Ok(Text::Plain(flag.to_string())),
        Value::Template(template) => Err(format!("`{template}` has no value yet")),
        Value::Unknown(reference) => Err(format!("`{reference}` has no value yet")),
        Value::Null | Value::List(_) | Value::Map(_) => Err(match declared {
            Value::Template(template) => format!("`{template}` is not a text"),
            _ => "it is not a text".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::report::Span;
    use crate::resource::{Address, Lookup, Reference};
    use crate::secret::Masker;

    /// Knows `web.live_url` (plain), `web.token` (secret), `web.port` (a number) and `web.list`;
    /// nothing about `new.*`; an error for the rest.
    struct Known(Masker);

    impl Resolver for Known {
        type Error = String;

        fn declared(&self, key: &str) -> Result<Lookup, String> {
            Err(format!("no secret `{key}`"))
        }

        fn reference(&self, reference: &Reference) -> Result<Lookup, String> {
            let value = match reference.to_string().as_str() {
                "${web.live_url}" => Value::String("http://127.0.0.1:1".to_owned()),
                "${web.token}" => Value::Secret(self.0.admit("token", "hunter2".to_owned())),
                "${web.port}" => Value::Number(8080.into()),
                "${web.list}" => Value::List(Vec::new()),
                text if text.starts_with("${new.") => return Ok(Lookup::Unknown),
                text => return Err(format!("no output `{text}`")),
            };
            Ok(Lookup::Known(value))
        }

        fn unset(&self, name: &str) -> String {
            format!("`{name}` is not set")
        }

        fn admit(&self, joined: String) -> Secret {
            self.0.admit("joined", joined)
        }
    }

    fn reference(module: &str, field: &str) -> Part {
        Part::Reference(Reference {
            address: Address::new(module),
            field: field.to_owned(),
        })
    }

    fn template(parts: Vec<Part>) -> Value {
        Value::Template(Template {
            parts,
            secret: false,
        })
    }

    fn literal(text: &str) -> Part {
        Part::Literal(text.to_owned())
    }

    fn declared(targets: Vec<config::Target>) -> config::Gate {
        config::Gate {
            name: "deploy/web".to_owned(),
            targets,
            timeout: Duration::from_secs(7),
            retry_interval: Duration::from_secs(2),
            max_retries: 5,
            at: span(1),
        }
    }

    fn span(line: u32) -> Span {
        Span {
            path: PathBuf::from("infra.yaml"),
            line,
            column: 1,
            width: 1,
            excerpt: String::new(),
        }
    }

    fn asking(url: Value) -> config::Target {
        config::Target {
            url,
            expect_status: 204,
            expect_body_contains: None,
            method: "POST".to_owned(),
            headers: BTreeMap::new(),
            body: None,
            tls_verify: false,
            consecutive: 3,
            at: span(9),
        }
    }

    fn resolve(gate: &config::Gate) -> Result<Gate, Vec<Report>> {
        Gate::resolve(gate, &Known(Masker::default()), Clone::clone)
    }

    #[test]
    fn every_setting_of_a_declared_gate_arrives() {
        let mut target = asking(template(vec![
            reference("web", "live_url"),
            literal("/healthz"),
        ]));
        target.expect_body_contains = Some(template(vec![reference("web", "port")]));
        target.body = Some(Value::String("ping".to_owned()));
        target.headers = [(
            "Authorization".to_owned(),
            template(vec![literal("Bearer "), reference("web", "token")]),
        )]
        .into();
        let gate = resolve(&declared(vec![target])).unwrap();
        assert_eq!(gate.name, "deploy/web");
        assert_eq!(gate.timeout, Duration::from_secs(7));
        assert_eq!(gate.retry_interval, Duration::from_secs(2));
        assert_eq!(gate.max_retries, 5);
        let target = &gate.targets[0];
        assert_eq!(target.label, "${web.live_url}/healthz");
        assert_eq!(target.url.expose(), "http://127.0.0.1:1/healthz");
        assert_eq!(target.expect_status, 204);
        assert_eq!(target.method, "POST");
        assert!(!target.tls_verify);
        assert_eq!(target.consecutive, 3);
        let texts = [&target.expect_body_contains, &target.body];
        let texts: Vec<_> = texts.map(|text| text.as_ref().unwrap().expose()).into();
        assert_eq!(texts, ["8080", "ping"]);
        let header = &target.headers["Authorization"];
        assert!(header.is_secret());
        assert_eq!(header.expose(), "Bearer hunter2");
        assert!(!format!("{gate:?}").contains("hunter2"));
    }

    #[test]
    fn a_label_never_holds_a_credential() {
        for (url, label) in [
            (
                Value::String("http://ann:pw@a.test/?token=x".to_owned()),
                "http://***@a.test/?token=***",
            ),
            (Value::String("not a url with pw".to_owned()), "(not a URL)"),
            (
                Value::Secret(Masker::default().admit("url", "http://a.test/s".to_owned())),
                "(sensitive)",
            ),
            (
                template(vec![
                    literal("http://a.test/?k="),
                    reference("web", "token"),
                ]),
                "(sensitive)",
            ),
            (
                template(vec![
                    literal("http://ann:pw@a.test:"),
                    reference("web", "port"),
                ]),
                "http://***@a.test:8080/",
            ),
            (
                template(vec![literal("http://a.test/"), reference("web", "token")]),
                "http://a.test/${web.token}",
            ),
        ] {
            assert_eq!(
                resolve(&declared(vec![asking(url)])).unwrap().targets[0].label,
                label
            );
        }
    }

    #[test]
    fn everything_unknown_is_reported_at_once_with_its_place() {
        let mut first = asking(template(vec![reference("new", "live_url")]));
        first.body = Some(template(vec![reference("gone", "x")]));
        let mut second = asking(Value::String("http://a.test".to_owned()));
        second.headers = [("X".to_owned(), template(vec![reference("web", "list")]))].into();
        let problems = resolve(&declared(vec![first, second])).unwrap_err();
        let texts: Vec<String> = problems
            .iter()
            .map(|problem| format!("{}: {}", problem.message, problem.because.join(", ")))
            .collect();
        assert_eq!(
            texts,
            [
                "gate `deploy/web`: `url` is not known: `${new.live_url}` has no value yet",
                "gate `deploy/web`: `body` is not known: no output `${gone.x}`",
                "gate `deploy/web`: `headers.X` is not known: `${web.list}` is not a text",
            ]
        );
        assert!(problems.iter().all(|problem| problem.at == Some(span(9))));
        assert!(problems.iter().all(|problem| problem.exit == Exit::Usage));
    }
}
