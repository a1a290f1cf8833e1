#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# libvirt: `virsh setvcpus DOMAIN N --live --config` plugs vCPUs into the running domain and keeps them for its next
# start. The running domain's XML calls them hotpluggable, and so they are. An expert expects to get the same vCPUs next
# time: that is what --config is for.
#
# What happens: the definition gets a higher count (<vcpu current='3'>), and no list of vCPUs. After the next start the
# domain's XML has no list either, and libvirt refuses to take any of them out for as long as the domain runs. With
# `virsh setvcpu DOMAIN ID --enable --live --config`, one by one, the definition gets a list in which they are
# hotpluggable, and after the next start they can go.
#
# Why it matters: a domain that was scaled up with --config cannot be scaled down any more after a restart, and nothing
# has said so. vcpuctl's --config keeps each vCPU by itself: tests/unit/host/vm/test_owned.py, and on real domains
# tests/e2e/test_domain_config.py.
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

libvirt_root

run_python <<'PYTHON'
from libvirt_root import Libvirtd
from qmp import Verdict

verdict = Verdict()
with Libvirtd("root") as libvirtd:
    verdict.saw("libvirt", libvirtd.does("version", "--daemon").split("Running against daemon: ")[1], "9.0.0")
    libvirtd.does("define", "/root/d.xml")
    libvirtd.does("start", "d", "--paused")
    libvirtd.does("setvcpus", "d", "3", "--live", "--config")
    verdict.saw("setvcpus: the list, hotpluggable", libvirtd.vcpus(), {0: "no", 1: "yes", 2: "yes"})
    libvirtd.ends()
    libvirtd.does("start", "d", "--paused")
    verdict.saw("setvcpus: how many after the next start", libvirtd.does("vcpucount", "d", "--live", "--current"), "3")
    verdict.saw("setvcpus: the list then", libvirtd.vcpus(), {})
    said = libvirtd.refuses("setvcpu", "d", "2", "--disable", "--live")
    verdict.saw("setvcpus: taking one out then", said, "Operation not supported: vcpu '2' can't be unplugged")
    libvirtd.ends()
    libvirtd.does("undefine", "d")
    libvirtd.does("define", "/root/d.xml")
    libvirtd.does("start", "d", "--paused")
    for number in ("1", "2"):
        libvirtd.does("setvcpu", "d", number, "--enable", "--live", "--config")
    libvirtd.ends()
    libvirtd.does("start", "d", "--paused")
    verdict.saw("setvcpu: the list after the next start", libvirtd.vcpus(), {0: "no", 1: "yes", 2: "yes"})
    libvirtd.ends()
verdict.end()
PYTHON
