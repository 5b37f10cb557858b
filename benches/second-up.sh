#!/bin/bash
# A second `up` of the quickstart: no changes, gate included. Takes the quickstart down afterwards.
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need hyperfine python3
build
export_file=$(mktemp)
finish() {
    "$TIDEGATE" infra destroy -c "$QUICKSTART" --env dev --yes >/dev/null 2>&1 || :
    rm -f "$export_file"
}
trap finish EXIT
"$TIDEGATE" up -c "$QUICKSTART" --env dev >/dev/null 2>&1
hyperfine --shell=none --warmup 3 --runs 30 --style none --export-json "$export_file" \
    "$TIDEGATE up -c $QUICKSTART --env dev" >/dev/null
row "second \`up\` of the quickstart" "$(mean "$export_file" 0) ms" "—" benches/second-up.sh
