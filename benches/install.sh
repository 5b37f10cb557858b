#!/bin/bash
# Installing 10 plugins of 20 MiB each from a server on loopback, beside fetching and hashing the
# same archives with curl and sha256sum (once one after the other, once all at once).
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need hyperfine python3 curl sha256sum tar
build
folder=$(mktemp -d)
finish() {
    if [ -n "${server:-}" ]; then kill "$server" 2>/dev/null || :; fi
    rm -rf "$folder"
}
trap finish EXIT
export XDG_CACHE_HOME=$folder/cache
unset RUNNER_TOOL_CACHE

platform=$(uname -m | sed -e 's/x86_64/amd64/' -e 's/aarch64/arm64/')
mkdir -p "$folder/www" "$folder/curl" "$folder/project"
for number in 0 1 2 3 4 5 6 7 8 9; do
    name=p$number
    mkdir "$folder/www/$name" "$folder/$name"
    printf '{"name":"%s","version":"1.0.0","author":"a","description":"d"}' "$name" >"$folder/$name/plugin.json"
    head -c $((20 << 20)) /dev/urandom >"$folder/$name/$name"
    chmod 755 "$folder/$name/$name"
    archive=${name}_linux_$platform.tar.gz
    tar --format=ustar -czf "$folder/www/$name/$archive" -C "$folder/$name" plugin.json "$name"
    (cd "$folder/www/$name" && sha256sum "$archive" >checksums.txt)
done

python3 - "$folder" >"$folder/server.log" 2>&1 <<'PYTHON' &
import functools, http.server, os, sys
root = sys.argv[1]
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=root + "/www")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
with open(root + "/port.new", "w") as port:
    port.write(str(server.server_address[1]))
os.rename(root + "/port.new", root + "/port")
server.serve_forever()
PYTHON
server=$!
for _ in $(seq 100); do
    [ -e "$folder/port" ] && break
    sleep 0.1
done
base=http://127.0.0.1:$(cat "$folder/port")

urls=()
{
    echo "version: 1"
    echo "plugins:"
    for number in 0 1 2 3 4 5 6 7 8 9; do
        name=p$number
        printf '  - {name: %s, version: 1.0.0, source: "%s/%s"}\n' "$name" "$base" "$name"
        urls+=("$base/$name/${name}_linux_$platform.tar.gz")
    done
} >"$folder/project/wfctl.yaml"
cat "$folder"/www/*/checksums.txt >"$folder/curl/sums"
(cd "$folder/project" && "$TIDEGATE" plugin lock --quiet)

cat >"$folder/ours" <<SCRIPT
cd "$folder/project" && exec "$TIDEGATE" plugin install --quiet
SCRIPT
cat >"$folder/theirs" <<SCRIPT
cd "$folder/curl" && curl -sS --remote-name-all ${urls[*]} && sha256sum --quiet -c sums
SCRIPT
cat >"$folder/parallel" <<SCRIPT
cd "$folder/curl" && curl -sS --parallel --remote-name-all ${urls[*]} && sha256sum --quiet -c sums
SCRIPT

export_file=$folder/figures.json
hyperfine --shell=none --warmup 1 --runs 10 --style none --export-json "$export_file" \
    --prepare "rm -rf $folder/cache $folder/project/data" "bash $folder/ours" \
    --prepare "sh -c 'rm -f $folder/curl/*.tar.gz'" "bash $folder/theirs" \
    --prepare "sh -c 'rm -f $folder/curl/*.tar.gz'" "bash $folder/parallel" >/dev/null
ours=$(mean "$export_file" 0)
theirs=$(mean "$export_file" 1)
parallel=$(mean "$export_file" 2)
row "\`plugin install\` of 10 × 20 MiB, unpacked and flushed" "$ours ms" "$(ratio "$ours" "$theirs") × \`curl\` + \`sha256sum\` ($theirs ms), $(ratio "$ours" "$parallel") × with \`curl --parallel\` ($parallel ms)" benches/install.sh
