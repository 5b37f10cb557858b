#!/bin/bash -p
# Finds the Tidegate binary and becomes it.
#
# Started by action.yml as `bash -p`: functions, options and start-up files from the environment
# are not taken over. The inputs that say what to do (TIDEGATE_INPUT_*) are not looked at here;
# the binary reads them. Everything fetched is compared with action/checksums.txt, which is part of
# the action's own commit, and what is run is a private copy that nobody else can change after the
# comparison.
#
# Where the binary comes from, in this order:
#   1. the input `binary`
#   2. the input `version: source`: a build of the action's own checkout
#   3. action/vendor/, for a fork that carries the binaries it wants
#   4. the runner's tool cache
#   5. the release this commit of the action belongs to

set -eu
unset POSIXLY_CORRECT BASH_ENV ENV CDPATH
export -n SHELLOPTS BASHOPTS
if [ -z "${LD_PRELOAD-}" ]; then unset LD_PRELOAD; fi
if [ -z "${LD_AUDIT-}" ]; then unset LD_AUDIT; fi

here=$GITHUB_ACTION_PATH
checksums=$here/action/checksums.txt
path_of_the_job=$PATH
child=

# An annotation, then the end. Percent and line ends are escaped as the runner wants it.
fail() {
    local text=$1 percent=%
    text=${text//$percent/%25}
    text=${text//$'\r'/%0D}
    text=${text//$'\n'/%0A}
    printf '::error title=Tidegate::%s\n' "$text"
    # Later steps decide by these, as after a run.
    if [ -n "${GITHUB_OUTPUT-}" ]; then
        printf 'changed=false\nfailed=true\n' >>"$GITHUB_OUTPUT" || :
    fi
    exit "${2:-1}"
}

# A shell waiting for a foreground child hears a signal only after the child has ended, so whatever
# may take long runs beside us.
patiently() {
    "$@" &
    child=$!
    local code=0
    wait "$child" || code=$?
    child=
    return "$code"
}

stopped() {
    if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null || :; fi
    exit 130
}

# Exported functions are not imported by `bash -p`, but a shell started later would run them.
refuse_exported_functions() {
    local names
    names=$(env | LC_ALL=C sed -n 's/^BASH_FUNC_\([A-Za-z0-9_.:-]*\)\(%%\|()\)=() {.*/\1/p')
    if [ -n "$names" ]; then
        fail "exported shell functions are in the environment ($names); remove what exports them (an earlier step, or the runner's own start-up) and run again"
    fi
}

platform() {
    case "${RUNNER_OS-}/${RUNNER_ARCH-}" in
        Linux/X64) echo linux-x64 ;;
        Linux/ARM64) echo linux-arm64 ;;
        macOS/X64) echo macos-x64 ;;
        macOS/ARM64) echo macos-arm64 ;;
        *) return 1 ;;
    esac
}

sha256_of() {
    if command -v sha256sum >/dev/null; then
        sha256sum <"$1" | cut -d ' ' -f 1
    else
        shasum -a 256 <"$1" | cut -d ' ' -f 1
    fi
}

# The version named last in the list, empty when it names none.
latest_listed() {
    sed -n 's/^[0-9a-f]\{64\}  tidegate-\([0-9][0-9A-Za-z.+-]*\)-[a-z]*-[a-z0-9]*$/\1/p' "$checksums" | tail -n 1
}

# The digest listed for a file name, empty when there is none.
listed_digest() {
    awk -v name="$1" '$2 == name && $1 ~ /^[0-9a-f]+$/ && length($1) == 64 { print $1 }' "$checksums" | tail -n 1
}

# Copies $1 to $private and says whether the copy is what the list promises.
take() {
    cp -- "$1" "$private" && [ "$(sha256_of "$private")" = "$digest" ]
}

download() {
    patiently curl --proto '=https' --proto-redir '=https' --tlsv1.2 --fail --silent --show-error \
        --location --max-redirs 5 --connect-timeout 15 --max-time 300 --max-filesize 67108864 \
        --retry 3 --retry-delay 2 --retry-max-time 120 --output "$1" -- "$2"
}

# Puts the verified $private where later jobs on this runner find it, as $2 in the folder $1. Not
# being able to is no failure.
remember() {
    local folder=$1 file=$2 half
    mkdir -p -- "$folder" 2>/dev/null || return 0
    half=$(mktemp "$folder/.tidegate.XXXXXX" 2>/dev/null) || return 0
    if cp -- "$private" "$half" && chmod 755 "$half" && mv -f -- "$half" "$folder/$file"; then
        : >"$folder.complete" || :
    else
        rm -f -- "$half"
    fi
}

