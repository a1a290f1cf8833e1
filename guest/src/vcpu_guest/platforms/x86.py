# SPDX-License-Identifier: Apache-2.0
"""What x86 adds to ACPI: errors of its own, and the hypervisor flag."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from vcpu_guest.core.model import Reason
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.acpi import Acpi

#: X86_FEATURE_HYPERVISOR, which is CPUID leaf 1, ECX bit 31 (arch/x86/include/asm/cpufeatures.h, word 4).
_HYPERVISOR = f"{4 * 32 + 31:04X}"
#: Arguments of the kernel's command line that turn x2APIC or interrupt remapping off.
_AGAINST_X2APIC = frozenset({"nox2apic", "intremap=off"})


class X86(Acpi):
    """x86 guests with ACPI: pc and q35."""

    def would_not_start(self, sysfs: Sysfs, number: int, code: int, arguments: Sequence[str]) -> Reason | None:
        """Return the reason for EINVAL: a possible CPU has an APIC id that cannot be addressed (smpboot.c,
        native_kick_ap).

        Without x2APIC, or with one whose interrupts are not remapped, ids of 255 and more cannot be addressed
        (arch/x86/kernel/apic/apic.c, try_to_enable_x2apic).
        """
        if code != errno.EINVAL or number not in sysfs.mask("possible"):
            return None
        off = " ".join(argument for argument in arguments if argument in _AGAINST_X2APIC)
        remedy = f"boot without {off}" if off else "start QEMU with -device intel-iommu,intremap=on,eim=on"
        return Reason(
            "apic-id",
            f'the kernel cannot address the APIC id of cpu{number} (its log has "bad cpu" then): ids of 255 and more '
            f"need x2APIC with interrupt remapping: {remedy}",
            code,
        )


def hypervisor_flag(sysfs: Sysfs) -> bool | None:
    """Say whether the CPUs report that they are a hypervisor's; None on another architecture.

    The kernel lists their features for the loading of modules (arch/x86/kernel/cpu/match.c, cpu_print_cpu_modalias):
    "cpu:type:x86,ven0000fam0006mod0055:feature:,0000,...,009F,...". These are the same bits as in /proc/cpuinfo, which
    the unit's sandbox hides.
    """
    text = sysfs.read("devices/system/cpu/modalias") or ""
    machine, found, features = text.partition(":feature:")
    if not found or not machine.startswith("cpu:type:x86,"):
        return None
    return _HYPERVISOR in features.split(",")
