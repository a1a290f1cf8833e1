# SPDX-License-Identifier: Apache-2.0
"""Machines with ACPI hotplug that were started with acpi=off: QEMU takes a device_add, and no guest ever hears of it.

device_del is refused by pc ("CPU hot unplug not supported without ACPI"), and taken for nothing by q35 (seen on 11.1).
Identity: the CPUs of -smp are the first slots, and a guest without ACPI numbers the CPUs that it finds at its boot by
ascending APIC id: so those are ``boot:N`` by their slot. What came later is known to no guest before its next boot, and
has no name that could be told.
"""

from __future__ import annotations

from .. import codes
from ..guest import AgentInfo
from ..model import HostView, Slot
from ..reason import Origin, Reason
from .acpi import WITHOUT_ACPI
from .base import Cause, Platform

_FIX = "start the VM without acpi=off (-machine ...,acpi=on)"


class NoAcpi(Platform):
    """The platform of such machines: their guests can switch CPUs, nobody can plug any."""

    name = "ACPI switched off"
    agent_platform = WITHOUT_ACPI

    def matches(self, host: HostView) -> bool:
        """Return whether it is pc, q35 or LoongArch's virt; the others have no such property, or no CPU hotplug."""
        able = host.arch in ("x86_64", "i386", "loongarch64") and host.no_hotplug is None
        return able and host.properties.get("acpi") == "off"

    def firmware_ids(self, host: HostView, slot: Slot) -> tuple[str, ...]:
        """Return the identity that is told above."""
        del host
        return (f"boot:{slot.index}",) if slot.at_start else ()

    def misunderstanding(self, agent: AgentInfo) -> Reason:
        """Return the reason that the firmware has made ACPI tables of its own, with other names.

        That was seen on q35 of QEMU 10.0.13.
        """
        text = (
            f"the VM was started with acpi=off, and yet its guest has ACPI (the agent takes its machine for "
            f"{agent.platform!r}): the firmware has made tables of its own, in which CPUs have other names"
        )
        return Reason(codes.AGENT_PLATFORM, Origin.VCPUCTL, text, f"{_FIX}; or switch CPUs in the guest by hand")

    def few_possible(self, host: HostView, agent: AgentInfo) -> Cause:
        """Return that what was there at its boot is all."""
        del host, agent
        return Cause("a guest without ACPI has only the CPUs that were there at its boot", _FIX)

    def restricts(self, host: HostView) -> bool:
        """Return True: all slots."""
        del host
        return True

    def cannot_plug(self, host: HostView, slot: Slot) -> Reason | None:
        """Return the reason that none at all can be."""
        del host
        text = f"the VM has no ACPI (acpi=off): its guest would never hear of a CPU in slot {slot.index}"
        return Reason(codes.NO_ACPI, Origin.VCPUCTL, text, _FIX)

    def cannot_unplug(self, host: HostView, slot: Slot) -> Reason | None:
        """Return the reason that none at all can be."""
        del host
        text = "the VM has no ACPI (acpi=off): its guest cannot be asked to let a CPU go"
        return Reason(
            codes.NO_ACPI, Origin.VCPUCTL, text, f"{_FIX}; vcpuctl offline {slot.index} takes it offline in the guest"
        )


PLATFORM = NoAcpi()
