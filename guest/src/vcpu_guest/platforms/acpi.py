# SPDX-License-Identifier: Apache-2.0
"""x86 and LoongArch: each CPU is an ACPI object, and cpuN's firmware_node links to its object.

QEMU names the objects by slot (hw/acpi/cpu.c, build_cpus_aml: "C%.03X"). Linux shows the full path in
firmware_node/path, for example `\\_SB_.CPUS.C00A`. Most CPUs have no `uid` file: QEMU describes them as ACPI 1.0
Processor objects. The kernel makes the link after the `add` event (drivers/acpi/acpi_processor.c,
acpi_processor_hotadd_init, then acpi_bind_one), so it may be missing for a moment.

While an x86 CPU is offline, the kernel does not show whose sibling it is. So the agent cannot know beforehand that the
SMT mode forbids to bring it online.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from vcpu_guest.core.model import Hint
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.base import Registered
from vcpu_guest.platforms.hints import HINTS


class Acpi(Registered):
    """Machines whose CPUs ACPI describes."""

    name = "acpi"
    scheme = "acpi"
    # The link to the ACPI object is there from the "bind" event on.
    hints: Mapping[str, Hint] = MappingProxyType({**HINTS, "add": Hint.COMING})

    def identity(self, sysfs: Sysfs, number: int) -> str:
        """Return the ACPI path; "" until the kernel has linked the CPU to its object, and always without ACPI."""
        path = sysfs.read_cpu(number, "firmware_node/path")
        return f"acpi:{path}" if path else ""
