#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# QEMU: the ids of devices have one rule ("letters, digits, '-', '.', '_', starting with a letter"), and an expert
# expects that an id which the monitor of a VM has taken is good on the command line of the next.
#
# What happens: QEMU 10.0 applies the rule to `-device x,id=...` only. device_add over QMP, and -device with JSON,
# take any string: a CPU may be plugged as "9lives" or "a b". QEMU 11.1 refuses such ids in all three ways, with other
# words.
#
# Why it matters: the command line of a migration's destination, or of the VM's next start, has to name each plugged
# CPU by the id it has. With such an id it can be said in JSON only, and on 11.1 not at all: the vCPU has to be
# unplugged before the VM can move to a new QEMU. vcpuctl makes ids that every QEMU takes ("vcpu-1").
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

qemu_10_0
qemu_11_1
run_python <<'PYTHON'
import json
import re

from qmp import Qemu, Verdict, refusal

verdict = Verdict()
machine = ("x86_64", "-machine", "q35", "-cpu", "qemu64", "-m", "64", "-smp", "1,maxcpus=4,sockets=1,cores=4")
cpu = {"driver": "qemu64-x86_64-cpu", "id": "9lives", "socket-id": 0, "core-id": 1, "thread-id": 0}
as_words = ",".join(f"{name}={value}" for name, value in cpu.items()).removeprefix("driver=")
rule = re.compile("Parameter 'id' expects an identifier")

old = "qemu-10.0"
with Qemu(old, *machine) as qemu:
    verdict.saw("QEMU", qemu.version, "10.0.13")
    verdict.saw("device_add of '9lives'", qemu.plug("9lives", 1), {})
    verdict.saw("device_add of 'a b'", qemu.plug("a b", 2), {})
    paths = [one["qom-path"].rpartition("/")[2] for one in qemu.ask("query-cpus-fast")]
    verdict.saw("its CPUs", paths, ["device[0]", "9lives", "a b"])
verdict.saw("-device x,id=9lives", refusal(old, *machine, "-device", as_words), rule)
with Qemu(old, *machine, "-device", json.dumps(cpu)) as qemu:
    verdict.saw("-device with the same in JSON: slots with a CPU", qemu.filled(), [0, 1])

new, refused = "qemu-11.1", re.compile("Invalid qdev ID '9lives'")
with Qemu(new, *machine) as qemu:
    verdict.saw("QEMU", qemu.version, "11.1.3")
    verdict.saw("device_add of '9lives'", qemu.plug("9lives", 1), refused)
verdict.saw("-device x,id=9lives", refusal(new, *machine, "-device", as_words), rule)
verdict.saw("-device with the same in JSON", refusal(new, *machine, "-device", json.dumps(cpu)), refused)

verdict.end()
PYTHON
