# SPDX-License-Identifier: Apache-2.0
"""Finds events of ACPI that are pending and that the kernel does not handle: it hears of no CPU that comes or goes.

QEMU tells a pc or q35 guest of CPUs by a general purpose event (GPE), which interrupts it (SCI). If the chipset's
ports are gone, no SCI comes any more, and whoever reads the ports sees every event pending (seen after a wake from S3,
on q35 of QEMU 10.0 with SeaBIOS). The kernel shows each GPE in /sys/firmware/acpi/interrupts (drivers/acpi/sysfs.c,
counter_show), with the registers as they are at that moment:

           0  EN STS enabled      unmasked

The SCI is a level: while one GPE is enabled and pending, it interrupts. A kernel that hears it switches that GPE off
before it does anything else (drivers/acpi/acpica/evgpe.c, acpi_ev_gpe_dispatch), and counts both. So any GPE tells of
all, and it need not be known which one the firmware uses for CPUs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from vcpu_guest.kernel.sysfs import Sysfs

#: Seconds between readings, and how many follow the first. A busy host may keep from the CPU that is to be interrupted
#: for some hundred milliseconds, and from the others not.
PAUSE, _READINGS = 0.1, 10

_EVENTS = "firmware/acpi/interrupts"
#: What stands behind the count while an event is pending that the kernel wants.
_PENDING = ["EN", "STS", "enabled", "unmasked"]
#: A GPE for which the firmware has no method and no driver a handler.
_NOBODYS = "invalid"

#: How often each was handled, by its number.
_Counts = dict[int, int]


class Gpes:
    """Looks for such events. At rest that is one short reading for each event that the firmware has."""

    def __init__(self, sysfs: Sysfs, pause: Callable[[float], None] = time.sleep) -> None:
        self._sysfs = sysfs
        self._pause = pause
        #: Those that the firmware has; None: not looked yet. It has them from the kernel's start on.
        self._numbers: tuple[int, ...] | None = None
        #: What was found last: the count of interrupts, and the events.
        self._found: tuple[int, _Counts] | None = None

    def __call__(self) -> tuple[int, ...]:
        """Return the numbers of the events that stay pending while nothing is handled. May block for a second then."""
        pending = self._pending(self._all())
        handled = self._count("sci") if pending else None
        if handled is None:
            self._found = None
            return ()
        readings = 1 if self._found == (handled, pending) else _READINGS
        self._found = None
        for _ in range(readings):
            self._pause(PAUSE)
            now = self._pending(pending)
            pending = {number: count for number, count in pending.items() if now.get(number) == count}
            if not pending or self._count("sci") != handled:
                return ()
        self._found = (handled, pending)
        return tuple(sorted(pending))

    def _all(self) -> tuple[int, ...]:
        if self._numbers is None:
            names = self._sysfs.files_in(_EVENTS)
            numbers = sorted(int(name[3:], 16) for name in names if name[:3] == "gpe" and _is_hex(name[3:]))
            self._numbers = tuple(number for number in numbers if _NOBODYS not in self._words(_name(number)))
        return self._numbers

    def _pending(self, numbers: Iterable[int]) -> _Counts:
        found = {}
        for number in numbers:
            words = self._words(_name(number))
            if words[1:] == _PENDING and words[0].isdecimal():
                found[number] = int(words[0])
        return found

    def _count(self, name: str) -> int | None:
        words = self._words(name)
        return int(words[0]) if words and words[0].isdecimal() else None

    def _words(self, name: str) -> list[str]:
        try:
            return (self._sysfs.read(f"{_EVENTS}/{name}") or "").split()
        except OSError:  # what cannot be read proves nothing
            return []


def _name(number: int) -> str:
    return f"gpe{number:02X}"


def _is_hex(text: str) -> bool:
    return 0 < len(text) <= 4 and all(each in "0123456789ABCDEF" for each in text)
