# SPDX-License-Identifier: Apache-2.0
"""pc and q35: ACPI CPU hotplug."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..finding import Finding, Level
from ..model import HostView
from .acpi import AcpiPlatform
from .base import plug_budget


@dataclass(frozen=True)
class X86(AcpiPlatform):
    """The platform of pc and q35 machines."""

    name = "ACPI (pc, q35)"

    def matches(self, host: HostView) -> bool:
        """Any x86 machine that can plug CPUs."""
        return host.arch in ("x86_64", "i386") and host.no_hotplug is None

    def one_at_a_time(self, host: HostView) -> bool:
        """Where firmware may handle the plug in SMM, which loses plugs that overtake each other (tianocore BZ 2929).

        Only UEFI does, and where it has SMM it lies in flash (hw/i386/pc_sysfw.c). Else the guest's ACPI finds all
        CPUs that are there in one scan (hw/acpi/cpu.c, the CSCN method), which is the quickest way.
        """
        return bool(host.properties.get("pflash0"))

    def dies_of_replug(self, host: HostView) -> bool:
        """QEMU before 10.0 under TCG: its heap is corrupt after an unplug (7.2: 14 of 14)."""
        return host.accel == "tcg" and host.qemu_version < (10, 0, 0)

    def known_bugs(self, host: HostView) -> Iterator[Finding]:
        """Of the emulated APIC (hw/intc/apic.c, apic_get_delivery_bitmask), and of unplugging under TCG before 10.0."""
        if host.accel != "tcg":
            return
        possible = sum(slot.vcpus for slot in host.slots)
        if host.qemu_version < (9, 0, 0) and possible <= 8:
            yield Finding(
                Level.PROBLEM,
                "tcg-flat-apic",
                "QEMU before 9.0 under TCG loses IPIs when at most 8 CPUs are possible and slots are filled with "
                "holes: the guest hangs",
                "maxcpus=9 or more, or QEMU 9.0 or newer, or KVM",
            )
        if self.dies_of_replug(host):
            yield Finding(
                Level.WARNING,
                "tcg-replug",
                f"QEMU {host.version_text} under TCG dies on the first device_add after an unplug (7.2 did, 14 of 14), "
                "and on a migration (7.2 died of one, and hung in another)",
                "QEMU 10.0 or newer, or KVM; or never plug or migrate after an unplug",
            )
        else:
            yield plug_budget(host)
        if any(slot.type.startswith("max-") for slot in host.slots):
            yield Finding(
                Level.WARNING,
                "tcg-mwait",
                "-cpu max under TCG: an offline vCPU spins in MONITOR/MWAIT on the host",
                "-cpu max,-monitor",
            )


PLATFORM = X86()
