#!/bin/bash
# Size of the stripped release binary, beside the official gh; with cargo-bloat, what it is made of.
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need python3
build
bytes=$(wc -c <"$TIDEGATE")
beside="gh is not installed"
if [ -x "$GH" ]; then beside="$(ratio "$(wc -c <"$GH")" "$bytes") × smaller than gh"; fi
row "stripped release binary" "$(ratio "$bytes" 1048576) MiB ($bytes bytes)" "$beside" benches/size.sh
if cargo bloat --version >/dev/null 2>&1; then
    cargo bloat "${AS_RELEASED[@]}" --crates -n 15 --bin tidegate
else
    echo "cargo-bloat is not installed: no breakdown" >&2
fi
