#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Generates the contract's code (`proto.sh`), or says whether the code in the tree is what it would generate (`--check`).
#
# The generator lives in an environment of its own, since it is old on purpose (requirements/proto.in), and outside the
# tree, since it only changes when its pins do.
set -eu
cd "$(dirname "$0")/../.."

pins=requirements/proto.txt
key=$(sha256sum "$pins" | cut -c1-16)
tools="${XDG_CACHE_HOME:-$HOME/.cache}/vcpuctl/proto-$key"
sources='vcpu_proto/v1/agent vcpu_proto/host/v1/host'

if [ ! -e "$tools/.ready" ]; then
    version=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ "$version" != 3.11 ]; then
        echo "proto: grpcio-tools 1.51.1 has builds for Python 3.11 at the newest, this is $version" >&2
        exit 1
    fi
    rm -rf "$tools"
    mkdir -p "$(dirname "$tools")"
    .venv/bin/python -m venv --without-pip "$tools"
    .venv/bin/uv pip install --quiet --python "$tools/bin/python" --require-hashes --requirement "$pins"
    touch "$tools/.ready"
fi

generate() {
    for source in $sources; do
        "$tools/bin/python" -W ignore -m grpc_tools.protoc --proto_path=proto/src \
            --python_out="$1" --pyi_out="$1" --grpc_python_out="$1" "$source.proto"
    done
}

if [ "${1:-}" = --check ]; then
    made=$(mktemp -d)
    trap 'rm -rf "$made"' EXIT
    generate "$made"
    for source in $sources; do
        for end in _pb2.py _pb2.pyi _pb2_grpc.py; do
            cmp -s "$made/$source$end" "proto/src/$source$end" ||
                { echo "proto: $source$end is not what the .proto gives now; run 'make proto'" >&2; exit 1; }
        done
    done
else
    generate proto/src
fi
