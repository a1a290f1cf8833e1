# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# What the findings share: a temp folder that goes away, pinned packages in it, and the last word. Sourced, not run.

# From here on: $work is the script's own folder below the system's place for temporary files.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The folder of the Python module qmp, which stands beside this file.
lib=$(CDPATH='' cd -- "$(dirname -- "$0")/lib" && pwd)

# run_python : runs the Python program on standard input, for three minutes at most.
run_python() {
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$lib:$work/pip" WORK="$work" timeout -k 5 180 python3 -
}

# pip_packages NAME==VERSION... : from the package index that pip is set up for, into $work/pip.
pip_packages() {
    timeout 300 python3 -m pip install -qq --root-user-action ignore --disable-pip-version-check --no-compile \
        --target "$work/pip" "$@"
}

# debian_root NAME SUITES PACKAGE=VERSION... : unpacks these packages and all they need into $work/NAME. Nothing of it is
# installed or configured: programs are run by the root's own loader. SUITES are Debian's (more than one with spaces
# between); they come from the archive that the host's own apt uses. The packages are the host's, or of $architecture.
debian_root() {
    root=$work/$1 suites=$2
    shift 2
    # shellcheck disable=SC2016
    archive=$(apt-get indextargets --format '$(CREATED_BY) $(ORIGIN) $(REPO_URI)' |
        awk '$1 == "Packages" && $2 == "Debian" { print $3; exit }')
    include=$(printf ',%s' "$@")
    # what the host's apt knows of proxies and of clocks that are not right, a line each
    apt-config dump | grep -E '^Acquire::(http|https|Check-|Retries).*[^"]";$' >"$work/apt.conf" || :
    first=${suites%% *}
    set --
    for suite in $suites; do
        set -- "$@" "deb $archive $suite main"
    done
    timeout 900 mmdebstrap --quiet --variant=extract --format=tar --include="${include#,}" \
        --architectures="${architecture:-$(dpkg --print-architecture)}" \
        --aptopt='APT::Install-Recommends "false"' --aptopt="$work/apt.conf" "$first" "$work/root.tar" "$@"
    mkdir "$root"
    tar -C "$root" --no-same-owner --exclude=./dev --exclude=./usr/share/doc --exclude=./var -xf "$work/root.tar"
    rm "$work/root.tar"
}

# libvirtd of Debian 12, with its QEMU, in $work/root.
libvirt_root() {
    debian_root root bookworm libvirt-daemon=9.0.0-4+deb12u2 libvirt-daemon-driver-qemu=9.0.0-4+deb12u2 \
        libvirt-clients=9.0.0-4+deb12u2 qemu-system-x86=1:7.2+dfsg-7+deb12u18+b3 dash coreutils
}

# The two QEMUs that most findings need: Debian 13's own, and the one of its backports.
qemu_10_0() {
    debian_root qemu-10.0 trixie qemu-system-x86=1:10.0.13+ds-0+deb13u1
}

qemu_11_1() {
    debian_root qemu-11.1 'trixie trixie-backports' qemu-system-x86=1:11.1.3+ds-1~bpo13+1 \
        qemu-system-common=1:11.1.3+ds-1~bpo13+1 qemu-system-data=1:11.1.3+ds-1~bpo13+1 seabios=1.17.0-1~bpo13+1
}