given() {
    case "$TIDEGATE_ACTION_BINARY" in
        /*) binary=$TIDEGATE_ACTION_BINARY ;;
        *) binary=$PWD/$TIDEGATE_ACTION_BINARY ;;
    esac
    if [ ! -f "$binary" ] || [ ! -x "$binary" ]; then
        fail "the input 'binary' names $binary, which is not an executable file on this runner" 2
    fi
}

built() {
    if [ ! -f "$here/Cargo.toml" ]; then
        fail "'version: source' needs the source beside action.yml, and $here has no Cargo.toml" 2
    fi
    if ! PATH=$path_of_the_job command -v cargo >/dev/null; then
        fail "'version: source' needs cargo on the runner; install Rust in an earlier step" 2
    fi
    local target=${CARGO_TARGET_DIR:-$here/target}
    echo "Building Tidegate from $here"
    # With the plugin that keeps state in object stores: the binary looks for it beside itself.
    PATH=$path_of_the_job CARGO_TARGET_DIR=$target \
        patiently cargo build --release --locked --manifest-path "$here/Cargo.toml" --workspace \
        --bin tidegate --bin tidegate-plugin-cloud ||
        fail 'building Tidegate from source failed; the log above has the reason'
    case "$target" in
        /*) binary=$target/release/tidegate ;;
        *) binary=$PWD/$target/release/tidegate ;;
    esac
}

# Makes $own/$2 a verified copy of the released file $1 of version $3.
obtain() {
    local name=$1 file=$2 version=$3 repository
    private=$own/$file
    digest=$(listed_digest "$name")
    if [ -f "$here/action/vendor/$name" ]; then
        take "$here/action/vendor/$name" ||
            fail "action/vendor/$name is not what action/checksums.txt promises"
    elif [ -n "$cached" ] && [ -f "$cached/$file" ] && take "$cached/$file"; then
        :
    else
        repository=${TIDEGATE_ACTION_REPOSITORY-}
        if [ -z "$repository" ]; then
            fail "the action runs from a local folder, so it has no releases to fetch from; pass 'binary' or use 'version: source'" 2
        fi
        command -v curl >/dev/null || fail 'curl is needed to fetch Tidegate and is not on this runner' 2
        download "$private" "$GITHUB_SERVER_URL/$repository/releases/download/v$version/$name" ||
            fail "fetching $name from the releases of $repository failed; the log above has the reason"
        if [ "$(sha256_of "$private")" != "$digest" ]; then
            rm -f -- "$private"
            fail "$name, as fetched, is not what action/checksums.txt promises; it was not run"
        fi
        if [ -n "$cached" ]; then remember "$cached" "$file"; fi
    fi
    chmod 700 "$private"
}

released() {
    local version suffix
    platform >/dev/null ||
        fail "there is no released binary for ${RUNNER_OS-an unknown system} on ${RUNNER_ARCH-an unknown processor}; pass 'binary' or use 'version: source'" 2
    version=${TIDEGATE_ACTION_VERSION-}
    version=${version#v}
    if [ -z "$version" ]; then version=$(latest_listed); fi
    if [ -z "$version" ]; then
        fail "this commit of the action lists no released binary; pin a commit that belongs to a release, pass 'binary', or use 'version: source' to build it here" 2
    fi
    suffix=$version-$(platform)
    if [ -z "$(listed_digest "tidegate-$suffix")" ]; then
        fail "this commit of the action has no checksum for tidegate-$suffix; pin the commit that belongs to that version, pass 'binary', or use 'version: source'" 2
    fi

    own=$(mktemp -d "${RUNNER_TEMP:-/tmp}/tidegate.XXXXXX")
    binary=$own/tidegate
    cached=
    if [ -n "${RUNNER_TOOL_CACHE-}" ]; then
        cached=$RUNNER_TOOL_CACHE/tidegate/$version/$(platform | cut -d - -f 2)
    fi
    obtain "tidegate-$suffix" tidegate "$version"
    # Keeps state in object stores; the binary looks for it beside itself.
    if [ -n "$(listed_digest "tidegate-plugin-cloud-$suffix")" ]; then
        obtain "tidegate-plugin-cloud-$suffix" tidegate-plugin-cloud "$version"
    fi
}

trap stopped INT TERM
# The system's own tools first: an earlier step may have put others in front through GITHUB_PATH.
PATH=/usr/bin:/bin:/usr/sbin:/sbin:$PATH
refuse_exported_functions
if [ -n "${TIDEGATE_ACTION_BINARY-}" ]; then
    given
elif [ "${TIDEGATE_ACTION_VERSION-}" = source ]; then
    built
else
    released
fi
unset TIDEGATE_ACTION_BINARY TIDEGATE_ACTION_VERSION TIDEGATE_ACTION_REPOSITORY
PATH=$path_of_the_job
trap - INT TERM
exec "$binary" action
