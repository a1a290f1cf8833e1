#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# QEMU: an internal snapshot brings back RAM, disks and the state of each device. So an expert expects of a snapshot
# that was saved with one vCPU, and is loaded by a QEMU that has three by now, what QEMU does the other way round: a
# refusal, because the machine is not the one that was saved. (Saved with three and loaded with one, the job ends with
# an error.)
#
# What happens: the job ends without an error, warning or event, and the two later vCPUs stay, with threads of their
# own and filled slots. The guest is back in a time before them, and nothing will ever tell it of them.
#
# Why it matters: after the revert QEMU's count and the guest's differ for good. Who counts by QEMU believes that the
# VM has three vCPUs; who waits for the guest to bring them up waits for ever. vcpuctl unplugs what the guest has
# never heard of and plugs it again:
# tests/e2e/test_snapshots.py::test_after_a_revert_to_fewer_cpus_one_scale_converges.
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

debian_root qemu-10.0 trixie qemu-system-x86=1:10.0.13+ds-0+deb13u1 qemu-utils=1:10.0.13+ds-0+deb13u1
run_python <<'PYTHON'
import os
import re
import subprocess

from qmp import WORK, Qemu, Verdict, program, until

root, verdict = "qemu-10.0", Verdict()


def machine(disk: str) -> Qemu:
    return Qemu(
        root, "x86_64", "-machine", "q35", "-cpu", "qemu64", "-m", "64", "-smp", "1,maxcpus=4",
        "-blockdev", f"driver=qcow2,node-name=disk,file.driver=file,file.filename={disk}",
    )  # fmt: skip


def job(qemu: Qemu, command: str) -> str:
    """Run that snapshot job to its end; what it says of an error."""
    qemu.ask(command, job_id="job", tag="earlier", vmstate="disk", devices=["disk"])
    done = until(lambda: [one for one in qemu.ask("query-jobs") if one["status"] == "concluded"], "the job ends")
    qemu.ask("job-dismiss", id="job")
    return str(done[0].get("error", "no error"))


def disk(name: str) -> str:
    path = os.path.join(WORK, name)
    subprocess.run([*program(root, "qemu-img"), "create", "-q", "-f", "qcow2", path, "64M"], check=True, timeout=60)
    return path


with machine(disk("fewer")) as qemu:
    verdict.saw("QEMU", qemu.version, "10.0.13")
    verdict.saw("slots with a CPU when it is saved", qemu.filled(), [0])
    verdict.saw("snapshot-save", job(qemu, "snapshot-save"), "no error")
    qemu.plug("one", 1)
    qemu.plug("two", 2)
    verdict.saw("slots with a CPU before it is loaded", qemu.filled(), [0, 1, 2])
    qemu.events.clear()
    verdict.saw("snapshot-load", job(qemu, "snapshot-load"), "no error")
    verdict.saw("slots with a CPU afterwards", qemu.filled(), [0, 1, 2])
    verdict.saw("vCPU threads afterwards", len(qemu.ask("query-cpus-fast")), 3)
    others = sorted({event["event"] for event in qemu.events} - {"JOB_STATUS_CHANGE"})
    verdict.saw("events beside those of the job", others, [])

more = disk("more")
with machine(more) as qemu:
    qemu.plug("one", 1)
    qemu.plug("two", 2)
    verdict.saw("the other way round, snapshot-save with three", job(qemu, "snapshot-save"), "no error")
with machine(more) as qemu:
    verdict.saw("snapshot-load with one", job(qemu, "snapshot-load"), re.compile("Error -22 while loading VM state"))

verdict.end()
PYTHON
