# SPDX-License-Identifier: Apache-2.0
"""Machines that keep the CPUs they start with: arm and riscv virt, microvm, and all others without CPU hotplug.

Identity: their place in QEMU's order, ``boot:N``. QEMU names the device tree's nodes by it (``/cpus/cpu@N``;
hw/arm/virt.c and hw/riscv/virt.c), or the ACPI objects (``C%03X``); where a guest has neither, its own numbers follow
it, since all CPUs are there from the start and none ever comes or goes.
"""

from __future__ import annotations

from ..model import HostView, Slot
from ..reason import Reason
from .base import Platform


class Fixed(Platform):
    """The platform of machines without CPU hotplug: their guests can switch CPUs, nobody can plug any."""

    name = "fixed CPUs"
    agent_platform = "boot"

    def matches(self, host: HostView) -> bool:
        """Return whether it is a machine of which QEMU says that it cannot."""
        return host.no_hotplug is not None

    def firmware_ids(self, host: HostView, slot: Slot) -> tuple[str, ...]:
        """Return one identity, of one thread a slot: each vCPU is shown as one."""
        del host
        return (f"boot:{slot.index}",)

    def restricts(self, host: HostView) -> bool:
        """Return True: all slots."""
        del host
        return True

    def cannot_plug(self, host: HostView, slot: Slot) -> Reason | None:
        """Return the reason, in QEMU's words."""
        del slot
        return host.no_hotplug

    def cannot_unplug(self, host: HostView, slot: Slot) -> Reason | None:
        """Return the reason, in QEMU's words."""
        del slot
        return host.no_hotplug


PLATFORM = Fixed()
