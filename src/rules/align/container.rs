//! A service says what to run, and always the same thing.

use super::super::{Findings, Item, Rule, Subject, is_blank, items};

pub(super) const RULE: Rule = Rule {
    id: "R-A1",
    name: "container",
    check,
};

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for item in &subject.items {
        if !item.is("infra.container_service") {
            continue;
        }
        let runs = [
            "image",
            "command",
            "run_command",
            "build_command",
            "dockerfile_path",
            "source_dir",
        ];
        if runs.iter().all(|key| is_blank(item.config.get(*key))) {
            out.fail(
                item,
                format!("`{}` says nothing to run", item.address),
                "name an `image`, or a `command` where the provider runs programs",
            );
        }
        image(item, "image", item.config.get("image"), out);
        for list in ["jobs", "workers", "sidecars"] {
            for (at, part) in items(item.config.get(list)).iter().enumerate() {
                image(item, &format!("{list}[{at}].image"), part.get("image"), out);
            }
        }
    }
}

fn image(item: &Item, path: &str, image: Option<&serde_json::Value>, out: &mut Findings<'_>) {
    let Some(image) = image.and_then(|image| image.as_str()) else {
        return;
    };
    // A registry may have a port, so only what follows the last slash can be a tag.
    let last = image.rsplit('/').next().unwrap_or_default();
    let is_moving = !image.contains('@')
        && match last.split_once(':') {
            None => !image.is_empty(),
            Some((_, tag)) => tag == "latest" || tag.is_empty(),
        };
    if is_moving {
        out.warn(
            item,
            format!(
                "`{}`: `{path}` has no fixed tag: two applies may run different things",
                item.address
            ),
            "name a tag that does not move, or a digest",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Severity::{Fail, Warn};
    use super::super::super::testing::{expect, module, subject};
    use super::*;

    #[test]
    fn images_are_named_and_fixed() {
        let check = |config: &str, expected: &[(super::super::super::Severity, &str)]| {
            let subject = subject(&module("web", "infra.container_service", config));
            expect(RULE, &subject, expected);
        };
        check("image: \"registry:5000/web:1.2\"", &[]);
        check("image: \"web@sha256:abc\"", &[]);
        check("http_port: 80", &[(Fail, "nothing to run")]);
        check("image: \"registry:5000/web\"", &[(Warn, "`image`")]);
        check(
            "image: \"web:1\", jobs: [{name: a, image: \"job:latest\"}]",
            &[(Warn, "`jobs[0].image`")],
        );
    }
}
