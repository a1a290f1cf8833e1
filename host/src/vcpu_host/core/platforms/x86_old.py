# SPDX-License-Identifier: Apache-2.0
"""pc and q35 machine types from before QEMU 2.7: CPU hotplug of the first kind, which knows no removal.

QEMU still makes them (10.0 has pc-i440fx-2.4 to 2.6 and pc-q35-2.4 to 2.6: ``legacy_cpu_hotplug``, hw/i386/pc_piix.c
and pc_q35.c), and a VM keeps the type that it was made with. Identity: their ACPI objects are called ``\\_SB.CP%02X``
by the APIC id (hw/acpi/cpu_hotplug.c, build_legacy_cpu_hotplug_aml). The guest reports nothing of a plug: no _OST, and
query-acpi-ospm-status lists no CPU, ever.
"""

from __future__ import annotations

import re

from .. import codes
from ..model import HostView, Slot
from ..reason import Origin, Reason
from .x86 import X86, apic_id

_TYPE = r"pc-(?:i440fx|q35)-(\d+)\.(\d+)"
#: The first with today's kind (docs/specs/acpi_cpu_hotplug).
_TODAYS = (2, 7)


class OldX86(X86):
    """The platform of old pc and q35 types: CPUs can be plugged, and stay; the guest alone can take them offline."""

    name = "ACPI (pc, q35 before 2.7)"
    acknowledges = False
    lists_cpus_when_up = False

    def matches(self, host: HostView) -> bool:
        """Return whether it is such a machine, by the version in the type's name."""
        if not super().matches(host):
            return False
        version = re.fullmatch(_TYPE, host.machine)
        return version is not None and (int(version[1]), int(version[2])) < _TODAYS

    def firmware_ids(self, host: HostView, slot: Slot) -> tuple[str, ...]:
        """Return one identity, of one thread a slot; none if its APIC id cannot be told."""
        number = apic_id(host, slot)
        return () if number is None else (f"acpi:\\_SB_.CP{number:02X}",)

    def cannot_unplug(self, host: HostView, slot: Slot) -> Reason | None:
        """Return the reason that QEMU unplugs none here.

        QEMU says so in other words: "device unplug request for not supported device type" (hw/acpi/piix4.c).
        """
        del host
        # the boot CPU too, though it stays on any type: another slot, which is elsewhere the remedy, would stay as well
        offline = f"take it offline in the guest: vcpuctl offline {slot.index}, or vcpuctl scale --in-guest N"
        newer = "give the VM a newer machine type at its next start"
        return Reason(
            codes.NO_UNPLUG,
            Origin.QEMU,
            "QEMU does not unplug CPUs on machine types from before 2.7",
            f"{offline}; or {newer}" if slot.index else "the boot CPU stays on any machine type",
        )


PLATFORM = OldX86()
