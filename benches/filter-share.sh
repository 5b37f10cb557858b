#!/bin/bash
# What part of a whole run the output filter takes: samples of forty second `up`s of the quickstart.
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need perf python3
export CARGO_PROFILE_RELEASE_STRIP=none
build
samples=$(mktemp)
finish() {
    "$TIDEGATE" infra destroy -c "$QUICKSTART" --env dev --yes >/dev/null 2>&1 || :
    rm -f "$samples"
}
trap finish EXIT
"$TIDEGATE" up -c "$QUICKSTART" --env dev >/dev/null 2>&1
export TIDEGATE QUICKSTART
# shellcheck disable=SC2016 # for the inner shell
perf record --quiet -F 20000 -o "$samples" -- bash -c \
    'for _ in $(seq 40); do "$TIDEGATE" up -c "$QUICKSTART" --env dev >/dev/null 2>&1; done'
share=$(perf report -i "$samples" --comm tidegate --no-children -g none 2>/dev/null | python3 -c 'import re, sys
ours = total = 0.0
for line in sys.stdin:
    found = re.match(r"\s*([\d.]+)%\s", line)
    if found:
        total += float(found[1])
        if re.search(r"secret::mask|tidegate_matcher", line):
            ours += float(found[1])
print("%.2f" % (100 * ours / total))')
row "the output filter in a second \`up\` of the quickstart" "$share %" "-" benches/filter-share.sh
