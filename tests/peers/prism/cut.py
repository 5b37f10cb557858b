"""Cuts GitHub's published OpenAPI document down to the paths Tidegate has to do with.

    npm --prefix .lab/spec install @octokit/openapi
    python3 tests/peers/prism/cut.py \
        .lab/spec/node_modules/@octokit/openapi/generated/api.github.com.json \
        tests/fixtures/github/openapi-subset.json

Keeps what the paths refer to and nothing else. Drops `null` examples: the document gives one for
201 answers whose schema wants an object, and a validating mock would answer 500 with it.
"""

import json
import re
import sys

KEEP = re.compile(
    r"^/(rate_limit"
    r"|repos/\{owner\}/\{repo\}/(actions/(secrets|variables)"
    r"|environments|deployments|check-runs|installation"
    r"|issues/(\{issue_number\}/)?comments)"
    r"|orgs/\{org\}/(actions/secrets|installation)"
    r"|app/installations)(/|$)"
)


def references(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def without_null_examples(node):
    if isinstance(node, dict):
        return {
            key: without_null_examples(value)
            for key, value in node.items()
            if not (key == "default" and isinstance(value, dict) and value.get("value", 0) is None)
        }
    if isinstance(node, list):
        return [without_null_examples(value) for value in node]
    return node


def main(source, target):
    with open(source, encoding="utf-8") as file:
        document = json.load(file)
    subset = {key: value for key, value in document.items() if key not in ("paths", "components", "webhooks", "x-webhooks", "tags")}
    subset["paths"] = {path: item for path, item in document["paths"].items() if KEEP.match(path)}
    components = {}
    waiting = list(references(subset["paths"]))
    while waiting:
        reference = waiting.pop()
        _, _, kind, name = reference.split("/", 3)
        name = name.replace("~1", "/").replace("~0", "~")
        if name in components.setdefault(kind, {}):
            continue
        components[kind][name] = document["components"][kind][name]
        waiting.extend(references(components[kind][name]))
    subset["components"] = {kind: dict(sorted(items.items())) for kind, items in sorted(components.items())}
    subset = without_null_examples(subset)
    with open(target, "w", encoding="utf-8") as file:
        json.dump(subset, file, ensure_ascii=False, separators=(",", ":"))
        file.write("\n")
    print(len(subset["paths"]), "paths")


main(*sys.argv[1:])
