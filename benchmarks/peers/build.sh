#!/usr/bin/env bash
# Build the virtual environments of the peer workers (make bench-peers).
#
# They go to ${FORETASTE_PEERS:-.peers}/{recbole,rectools}; a relative folder counts from the
# repository root. torch comes first and alone, so that the build pip finds for this machine
# stays. The rest is a closed list of exact versions, installed without dependencies: RecBole's
# own pins ask for ray, thop and plotly, which its trainer does not need.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cd "$here/../.."
target="${FORETASTE_PEERS:-.peers}"
python="${PYTHON:-python3}"

build() {
    local name="$1" probe="$2"
    local list="$here/$name.txt" env="$target/$name"
    "$python" -m venv "$env"
    "$env/bin/python" -m pip install --quiet "$(grep '^torch==' "$list")"
    "$env/bin/python" -m pip install --quiet --no-deps -r "$list"
    "$env/bin/python" -c "$probe"
    echo "$env: ready"
}

mkdir -p "$target"
build recbole "import pyarrow, recbole.config, recbole.data, recbole.trainer"
build rectools "import pyarrow, rectools.metrics, rectools.models; rectools.models.SASRecModel"
