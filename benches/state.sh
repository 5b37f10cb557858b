#!/bin/bash
# State: a megabyte over the plugin contract, a write on PostgreSQL, lists of many. Starts what the
# benchmark needs (PostgreSQL of this machine, moto of `.ci/run`) and ends it again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=$(mktemp -d /tmp/bench-state.XXXXXX)
chmod 755 "$folder"
moto=
bin=$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1)
bin=${bin%/initdb}
as=()
if [ "$(id -u)" = 0 ]; then as=(runuser -u postgres --); fi

finish() {
    if [ -n "$moto" ]; then kill "$moto" 2>/dev/null || :; fi
    "${as[@]}" "$bin/pg_ctl" -D "$folder/pg/data" -m immediate stop >/dev/null 2>&1 || :
    rm -rf "$folder"
}
trap finish EXIT

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

mkdir "$folder/pg"
if [ "$(id -u)" = 0 ]; then chown postgres "$folder/pg"; fi
port=$(free_port)
# As a server is by default: what is acknowledged is on disk.
(cd / && "${as[@]}" "$bin/initdb" -D "$folder/pg/data" -U admin -A trust >/dev/null &&
    "${as[@]}" "$bin/pg_ctl" -w -s -D "$folder/pg/data" -l "$folder/pg/log" \
        -o "-k $folder/pg -h 127.0.0.1 -p $port" start)
export TIDEGATE_BENCH_POSTGRES="host=127.0.0.1 port=$port user=admin dbname=postgres sslmode=disable"

port=$(free_port)
.lab/aws/bin/moto_server -H 127.0.0.1 -p "$port" >/dev/null 2>&1 &
moto=$!
export TIDEGATE_BENCH_S3=http://127.0.0.1:$port
until curl -sf -X PUT "$TIDEGATE_BENCH_S3/bucket" >/dev/null; do sleep 0.2; done

# `PROFILE=fast` builds in half the time, for speed and not for size.
profile=${PROFILE:-release}
cargo build --profile "$profile" --quiet -p tidegate-plugin-cloud
export TIDEGATE_BENCH_CLOUD=$PWD/target/$profile/tidegate-plugin-cloud
cargo bench --profile "$profile" --bench state -- "$@"
