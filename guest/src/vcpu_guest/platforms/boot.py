# SPDX-License-Identifier: Apache-2.0
"""Machines whose CPUs are all there from the start: the identity is the place in QEMU's order.

QEMU names the CPUs by this place in the device tree (/cpus/cpu@N: hw/arm/virt.c, fdt_add_cpu_nodes; hw/riscv/virt.c,
create_fdt_socket_cpus) and in ACPI (\\_SB_.C%03X: hw/arm/virt-acpi-build.c, acpi_dsdt_add_cpus). On microvm the
firmware describes no CPU; there the kernel's numbers follow the same order, and keep it since nothing is ever plugged.
"""

from __future__ import annotations

import re

from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.base import Registered
from vcpu_guest.platforms.hints import HINTS

_NODE = re.compile(r"cpu@([0-9]{1,5})")
_OBJECT = re.compile(r".*\.C([0-9A-F]{3,4})")


class Boot(Registered):
    """arm64 and riscv64 guests, and x86 guests without ACPI objects for their CPUs."""

    name = "boot"
    scheme = "boot"
    hints = HINTS

    def identity(self, sysfs: Sysfs, number: int) -> str:
        """Return the CPU's place; "" if the firmware names it in another way than QEMU does."""
        path = sysfs.read_cpu(number, "firmware_node/path")
        if path:
            match = _OBJECT.fullmatch(path)
            return f"boot:{int(match[1], 16)}" if match else ""
        node = sysfs.link_name(f"devices/system/cpu/cpu{number}/of_node")
        if node:
            match = _NODE.fullmatch(node)
            return f"boot:{int(match[1])}" if match else ""
        return f"boot:{number}"
