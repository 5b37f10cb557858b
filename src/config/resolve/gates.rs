//! `deploy_verify` steps -> gates.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Resolver;
use super::values::{KeyPath, Place};
use crate::config::decode::{Lasting, Marked, Table, Text, printable};
use crate::config::keys::Rules;
use crate::config::resolved::{Gate, Target};
use crate::config::schema::{GATE_STEPS, GateShape, GateStep, Method, Step, TargetShape};
use crate::config::source::Mark;
use crate::config::yaml::NodeKind;
use crate::report::Report;
use crate::resource::{Part, Value};

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5 * 60);
const RETRY_INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
const MAX_RETRIES_DEFAULT: u32 = 30;
const STATUS_DEFAULT: u16 = 200;
/// Nobody waits longer than a day.
pub(in crate::config) const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Headers that belong to the connection; setting them would tear the request.
pub const CONNECTION_HEADERS: [&str; 5] = [
    "connection",
    "content-length",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// A type that nobody would write who means another step: a gate that is not one keeps nothing shut.
fn is_misspelt_gate(kind: &str) -> bool {
    const SLIPS_MAX: usize = 2;
    let fold = |text: &str| -> String {
        text.chars()
            .filter(|character| character.is_alphanumeric())
            .flat_map(char::to_lowercase)
            .collect()
    };
    let kind = fold(kind.trim());
    GATE_STEPS
        .iter()
        .any(|step| strsim::damerau_levenshtein(&fold(step), &kind) <= SLIPS_MAX)
        || ["stepverify", "verifydeploy", "stepverifydeploy"].contains(&kind.as_str())
}

impl Resolver<'_> {
    /// The gates of all pipelines, in file order.
    pub(super) fn gates(&mut self, rules: Option<Rules<'_>>) -> Vec<Gate> {
        let merged = self.merged;
        let mut gates = Vec::new();
        let mut ignored: Vec<&str> = Vec::new();
        for (name, pipeline) in &merged.pipelines {
            let mut steps: BTreeMap<&str, Mark> = BTreeMap::new();
            for step in pipeline.steps.as_deref().unwrap_or(&[]) {
                match step {
                    Step::Gate(step) => {
                        if let Some(step_name) = &step.name {
                            self.check_step_name(step_name, &mut steps);
                        }
                        let before = self.problems.count();
                        let gate = self.gate(name, step);
                        // Of a gate that is wrong by its own words, nobody else is asked.
                        if let (Some(rules), Some(gate)) = (rules, &gate)
                            && self.problems.count() == before
                        {
                            for report in (rules.gate)(gate) {
                                self.problems.placed(report);
                            }
                        }
                        gates.extend(gate);
                    }
                    Step::Other(kind, at) if is_misspelt_gate(kind) => {
                        self.problems.error(
                            *at,
                            Report::error(
                                "config/bad-value",
                                format!("there is no step type `{}`", printable(kind)),
                            )
                            .label(format!("did you mean `{}`?", GATE_STEPS[0]))
                            .fix(format!("write `{}`", GATE_STEPS[0])),
                        );
                    }
                    Step::Other(kind, at) => {
                        if !ignored.contains(&kind.as_str()) {
                            ignored.push(kind);
                            self.problems.warning(
                                *at,
                                Report::warning(
                                    "config/ignored-step",
                                    if kind.is_empty() {
                                        "Tidegate does not act on a step without `type`".to_owned()
                                    } else {
                                        format!(
                                            "Tidegate does not act on steps of type `{}`",
                                            printable(kind)
                                        )
                                    },
                                ),
                            );
                        }
                    }
                }
            }
        }
        gates
    }

    fn check_step_name<'s>(&mut self, name: &'s Text, steps: &mut BTreeMap<&'s str, Mark>) {
        if let Some(first) = steps.get(name.as_str()) {
            let first = self.problems.span(*first);
            self.problems.error(
                name.at,
                Report::error(
                    "config/duplicate-name",
                    format!("the step `{}` stands here twice", printable(&name.value)),
                )
                .because(format!("it is first at {first}"))
                .fix("rename one of the two"),
            );
        } else {
            steps.insert(name.as_str(), name.at);
        }
        if name.value.trim().is_empty() || name.value.chars().any(char::is_control) {
            self.problems.error(
                name.at,
                Report::error(
                    "config/bad-name",
                    "a step's name is empty or holds a control character",
                ),
            );
        }
    }

    fn gate(&mut self, pipeline: &Text, step: &GateStep) -> Option<Gate> {
        let shape = step.config.as_ref()?;
        let step_name = step.name.as_ref().map_or("", |name| name.value.as_str());
        let root = KeyPath::root("pipelines");
        let path = root.key(&pipeline.value);
        let path = path.key(step_name);
        let timeout = self.duration(shape.timeout.as_ref(), "timeout", TIMEOUT_DEFAULT);
        let retry_interval = self.duration(
            shape.retry_interval.as_ref(),
            "retry_interval",
            RETRY_INTERVAL_DEFAULT,
        );
        let targets = self.targets(shape, &path);
        let name = step.name.as_ref()?;
        Some(Gate {
            name: format!("{}/{}", pipeline.value, name.value),
            targets,
            timeout,
            retry_interval,
            max_retries: shape
                .max_retries
                .as_ref()
                .map_or(MAX_RETRIES_DEFAULT, |count| count.value),
            at: self.problems.span(name.at),
        })
    }

    fn targets(&mut self, shape: &GateShape, path: &KeyPath<'_>) -> Vec<Target> {
        let single = single_target(shape);
        match (&shape.targets, single) {
            (Some(targets), None) if !targets.is_empty() => targets
                .iter()
                .filter_map(|target| self.target(target, shape, &path.key("targets")))
                .collect(),
            (None, Some(target)) if target.url.is_some() => {
                self.target(&target, shape, path).into_iter().collect()
            }
            (Some(_), Some(target)) => {
                self.problems.error(
                    first_mark(&target),
                    Report::error(
                        "config/misplaced-key",
                        "a target is written in `targets:` or right here, not both",
                    )
                    .fix("move this into the list under `targets:`"),
                );
                Vec::new()
            }
            _ => {
                self.problems.error(
                    shape.at,
                    Report::error(
                        "config/missing-key",
                        "a `deploy_verify` step needs at least one target",
                    )
                    .fix("add `url:`, or a list of `targets:`"),
                );
                Vec::new()
            }
        }
    }

    fn target(
        &mut self,
        shape: &TargetShape,
        gate: &GateShape,
        path: &KeyPath<'_>,
    ) -> Option<Target> {
        let method = shape
            .method
            .as_ref()
            .map_or(Method::Get, |method| method.value);
        let status = self.status(shape.expect_status.as_ref());
        let consecutive = shape.consecutive.as_ref().or(gate.consecutive.as_ref());
        if let Some(count) = consecutive
            && count.value == 0
        {
            self.problems.error(
                count.at,
                Report::error("config/bad-value", "`consecutive` must be 1 or more"),
            );
        }
        let headers = shape
            .headers
            .as_ref()
            .map(|headers| self.headers(headers, path))
            .unwrap_or_default();
        let body = self.gate_text(shape.body.as_ref(), path, "body");
        let contains = self.gate_text(
            shape.expect_body_contains.as_ref(),
            path,
            "expect_body_contains",
        );
        if let (Some(text), Some(value)) = (&shape.expect_body_contains, &contains) {
            self.check_expected(text.at, value, method);
        }
        let url = shape.url.as_ref()?;
        let before = self.problems.count();
        let value = self.text_value(&url.value, url.at, &path.key("url"), Place::RESOURCE);
        if self.problems.count() == before {
            // Of an address with a part that is wrong by itself, the rest says nothing.
            self.check_url(&value, url.at);
        }
        Some(Target {
            url: value,
            expect_status: status,
            expect_body_contains: contains,
            method: method.word().to_owned(),
            headers,
            body,
            tls_verify: shape.tls_verify.as_ref().is_none_or(|flag| flag.value),
            consecutive: consecutive.map_or(1, |count| count.value.max(1)),
            at: self.problems.span(url.at),
        })
    }

    /// What no answer can fail to hold, and what no answer can hold, is no expectation.
    fn check_expected(&mut self, at: Mark, value: &Value, method: Method) {
        if matches!(value, Value::String(text) if text.is_empty()) {
            self.problems.error(
                at,
                Report::error(
                    "config/bad-value",
                    "`expect_body_contains` is empty, and every body contains that",
                )
                .fix("name the text, or leave `expect_body_contains` out"),
            );
        }
        if method == Method::Head {
            self.problems.error(
                at,
                Report::error(
                    "config/bad-value",
                    "the answer to HEAD has no body that could contain this text",
                )
                .fix("use GET, or leave `expect_body_contains` out"),
            );
        }
    }

    fn gate_text(&mut self, text: Option<&Text>, path: &KeyPath<'_>, key: &str) -> Option<Value> {
        let text = text?;
        Some(self.text_value(&text.value, text.at, &path.key(key), Place::RESOURCE))
    }

    fn headers(&mut self, headers: &Table<Text>, path: &KeyPath<'_>) -> BTreeMap<String, Value> {
        let path = path.key("headers");
        let mut resolved = BTreeMap::new();
        for (name, text) in headers.iter() {
            let own = CONNECTION_HEADERS
                .iter()
                .any(|own| own.eq_ignore_ascii_case(&name.value));
            if own || !is_header_name(&name.value) {
                let shown = printable(&name.value);
                let report = if own {
                    Report::error(
                        "config/bad-name",
                        format!("the header `{shown}` belongs to the connection"),
                    )
                    .fix("leave it out: Tidegate sets it")
                } else {
                    Report::error(
                        "config/bad-name",
                        format!("`{shown}` cannot be a header's name"),
                    )
                };
                self.problems.error(name.at, report);
                continue;
            }
            let value = self.text_value(
                &text.value,
                text.at,
                &path.key(&name.value),
                Place::RESOURCE.under(&name.value),
            );
            if text.value.contains(['\n', '\r', '\0']) {
                self.problems.error(
                    text.at,
                    Report::error("config/bad-value", "a header is one line"),
                );
                continue;
            }
            resolved.insert(name.value.clone(), value);
        }
        resolved
    }

    fn status(&mut self, given: Option<&Marked<u32>>) -> u16 {
        let Some(given) = given else {
            return STATUS_DEFAULT;
        };
        match u16::try_from(given.value) {
            // What comes before 200 is no end of an answer.
            Ok(status) if (200..=599).contains(&status) => status,
            _ => {
                self.problems.error(
                    given.at,
                    Report::error(
                        "config/bad-value",
                        "`expect_status` must be the status of an answer, from 200 to 599",
                    ),
                );
                STATUS_DEFAULT
            }
        }
    }

    /// Checks as much of an address as is known.
    fn check_url(&mut self, value: &Value, at: Mark) {
        let start = match value {
            Value::String(text) => text.as_str(),
            Value::Template(template) => match template.parts.first() {
                Some(Part::Literal(text)) => text.as_str(),
                _ => return,
            },
            _ => return,
        };
        let whole = matches!(value, Value::String(_));
        let rest = start
            .strip_prefix("http://")
            .or_else(|| start.strip_prefix("https://"));
        let fits = rest.is_some_and(|rest| !whole || !rest.is_empty())
            || (!whole && ("https://".starts_with(start) || "http://".starts_with(start)));
        if !fits
            || start
                .chars()
                .any(|character| character.is_control() || character == ' ')
        {
            self.problems.error(
                at,
                Report::error("config/bad-value", "this is no web address")
                    .fix("start it with `https://` or `http://`"),
            );
        }
    }

    fn duration(&mut self, given: Option<&Lasting>, key: &str, default: Duration) -> Duration {
        let Some(Lasting(node)) = given else {
            return default;
        };
        let parsed = match &node.kind {
            NodeKind::Text(text) => parse_duration(text),
            NodeKind::Number(number) => number
                .as_f64()
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            _ => None,
        };
        match parsed {
            Some(duration) if !duration.is_zero() && duration <= DURATION_MAX => duration,
            _ => {
                self.problems.error(
                    node.at,
                    Report::error(
                        "config/bad-value",
                        format!("`{key}` is no duration between 1ns and 24h"),
                    )
                    .fix("write it like 250ms, 10s, 5m or 1h30m; a number means seconds"),
                );
                default
            }
        }
    }
}

