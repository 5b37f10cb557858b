#!/bin/bash
# Peak memory of a plan of ten resources, beside the official gh doing nothing.
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need python3 /usr/bin/time "$GH"
build
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
{
    printf 'modules:\n  - name: here\n    type: iac.provider\n    config:\n      provider: local\n      root: %s/root\n' "$folder"
    for number in 1 2 3 4 5 6 7 8 9 10; do
        printf '  - name: store-%s\n    type: infra.storage\n    config:\n      provider: here\n' "$number"
    done
} >"$folder/infra.yaml"
if ! "$TIDEGATE" infra plan -c "$folder/infra.yaml" >/dev/null; then
    echo "the plan failed, so its memory says nothing" >&2
    exit 1
fi
ours=$(peak "$TIDEGATE" infra plan -c "$folder/infra.yaml")
theirs=$(peak "$GH" --version)
row "peak memory of a plan of ten resources" "$ours KiB" "$(ratio "$theirs" "$ours") × less than \`gh --version\` ($theirs KiB)" benches/memory.sh
