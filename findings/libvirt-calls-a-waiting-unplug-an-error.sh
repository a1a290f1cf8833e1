#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# libvirt: virDomainGetControlInfo (`virsh domcontrol`) tells whether somebody keeps a domain busy: "ok", "background
# job", "occupied". Its fourth answer, "error", is for a domain that "cannot be fully operated". An expert expects that
# of a broken monitor, and "occupied" while another client takes something out of the domain.
#
# What happens in libvirt 9.0: while a removal waits for the guest to let the device go, up to 5 s, the answer is
# "error: internal (locking) error". The call has the domain's lock of changes then, and is not in QEMU's monitor, which
# libvirt takes for a fault of its own (qemuDomainGetControlInfo). Nothing is wrong: afterwards the answer is "ok" again.
# Here it is a PCI device of a guest that stands still; by source it is the same call's wait for a vCPU.
#
# Why it matters: whoever asks before a change, so as not to wait behind others for 30 s, has to take this error for
# "occupied", and no other one: a broken monitor is told by the call itself. vcpuctl does so before each removal:
# host/src/vcpu_host/libvirt/domain.py (goes_out), tests/unit/host/libvirt/test_held_up.py.
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

libvirt_root

run_python <<'PYTHON'
import os
import threading
import time

from libvirt_root import DOMAIN, Libvirtd
from qmp import Verdict

RNG = "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"
verdict = Verdict()
with Libvirtd("root") as libvirtd:
    verdict.saw("libvirt", libvirtd.does("version", "--daemon").split("Running against daemon: ")[1], "9.0.0")
    with_rng = DOMAIN.replace("machine='q35'", "machine='pc'").replace("</devices>", f"{RNG}</devices>")
    for name, text in (("domain.xml", with_rng), ("rng.xml", RNG)):
        with open(os.path.join(libvirtd.root, "root", name), "w", encoding="utf-8") as file:
            file.write(text)
    libvirtd.does("define", "/root/domain.xml")
    libvirtd.does("start", "d", "--paused")
    verdict.saw("nobody is at work", libvirtd.does("domcontrol", "d"), "ok")
    # The guest stands still, so it lets nothing go.
    ended = []
    began = time.monotonic()
    words = ("detach-device", "d", "/root/rng.xml", "--live")
    detach = threading.Thread(target=lambda: ended.append(libvirtd.virsh(*words)))
    detach.start()
    seen = set()
    while detach.is_alive() and time.monotonic() < began + 30:
        seen.add(libvirtd.does("domcontrol", "d"))
    detach.join()
    verdict.saw("the removal itself ends well", [each.returncode for each in ended], [0])
    verdict.saw("while it waits, among others", sorted(seen - {"ok"}), ["error: internal (locking) error"])
    verdict.saw("afterwards", libvirtd.does("domcontrol", "d"), "ok")
    libvirtd.ends()
verdict.end()
PYTHON
