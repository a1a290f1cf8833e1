# SPDX-License-Identifier: Apache-2.0
"""pc and q35: ACPI CPU hotplug.

Identity: QEMU names the ACPI object of possible CPU i ``\\_SB.CPUS.C%.03X`` (hw/acpi/cpu.c, build_cpus_aml), and Linux
shows the full path of it in ``cpuN/firmware_node/path`` with ACPICA's four-character segments (``\\_SB_``).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..model import HostView, Ost, Reason, Slot, Who

# _OST sources and statuses: ACPI 6.5, section 6.3.5; Linux include/linux/acpi.h; used by drivers/acpi/scan.c.
_INSERTION = 1
_EJECTS = (3, 0x103)
_REFUSALS = {
    0x01: ("eject-failed", "the guest kernel failed to eject the CPU", "look at the guest's kernel log"),
    0x80: ("eject-disabled", "the guest does not allow CPUs to be ejected", "see vcpuctl doctor"),
    0x81: ("eject-in-use", "the guest says that the CPU is in use", "look at the guest's kernel log"),
    0x82: ("eject-busy", "the guest kernel could not take the CPU offline", "look at the guest's kernel log"),
    0x83: ("eject-dependency", "the guest says that something depends on the CPU", "look at the guest's kernel log"),
}


@dataclass(frozen=True)
class X86:
    """The platform of pc and q35 machines."""

    name: str = "ACPI (pc, q35)"
    acknowledges: bool = True

    def matches(self, host: HostView) -> bool:
        """Any x86 machine: those without hotplug say so themselves (``HostView.no_hotplug``)."""
        return host.arch in ("x86_64", "i386")

    def firmware_ids(self, slot: Slot) -> tuple[str, ...]:
        """One thread a slot."""
        return (f"acpi:\\_SB_.CPUS.C{slot.index:03X}",)

    def cannot_plug(self, host: HostView, slot: Slot) -> Reason | None:
        """Every empty slot can be plugged."""
        del host, slot
        return None

    def cannot_unplug(self, host: HostView, slot: Slot) -> Reason | None:
        """Slot 0 is the boot CPU: QEMU refuses, in words that say the contrary (x86_cpu_unplug_request_cb)."""
        del host
        if slot.index == 0:
            return Reason(
                "boot-cpu",
                Who.VCPUCTL,
                "slot 0 holds the boot CPU, which QEMU does not unplug on this platform",
                "choose another slot",
            )
        return None

    def one_at_a_time(self, host: HostView) -> bool:
        """Where firmware may handle the plug in SMM, which loses plugs that overtake each other (tianocore BZ 2929).

        Only UEFI does, and where it has SMM it lies in flash (hw/i386/pc_sysfw.c). Else the guest's ACPI finds all
        CPUs that are there in one scan (hw/acpi/cpu.c, the CSCN method), which is the quickest way.
        """
        return host.flash

    def refusal(self, ost: Ost) -> Reason | None:
        """See the table above; "in progress" (0x84) and success (0) are no refusals."""
        if ost.source not in _EJECTS or ost.status not in _REFUSALS:
            return None
        code, text, hint = _REFUSALS[ost.status]
        return Reason(code, Who.GUEST, f"{text} (_OST {ost.source}/{ost.status})", hint)

    def ejected(self, ost: Ost) -> bool:
        """Success of an eject; "in progress" (0x84), which comes first, says nothing new (acpi_device_hotplug)."""
        return ost.source in _EJECTS and ost.status == 0

    def acknowledged(self, ost: Ost) -> bool:
        """Linux reports every processed insertion, even one whose CPU it could not use (acpi_device_hotplug)."""
        return ost.source == _INSERTION


PLATFORM = X86()
