#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# QEMU: a machine that is started with acpi=off has no ACPI. An expert expects a guest without ACPI tables.
#
# What happens on QEMU 10.0 with the SeaBIOS of Debian 13 (1.16.3): on q35 the firmware, which gets no tables from QEMU,
# makes tables of its own; on pc it makes none. A Linux 6.1 guest on such a q35 then has ACPI and all CPUs of -smp, which
# it calls \_SB_.CP00, \_SB_.CP01 and so on, where those of QEMU's tables are \_SB_.CPUS.C000 and so on. On such a pc it
# has one CPU. With SeaBIOS 1.17.0, which QEMU 11.1 comes with in the backports, both are without tables.
#
# Why it matters: no CPU can be plugged or unplugged there, whatever the guest's firmware shows; and who looks for the
# CPUs by QEMU's names, or for a guest without ACPI, finds neither. vcpuctl refuses all of it with that cause:
# tests/unit/host/core/platforms/test_noacpi.py::test_where_the_firmware_makes_acpi_of_its_own_that_is_the_cause_and_not_an_old_agent.
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

qemu_10_0
qemu_11_1
run_python <<'PYTHON'
import os
import re

from qmp import WORK, Qemu, Verdict, until

verdict = Verdict()
# SeaBIOS tells what it does on QEMU's debug console, port 0x402, and says this when it is through.
END = re.compile("No bootable device|Booting from")
for root, version, bios in (("qemu-10.0", "10.0.13", "1.16.3"), ("qemu-11.1", "11.1.3", "1.17.0")):
    for machine in ("q35", "pc"):
        log = os.path.join(WORK, f"{root}-{machine}.log")
        console = ("-debugcon", f"file:{log}", "-global", "isa-debugcon.iobase=0x402")
        with Qemu(root, "x86_64", "-machine", f"{machine},acpi=off", "-m", "128", *console) as qemu:
            verdict.saw(f"{machine}: QEMU", qemu.version, version)
            verdict.saw(f"{machine}: acpi", qemu.ask("qom-get", path="/machine", property="acpi"), "off")
            qemu.ask("cont")
            until(lambda: END.search(open(log, encoding="latin-1").read()) is not None, "the firmware is through")
        said = open(log, encoding="latin-1").read()
        found = re.search(r"SeaBIOS \(version ([0-9.]+)", said)
        verdict.saw(f"{machine}: SeaBIOS", found and found[1], bios)
        made = re.search("ACPI DSDT=0x|Copying ACPI RSDP", said) is not None
        verdict.saw(f"{machine}: the firmware makes ACPI tables", made, machine == "q35" and version == "10.0.13")

verdict.end()
PYTHON
