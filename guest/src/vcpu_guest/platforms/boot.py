# SPDX-License-Identifier: Apache-2.0
"""Machines whose CPUs are all there from the start: known by their place in the order in which QEMU made them.

QEMU names them by it in the device tree (/cpus/cpu@N: hw/arm/virt.c, fdt_add_cpu_nodes; hw/riscv/virt.c,
create_fdt_socket_cpus), and in ACPI (\\_SB_.C%03X: hw/arm/virt-acpi-build.c, acpi_dsdt_add_cpus). Where the firmware
describes none of them, as on microvm, the kernel's numbers follow the same order, and since nothing is ever plugged
they keep it.
"""

from __future__ import annotations

import re

from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.base import Registered
from vcpu_guest.platforms.hints import HINTS

_NODE = re.compile(r"cpu@([0-9]{1,5})")
_OBJECT = re.compile(r".*\.C([0-9A-F]{3,4})")


class Boot(Registered):
    """arm64 and riscv64 guests, and x86 ones without ACPI's CPU objects."""

    name = "boot"
    scheme = "boot"
    hints = HINTS

    def identity(self, sysfs: Sysfs, number: int) -> str:
        """Its place; "" if the firmware names it in a way that QEMU does not."""
        path = sysfs.read_cpu(number, "firmware_node/path")
        if path:
            match = _OBJECT.fullmatch(path)
            return f"boot:{int(match[1], 16)}" if match else ""
        node = sysfs.link_name(f"devices/system/cpu/cpu{number}/of_node")
        if node:
            match = _NODE.fullmatch(node)
            return f"boot:{int(match[1])}" if match else ""
        return f"boot:{number}"
