#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Sets up a checkout: `setup.sh packages` (Debian's), `setup.sh venv DIR PINS` (Python's, pinned by hash).
#
# It needs no more than what an empty Debian 12 with git, python3 and make has, and root or sudo for the packages.
# Nothing here names a package index: pip and uv use the one that the machine is configured for (docs/adr/0002).
set -eu
cd "$(dirname "$0")/../.."

# What building the packages and checking them takes. What the lab needs, it says itself.
build_packages="python3-venv dpkg-dev fakeroot debhelper dh-python pybuild-plugin-pyproject python3-all
    python3-hatchling python3-installer lintian systemd man-db"

say() { printf 'setup: %s\n' "$*"; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo --preserve-env=DEBIAN_FRONTEND "$@"
    else
        say "these packages are missing and neither root nor sudo is at hand: $missing" >&2
        exit 1
    fi
}

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

packages() {
    if ! command -v apt-get >/dev/null; then
        say "this is not a Debian: install by hand what $0 and 'python3 -m kit.lab packages' name" >&2
        exit 1
    fi
    wanted="$build_packages"
    if [ -f tests/kit/lab/__main__.py ]; then
        wanted="$wanted $(PYTHONPATH=tests PYTHONDONTWRITEBYTECODE=1 python3 -m kit.lab packages)"
    fi
    missing=""
    for name in $wanted; do
        installed "$name" || missing="$missing $name"
    done
    [ -n "$missing" ] || return 0
    say "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    options="-o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0"
    # shellcheck disable=SC2086
    {
        as_root apt-get -qq $options update >/dev/null
        as_root apt-get -qq $options install -y --no-install-recommends $missing >build/setup/apt.log 2>&1 ||
            { tail -n 20 build/setup/apt.log >&2; exit 1; }
    }
}

venv() {
    dir=$1 pins=$2
    python="$dir/bin/python"
    say "$dir from $pins"
    [ -x "$python" ] || python3 -m venv "$dir"
    pip="$python -m pip --disable-pip-version-check --quiet"
    [ -x "$dir/bin/uv" ] || $pip install --require-hashes --requirement requirements/uv.txt
    "$dir/bin/uv" pip install --quiet --python "$python" --require-hashes --requirement "$pins"
    "$dir/bin/uv" pip install --quiet --python "$python" --no-deps --no-build-isolation \
        --editable proto --editable host --editable guest
}

mkdir -p build/setup
# Two makes at once would trip over each other's half-made environment.
exec 9>build/setup/lock
flock 9
case ${1:-} in
    packages) packages ;;
    venv) venv "$2" "$3" ;;
    *) say "usage: $0 packages | venv DIR PINS" >&2; exit 2 ;;
esac
