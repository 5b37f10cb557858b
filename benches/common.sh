# Shared by the scripts beside it; sourced, never run.
# shellcheck shell=bash disable=SC2034 # the scripts use the variables

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

HOST=$(rustc -vV | sed -n 's/^host: //p')
TIDEGATE=$PWD/target/static/$HOST/release/tidegate
GH=$PWD/.lab/v/bin/gh
QUICKSTART=examples/quickstart/infra.yaml

need() {
    local tool
    for tool in "$@"; do
        if ! command -v "$tool" >/dev/null 2>&1; then
            echo "this needs $tool" >&2
            exit 2
        fi
    done
}

# The binary as it is released: stripped, one unit, and static. Releases are built for musl; the same
# flags link the C library of this machine in, so no further target has to be installed to measure.
AS_RELEASED=(--release --config .cargo/release.toml --target "$HOST" --target-dir target/static)
build() {
    # `PROFILE=fast` builds in half the time, for speed and not for size.
    if [ -n "${PROFILE:-}" ]; then
        cargo build --profile "$PROFILE" --locked --quiet --bin tidegate
        TIDEGATE=$PWD/target/$PROFILE/tidegate
        return
    fi
    cargo build "${AS_RELEASED[@]}" --locked --quiet --bin tidegate
}

# mean FILE N: mean time in milliseconds of the Nth command in a hyperfine JSON export.
mean() {
    python3 -c 'import json, sys
print("%.3f" % (json.load(open(sys.argv[1]))["results"][int(sys.argv[2])]["mean"] * 1000))' "$1" "$2"
}

# ratio A B: A divided by B, two decimals.
ratio() {
    python3 -c 'import sys
print("%.2f" % (float(sys.argv[1]) / float(sys.argv[2])))' "$1" "$2"
}

# peak COMMAND…: peak resident memory in KiB.
peak() {
    local file
    file=$(mktemp)
    /usr/bin/time -f %M -o "$file" "$@" >/dev/null 2>&1 </dev/null
    tail -n 1 "$file"
    rm -f "$file"
}

# row FIGURE VALUE RATIO COMMAND: one line for docs/benchmarks.md.
row() {
    printf "| %s | %s | %s | \`%s\` |\n" "$@"
}