/// The target written right in the step, if any of its keys is there.
fn single_target(shape: &GateShape) -> Option<TargetShape> {
    let target = TargetShape {
        url: shape.url.clone(),
        expect_status: shape.expect_status.clone(),
        expect_body_contains: shape.expect_body_contains.clone(),
        method: shape.method.clone(),
        headers: shape.headers.clone(),
        body: shape.body.clone(),
        tls_verify: shape.tls_verify.clone(),
        consecutive: None,
        at: shape.at,
    };
    let is_empty = target.url.is_none()
        && target.expect_status.is_none()
        && target.expect_body_contains.is_none()
        && target.method.is_none()
        && target.headers.is_none()
        && target.body.is_none()
        && target.tls_verify.is_none();
    (!is_empty).then_some(target)
}

fn first_mark(target: &TargetShape) -> Mark {
    [
        target.url.as_ref().map(|text| text.at),
        target.expect_status.as_ref().map(|number| number.at),
        target.expect_body_contains.as_ref().map(|text| text.at),
        target.method.as_ref().map(|method| method.at),
        target.body.as_ref().map(|text| text.at),
        target.tls_verify.as_ref().map(|flag| flag.at),
        target
            .headers
            .as_ref()
            .and_then(|headers| headers.0.first())
            .map(|(name, _)| name.at),
    ]
    .into_iter()
    .flatten()
    .min()
    .unwrap_or(target.at)
}

/// A token as HTTP defines it.
fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// `1h30m`, `250ms`: whole or decimal numbers, each with its unit.
pub(in crate::config) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits =
            rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let (number, after) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let end = after
            .find(|character: char| !character.is_ascii_alphabetic() && character != 'µ')
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = next;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::parse_duration;
    use std::time::Duration;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("5m", Some(300_000)),
            ("10s", Some(10_000)),
            ("250ms", Some(250)),
            ("1h30m", Some(5_400_000)),
            ("1.5s", Some(1_500)),
            ("0s", Some(0)),
            ("10", None),
            ("", None),
            ("5 m", None),
            ("m", None),
            ("5d", None),
            ("-5s", None),
            ("1e3s", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(
                parse_duration(text),
                expected.map(Duration::from_millis),
                "{text}"
            );
        }
    }
}
