#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Linux as a guest that has no clock for steal (here under TCG; the same kernel code runs where KVM's is switched off,
# which was not tried): its host is short of CPU time. An expert expects what /proc/stat can't call steal to be called
# busy: endless loops on each vCPU look like 100 % user time, and the guest looks full.
#
# What happens: with three vCPUs on one CPU of the host each counts about half of the time that passes as busy, none
# as idle and none as steal. The rest is nowhere: time is counted by ticks, and for all the ticks that a vCPU sleeps
# through there is one. (Debian's kernels can count exactly, but do so only with nohz_full.) What ps, top or an
# exporter divides by the time that passed looks like a guest with half of its CPUs free.
#
# Why it matters: who scales a VM by busy time takes CPUs from a guest that is full, or gives none to one whose tasks
# wait. vcpuctl takes what lacks of the time of a CPU that is never idle as stolen:
# tests/unit/host/autoscale/test_usage.py.
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

qemu_10_0
debian_root guest bookworm linux-image-6.1.0-50-cloud-amd64 busybox-static
run_python <<'PYTHON'
import os

from initrd import initrd, kernel
from qmp import WORK, Qemu, Verdict, until

VCPUS, SECONDS = 3, 20
#: A guest whose vCPUs all compute, and that says how much time has passed and what its counters say of it.
INIT = f"""
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t devtmpfs none /dev
for cpu in $(/bin/busybox seq {VCPUS}); do (while :; do :; done) & done
/bin/busybox sleep 10
say() {{ read -r up rest </proc/uptime; echo "$1 up $up"; while read -r line; do echo "$1 $line"; done </proc/stat; }}
say before
/bin/busybox sleep {SECONDS}
say after
echo said all
/bin/busybox sleep 1000
"""


def counted(log: str, word: str) -> list[list[float]]:
    """The seconds since the guest's start, and of each CPU those that were busy, idle and stolen."""
    with open(log, encoding="latin-1") as lines:
        fields = [line.split()[1:] for line in lines if line.startswith(word)]
    rows = [[float(row[1])] for row in fields if row[0] == "up"]
    for row in fields:
        if row[0].startswith("cpu") and row[0] != "cpu":
            user, nice, system, idle, iowait, irq, softirq, steal = (int(value) / 100 for value in row[1:9])
            rows.append([user + nice + system + irq + softirq, idle + iowait, steal])
    return rows


verdict = Verdict()
log = os.path.join(WORK, "console.log")
boot = ("-kernel", kernel("guest"), "-initrd", initrd("guest", INIT))
guest = (*boot, "-append", "console=ttyS0 quiet rdinit=/init", "-serial", f"file:{log}")
# The guest's host is short: all threads of QEMU share one CPU.
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
with Qemu("qemu-10.0", "x86_64", "-machine", "q35", "-m", "256", "-smp", str(VCPUS), *guest) as qemu:
    verdict.saw("QEMU", qemu.version, "10.0.13")
    qemu.ask("cont")

    def said() -> bool:
        with open(log, encoding="latin-1") as lines:
            return any(line.startswith("said all") for line in lines)

    until(said, "the guest has said all", 150)
(before,), *old = counted(log, "before")
(after,), *new = counted(log, "after")
passed = after - before
verdict.saw("vCPUs", len(new), VCPUS)
shares = [[(b - a) / passed for a, b in zip(was, now)] for was, now in zip(old, new)]
for number, (busy, idle, steal) in enumerate(shares):
    print(f"cpu{number}: of {passed:.0f} s busy {busy:.0%}, idle {idle:.0%}, stolen {steal:.0%}")
verdict.saw("each is idle for less than a twentieth", all(idle < 0.05 for _, idle, _ in shares), True)
verdict.saw("nothing is stolen", all(steal == 0 for *_, steal in shares), True)
verdict.saw("less than three quarters of the time are counted", all(sum(share) < 0.75 for share in shares), True)
verdict.end()
PYTHON
