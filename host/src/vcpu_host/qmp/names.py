# SPDX-License-Identifier: Apache-2.0
"""How QEMU calls CPUs: ids, places in the QOM tree, and the id that the CPU of a slot gets when it is plugged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..core.model import Slot

#: Where QEMU keeps devices that were given an id (qdev_set_id, system/qdev-monitor.c).
PERIPHERAL = "/machine/peripheral/"
#: Where the CPUs of -smp are, which nobody has given a place (hw/core/qdev.c, device_set_realized).
AT_START = "/machine/unattached/"


class Naming(NamedTuple):
    """Which device id the CPU of a slot gets: ``prefix`` and the slot's index.

    It follows from the slot alone, so any run on any host finds the same id again.
    """

    prefix: str

    def slot_id(self, index: int) -> str:
        """Return the device id of a slot."""
        return f"{self.prefix}{index}"

    def slot_of(self, path: str) -> int | None:
        """Return the slot whose CPU has this QOM path if it was plugged under this name, None for any other path."""
        number = (device_id(path) or "").removeprefix(self.prefix)
        fits = number.isascii() and number.isdecimal() and path == PERIPHERAL + self.slot_id(int(number))
        return int(number) if fits else None


#: How vcpuctl itself names CPUs.
OURS = Naming("vcpu-")
#: How libvirt names them (src/qemu/qemu_alias.c, qemuAssignDeviceVcpuAlias as seen on 9.0 and 12.8: "vcpu5").
LIBVIRTS = Naming("vcpu")


def device_id(path: str) -> str | None:
    """Return the id of the device at this QOM path; None if it has none, as the CPUs of -smp."""
    return path.removeprefix(PERIPHERAL) if path.startswith(PERIPHERAL) else None


def is_at_start(path: str) -> bool:
    """Return whether the CPU at this QOM path was there when the VM was started."""
    return path.startswith(AT_START)


def owner_of(path: str, slots: Mapping[str, int]) -> int | None:
    """Return the slot whose object is at ``path`` or above it: a pseries thread is a child of its core."""
    while path:
        if path in slots:
            return slots[path]
        path = path.rpartition("/")[0]
    return None


class SlotPaths:
    """Which slot a QOM path belongs to, by the last look; before the first one, by the names that CPUs get."""

    def __init__(self, naming: Naming = OURS) -> None:
        self.naming = naming
        self._slots: dict[str, int] = {}

    def note(self, slots: Iterable[Slot]) -> None:
        """Take what QEMU has just shown. What a slot had before is remembered: an event may tell of it late."""
        self._slots.update((slot.path, slot.index) for slot in slots if slot.path is not None)

    def at(self, path: str) -> int | None:
        """Return the slot whose CPU is at this very path; None if it is no CPU's."""
        return self._slots.get(path, self.naming.slot_of(path))

    def above(self, path: str) -> int | None:
        """Return the slot whose CPU is at this path or above it."""
        found = owner_of(path, self._slots)
        return self.naming.slot_of("/".join(path.split("/")[:4])) if found is None else found
