#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Prints the commit whose contract today's must stay compatible with: the last release's, or the first that has one.
set -eu
cd "$(dirname "$0")/../.."
tag=$(git tag --list 'v[0-9]*' --merged HEAD --sort=-v:refname | head -n 1)
if [ -n "$tag" ]; then
    git rev-parse "$tag^{commit}"
else
    git rev-list --reverse HEAD -- proto/src/vcpu_proto/v1/agent.proto | head -n 1
fi
