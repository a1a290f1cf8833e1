# SPDX-License-Identifier: Apache-2.0
"""What all machines share whose CPUs ACPI plugs.

Identity: QEMU names the ACPI object of possible CPU i ``\\_SB.CPUS.C%.03X`` (hw/acpi/cpu.c, build_cpus_aml), and Linux
shows the full path of it in ``cpuN/firmware_node/path`` with ACPICA's four-character segments (``\\_SB_``).
"""

from __future__ import annotations

from .. import codes
from ..guest import AgentInfo
from ..model import HostView, Ost, Slot
from ..reason import Origin, Reason
from .base import Platform, boot_cpu

# _OST sources and statuses: ACPI 6.5, section 6.3.5; Linux include/linux/acpi.h; used by drivers/acpi/scan.c.
_INSERTION = 1
_EJECTS = (3, 0x103)
_EJECT_HINT = (
    "see vcpuctl doctor; where vcpud keeps the eject gate (eject_gate in the guest's vcpud.conf), unplug with its "
    "word, by a vcpuctl that is as new as it, and not --without-agent"
)
_REFUSALS = {
    0x01: (codes.EJECT_FAILED, "the guest kernel failed to eject the CPU", "look at the guest's kernel log"),
    0x80: (
        codes.EJECT_DISABLED,
        "the guest does not allow CPUs to be ejected",
        _EJECT_HINT,
    ),
    0x81: (codes.EJECT_IN_USE, "the guest says that the CPU is in use", "look at the guest's kernel log"),
    0x82: (codes.EJECT_BUSY, "the guest kernel could not take the CPU offline", "look at the guest's kernel log"),
    0x83: (
        codes.EJECT_DEPENDENCY,
        "the guest says that something depends on the CPU",
        "look at the guest's kernel log",
    ),
}

_DEAF_HINT = (
    "restart the guest: reboot in it, or system_reset; on q35 with SeaBIOS a wake from S3 leaves it so. Until then "
    "vcpuctl online and offline work"
)

_NO_ACPI_HINT = (
    "see in the guest's kernel log why it found no ACPI: its command line does not switch that off; libvirt starts a "
    "domain without it that has no <acpi/> among its <features>"
)

#: What an agent calls a machine in which it finds no names of CPUs.
WITHOUT_ACPI = "boot"


def ejected(ost: Ost) -> bool:
    """Return whether an eject succeeded.

    "In progress" (0x84), which comes first, says nothing new (acpi_device_hotplug).
    """
    return ost.source in _EJECTS and ost.status == 0


class AcpiPlatform(Platform):
    """One thread a slot; the guest reports by _OST what it does with each."""

    agent_platform = "acpi"
    acknowledges = True

    def firmware_ids(self, host: HostView, slot: Slot) -> tuple[str, ...]:
        """Return the one identity of a slot, which is one thread."""
        del host
        return (f"acpi:\\_SB_.CPUS.C{slot.index:03X}",)

    def misunderstanding(self, agent: AgentInfo) -> Reason:
        """Return what any platform says, or that the guest runs without ACPI.

        Such a guest has no names for its CPUs, and no way to take one in or let one go.
        """
        found = super().misunderstanding(agent)
        if agent.environment.acpi is False:
            named = " ".join(each for each in agent.environment.kernel_arguments if each.startswith("acpi="))
            where = f" ({named})" if named else ""
            text = f"the guest's kernel runs without ACPI{where}, by which CPUs come, go and are named on {self.name}"
            hint = f"remove {named} from the guest's kernel command line" if named else _NO_ACPI_HINT
            return Reason(codes.GUEST_NO_ACPI, Origin.GUEST, text, hint)
        if agent.platform == WITHOUT_ACPI:
            return found._replace(hint=f"{found.hint}; or see whether its kernel runs with ACPI (acpi=off)")
        return found

    def guest_is_deaf(self, agent: AgentInfo) -> Reason | None:
        """Return why the guest is deaf by the GPE that QEMU raises, or by any other.

        They share one interrupt (the guest's ``kernel/gpes.py``).
        """
        unhandled = agent.environment.unhandled_gpes
        if not unhandled:
            return None
        names = ", ".join(f"{number:02X}" for number in unhandled[:4]) + (", ..." if len(unhandled) > 4 else "")
        one = len(unhandled) == 1
        text = (
            f"{'GPE' if one else 'GPEs'} {names} of the guest {'is' if one else 'are'} pending and its kernel does not "
            f"handle {'it' if one else 'them'}: it hears of no CPU that comes or is to go"
        )
        return Reason(codes.ACPI_DEAF, Origin.GUEST, text, _DEAF_HINT)

    def cannot_unplug(self, host: HostView, slot: Slot) -> Reason | None:
        """Return the reason for slot 0, which is the boot CPU.

        QEMU refuses, on x86 in words that say the contrary (x86_cpu_unplug_request_cb).
        """
        del host
        return boot_cpu("CPU") if slot.index == 0 else None

    def refusal(self, ost: Ost) -> Reason | None:
        """Return the refusal of the table above; "in progress" (0x84) and success (0) are no refusals."""
        if ost.source not in _EJECTS or ost.status not in _REFUSALS:
            return None
        code, text, hint = _REFUSALS[ost.status]
        return Reason(code, Origin.GUEST, f"{text} (_OST {ost.source}/{ost.status})", hint)

    def ejected(self, ost: Ost) -> bool:
        """Return what ``ejected`` above says."""
        return ejected(ost)

    def acknowledged(self, ost: Ost) -> bool:
        """Return whether it is an insertion.

        Linux reports every processed one, even one whose CPU it could not use (acpi_device_hotplug).
        """
        return ost.source == _INSERTION
