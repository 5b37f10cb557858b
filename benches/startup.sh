#!/bin/bash
# How long it takes to start: beside /bin/true, and beside the official gh, in one run.
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need hyperfine python3 "$GH"
build
export_file=$(mktemp)
trap 'rm -f "$export_file"' EXIT
hyperfine --shell=none --warmup 20 --runs 200 --style none --export-json "$export_file" \
    /bin/true "$TIDEGATE version" "$GH --version" >/dev/null
nothing=$(mean "$export_file" 0)
ours=$(mean "$export_file" 1)
theirs=$(mean "$export_file" 2)
row "start of \`tidegate version\`" "$ours ms" "$(ratio "$ours" "$nothing") × \`/bin/true\` ($nothing ms)" benches/startup.sh
row "the same, beside \`gh --version\`" "$theirs ms for gh" "$(ratio "$theirs" "$ours") × faster" benches/startup.sh
