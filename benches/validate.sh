#!/bin/bash
# `config validate` of 10,000 modules.
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need hyperfine python3
build
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
{
    printf 'modules:\n  - name: here\n    type: iac.provider\n    config:\n      provider: local\n      root: root\n'
    for number in $(seq 10000); do
        printf '  - name: store-%s\n    type: infra.storage\n    config:\n      provider: here\n' "$number"
    done
} >"$folder/infra.yaml"
hyperfine --shell=none --warmup 3 --runs 30 --style none --export-json "$folder/export.json" \
    "$TIDEGATE config validate -c $folder/infra.yaml" >/dev/null
row "\`config validate\` of 10,000 modules" "$(mean "$folder/export.json" 0) ms" "—" benches/validate.sh
