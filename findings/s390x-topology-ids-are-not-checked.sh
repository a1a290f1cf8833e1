#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# QEMU, s390x: query-hotpluggable-cpus gives for each empty slot the properties that device_add is to be told:
# core-id, socket-id, book-id, drawer-id. On x86 device_add refuses a CPU whose ids are outside of the machine's, or
# belong to no slot, and experts count on that.
#
# What happens: on s390x only core-id is looked at. A socket that belongs to another core, and even the 99th socket of
# a machine that has two in each book, are taken without a word. Then QEMU has two answers: the slot and
# query-cpus-fast show the right ids (worked out from core-id), the CPU object itself has for ever the wrong ones, or
# -1 for those left out.
#
# Why it matters: a script with wrong arithmetic looks right here for years; and who reads the ids off the CPU's
# object, not off the slot, places vCPUs by a topology that does not exist. vcpuctl passes on a slot's properties as
# QEMU gave them and reads them of slots only.
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

debian_root qemu-10.0 trixie qemu-system-s390x=1:10.0.13+ds-0+deb13u1 qemu-system-x86=1:10.0.13+ds-0+deb13u1
run_python <<'PYTHON'
import re

from qmp import Qemu, Verdict

root, verdict = "qemu-10.0", Verdict()
topology = "1,maxcpus=8,drawers=1,books=2,sockets=2,cores=2"
with Qemu(root, "s390x", "-machine", "s390-ccw-virtio", "-m", "128", "-smp", topology) as qemu:
    verdict.saw("QEMU", qemu.version, "10.0.13")
    kind, right = qemu.slots()[5]["type"], {"core-id": 5, "socket-id": 0, "book-id": 1, "drawer-id": 0}
    verdict.saw("slot 5 is to have", qemu.slots()[5]["props"], right)
    wrong = {"core-id": 5, "socket-id": 1, "book-id": 0, "drawer-id": 0}
    verdict.saw("device_add with another socket and book", qemu.ask("device_add", driver=kind, id="five", **wrong), {})
    far = {"core-id": 7, "socket-id": 99}
    verdict.saw("device_add with socket-id 99, no book", qemu.ask("device_add", driver=kind, id="seven", **far), {})
    verdict.saw("slots with a CPU", qemu.filled(), [0, 5, 7])
    for name, slot, seen in (("five", 5, [1, 0, 0]), ("seven", 7, [99, -1, -1])):
        levels = ("socket-id", "book-id", "drawer-id")
        own = [qemu.ask("qom-get", path=f"/machine/peripheral/{name}", property=level) for level in levels]
        verdict.saw(f"socket, book, drawer of CPU {name!r} by its object", own, seen)
        by_slot = [qemu.slots()[slot]["props"][level] for level in levels]
        verdict.saw(f"socket, book, drawer of CPU {name!r} by its slot", by_slot, [[0, 1, 0], [1, 1, 0]][slot == 7])

with Qemu(root, "x86_64", "-m", "64", "-cpu", "qemu64", "-smp", "1,maxcpus=8,sockets=2,cores=4") as qemu:
    far = {"core-id": 2, "socket-id": 99, "thread-id": 0}
    answer = qemu.ask("device_add", driver="qemu64-x86_64-cpu", id="six", **far)
    verdict.saw("the same on x86", answer, re.compile("error: Invalid CPU socket-id: 99 must be in range 0:1"))

verdict.end()
PYTHON
