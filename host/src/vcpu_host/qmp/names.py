# SPDX-License-Identifier: Apache-2.0
"""How QEMU calls CPUs: ids, places in the QOM tree, and the id that vcpuctl gives the CPU of a slot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..core.model import Slot

#: Where QEMU keeps devices that were given an id (qdev_set_id, system/qdev-monitor.c).
PERIPHERAL = "/machine/peripheral/"
#: Where the CPUs of -smp are, which nobody has given a place (hw/core/qdev.c, device_set_realized).
AT_START = "/machine/unattached/"
#: What the device ids begin with that vcpuctl gives.
_OURS = "vcpu-"


def slot_id(index: int) -> str:
    """The device id of a slot. It follows from the slot alone, so any run on any host finds the same one again."""
    return f"{_OURS}{index}"


def device_id(path: str) -> str | None:
    """The id of the device at this QOM path; None if it has none, as the CPUs of -smp."""
    return path.removeprefix(PERIPHERAL) if path.startswith(PERIPHERAL) else None


def is_at_start(path: str) -> bool:
    """Whether the CPU at this QOM path was there when the VM was started."""
    return path.startswith(AT_START)


def owner_of(path: str, slots: Mapping[str, int]) -> int | None:
    """The slot whose object is at ``path`` or above it: a pseries thread is a child of its core."""
    while path:
        if path in slots:
            return slots[path]
        path = path.rpartition("/")[0]
    return None


class SlotPaths:
    """Which slot a QOM path belongs to, by the last look; by our own ids before the first one."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}

    def note(self, slots: Iterable[Slot]) -> None:
        """QEMU has just shown these. What a slot had before is remembered: an event may tell of it late."""
        self._slots.update((slot.path, slot.index) for slot in slots if slot.path is not None)

    def at(self, path: str) -> int | None:
        """The slot whose CPU is at this very path; None if it is no CPU's."""
        return self._slots.get(path, _by_our_id(path))

    def above(self, path: str) -> int | None:
        """The slot whose CPU is at this path or above it."""
        found = owner_of(path, self._slots)
        return _by_our_id("/".join(path.split("/")[:4])) if found is None else found


def _by_our_id(path: str) -> int | None:
    """The slot that a CPU with this path is of if vcpuctl has plugged it."""
    number = (device_id(path) or "").removeprefix(_OURS)
    ours = number.isascii() and number.isdecimal() and path == PERIPHERAL + slot_id(int(number))
    return int(number) if ours else None
