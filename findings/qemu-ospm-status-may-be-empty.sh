#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# QEMU: query-acpi-ospm-status lists the slots of CPUs with what the guest has last said of each. On a machine that
# has ACPI and slots for CPUs, an expert expects an entry for each slot, with status 0 until the guest speaks.
#
# What happens on QEMU 10.0: until the guest's ACPI has come up the list is empty (no error), on the newest machine
# types too, even with a CPU plugged; on those of before 2.7 it stays so for good. As long as it is, the CPU can be
# plugged and not be taken out again: device_del is refused because the *device type* is not supported, of a type that
# was plugged a moment ago, on a machine whose query-machines says "hotpluggable-cpus". On 11.1 (without those old
# types) neither is so: the list is full from the start.
#
# Why it matters: no entry is no proof that QEMU has no such CPU, nor that the guest has not heard of it; and the
# words of the refusal send people after a wrong CPU model, where all they need is to wait for the guest to boot.
# vcpuctl says that ("the guest's ACPI is not up yet"):
# tests/component/test_qmp_fake.py::test_a_plug_before_the_guest_is_up_is_found_at_boot_and_not_reported and
# tests/unit/host/qmp/test_text.py::test_a_known_error_keeps_qemus_words_and_gets_a_code_and_a_hint.
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

qemu_10_0
qemu_11_1
run_python <<'PYTHON'
import re

from qmp import Qemu, Verdict

verdict = Verdict()
words = re.compile("error: acpi: device unplug request for not supported device type: qemu64-x86_64-cpu")
for root, version, kinds in (
    ("qemu-10.0", "10.0.13", ("pc-i440fx-2.6", "pc-q35-10.0")),
    ("qemu-11.1", "11.1.3", ("pc-q35-10.0", "pc-q35-11.1")),
):
    for kind in kinds:
        with Qemu(root, "x86_64", "-machine", kind, "-cpu", "qemu64", "-m", "64", "-smp", "1,maxcpus=4") as qemu:
            old = version == "10.0.13"
            verdict.saw("QEMU", qemu.version, version)
            able = [one["hotpluggable-cpus"] for one in qemu.ask("query-machines") if one["name"] == kind]
            verdict.saw(f"{kind}: hotpluggable-cpus", able, [True])
            verdict.saw(f"{kind}: device_add", qemu.plug("one", 1), {})
            listed = [entry["slot"] for entry in qemu.ask("query-acpi-ospm-status") if entry["slot-type"] == "CPU"]
            verdict.saw(f"{kind}: slots in query-acpi-ospm-status", listed, [] if old else ["0", "1", "2", "3"])
            verdict.saw(f"{kind}: device_del", qemu.ask("device_del", id="one"), words if old else {})
            verdict.saw(f"{kind}: slots with a CPU", qemu.filled(), [0, 1])

verdict.end()
PYTHON
