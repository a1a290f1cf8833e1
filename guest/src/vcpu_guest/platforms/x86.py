# SPDX-License-Identifier: Apache-2.0
"""What x86 alone shows, whatever its CPUs are named by."""

from __future__ import annotations

from vcpu_guest.sysfs import Sysfs

#: X86_FEATURE_HYPERVISOR, which is CPUID leaf 1, ECX bit 31 (arch/x86/include/asm/cpufeatures.h, word 4).
_HYPERVISOR = f"{4 * 32 + 31:04X}"


def hypervisor_flag(sysfs: Sysfs) -> bool | None:
    """Whether the CPUs say that they are a hypervisor's; None on another architecture.

    By the list of features that the kernel shows for the loading of modules (arch/x86/kernel/cpu/match.c,
    cpu_print_cpu_modalias): "cpu:type:x86,ven0000fam0006mod0055:feature:,0000,...,009F,...". It has the same bits as
    /proc/cpuinfo, which the unit's sandbox hides.
    """
    text = sysfs.read("devices/system/cpu/modalias") or ""
    machine, found, features = text.partition(":feature:")
    if not found or not machine.startswith("cpu:type:x86,"):
        return None
    return _HYPERVISOR in features.split(",")
