#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Writes requirements/*.txt: exact versions with hashes, and no word of where they come from (docs/adr/0002).
# `exclude-newer` in pyproject.toml says how new an upload may be: move it on first.
set -eu
cd "$(dirname "$0")/../.."
uv=.venv/bin/uv
newest=$(sed -n 's/^exclude-newer = "\(.*\)"$/\1/p' pyproject.toml)
quietly="--no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet"

$uv lock --quiet --upgrade
# shellcheck disable=SC2086
$uv export --frozen --group dev --no-emit-workspace $quietly --output-file requirements/dev.txt

# The tests' tools are the same on the oldest versions; only what is supported is older there.
tools=$(mktemp)
trap 'rm -f "$tools"' EXIT
sed -n 's/^\([a-z][^ ]*==[^ ;]*\).*/\1/p' requirements/dev.txt |
    grep -vE '^(grpcio|protobuf|structlog|pyudev|rich|qemu-qmp|prometheus-client)=' >"$tools"

compile() {
    name=$1
    shift
    # shellcheck disable=SC2086
    $uv pip compile --generate-hashes --python-version 3.11 --exclude-newer "$newest" $quietly "$@" \
        "requirements/$name.in" --output-file "requirements/$name.txt"
}
compile uv --universal
compile ansible-newest --universal
compile ansible-oldest --universal
compile oldest --universal --constraint "$tools"
compile proto
compile vendor --no-deps
