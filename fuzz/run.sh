#!/bin/bash
# Fuzzes: `fuzz/run.sh SECONDS [TARGET…]`, each target that long, all of them when none is named. It
# starts from what the repository holds of a target's input. What it finds stays in
# `fuzz/artifacts/TARGET/`, and `fuzz/target/HOST/release/TARGET FILE` shows it again.
#
# Needs a C++ compiler (libFuzzer is one), and no other Rust than the pinned one: these are the flags
# by which `cargo fuzz` has the code watched, without its sanitizers, since none of ours is `unsafe`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:?how long, in seconds}
shift
targets=("$@")
if [ $# = 0 ]; then
    for file in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
host=$(rustc -vV | sed -n 's/^host: //p')
watched="--cfg fuzzing -Cdebug-assertions -Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    watched+=" -Cllvm-args=-sanitizer-coverage-$option"
done
# With a target named, only what runs in it is built with these flags, and no build script.
RUSTFLAGS=$watched cargo build --manifest-path fuzz/Cargo.toml --release --target "$host" \
    "${targets[@]/#/--bin=}"

# seed TARGET FILE…: copies them into the target's corpus.
seed() {
    local folder=fuzz/corpus/$1 file
    shift
    mkdir -p "$folder"
    for file in "$@"; do
        if [ -s "$file" ]; then cp "$file" "$folder/$(sha1sum "$file" | cut -c 1-40)"; fi
    done
}
shopt -s globstar nullglob
state=tests/it/state/fixtures
seed state_decode $state/**/*.json $state/**/*.jsonl $state/**/*.cbor
seed journal $state/**/*.jsonl
seed state_folder $state/**/*.json $state/**/*.jsonl
seed config examples/**/*.yaml
seed plugin_files examples/**/*.yaml examples/**/*.json

failed=()
for target in "${targets[@]}"; do
    seed "$target" fuzz/regressions/"$target"/*
    mkdir -p "fuzz/artifacts/$target"
    echo "=== $target"
    "fuzz/target/$host/release/$target" "fuzz/corpus/$target" -artifact_prefix="fuzz/artifacts/$target/" \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=3000 -max_len=16384 -print_final_stats=1 ||
        failed+=("$target")
done
if [ ${#failed[@]} != 0 ]; then
    echo "found something: ${failed[*]}" >&2
    exit 1
fi
