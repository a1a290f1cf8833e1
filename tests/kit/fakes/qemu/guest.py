# SPDX-License-Identifier: Apache-2.0
"""The guest's side of the fake machine: what an operating system does when its ACPI tells it of CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

#: Statuses of _OST for an eject request (Linux include/linux/acpi.h; drivers/acpi/scan.c).
OK, FAILED, DISABLED, BUSY, IN_PROGRESS = 0, 1, 128, 130, 132


class FakeGuest(Protocol):
    """One guest. Slots are possible_cpus indexes."""

    @property
    def deaf(self) -> bool:
        """Whether it gets no interrupt of ACPI's, and so hears of no CPU that comes or is to go."""

    async def boot(self, slots: Sequence[int]) -> None:
        """The operating system comes up and finds these CPUs; it starts all of them."""

    async def insert(self, slot: int) -> int:
        """A CPU was inserted; the return value is the status that the guest reports (0 even if it cannot use it)."""

    async def eject(self, slot: int) -> int:
        """A CPU is wanted back: take it offline and let go (0), or say why not."""

    async def removed(self, slot: int) -> None:
        """The CPU is gone (Linux since 6.11 drops its cpuN directory only now, after _EJ0)."""

    async def reset(self) -> None:
        """The machine was reset: nothing is left of the running system."""


class AutoGuest:
    """A guest that does at once what it is asked, as Linux does: inserted CPUs stay offline until told otherwise."""

    def __init__(self) -> None:
        self.online: dict[int, bool] = {}
        self.boots = 0
        self.deaf = False

    async def boot(self, slots: Sequence[int]) -> None:
        """All CPUs that are there at boot are started."""
        self.boots += 1
        self.online = dict.fromkeys(slots, True)

    async def insert(self, slot: int) -> int:
        """Present, not online."""
        self.online[slot] = False
        return OK

    async def eject(self, slot: int) -> int:
        """Linux takes the CPU offline by itself (acpi_scan_try_to_offline), and refuses only for its last one."""
        if self.online.get(slot) and sum(self.online.values()) == 1:
            return BUSY
        self.online[slot] = False
        return OK

    async def removed(self, slot: int) -> None:
        """Forget it."""
        self.online.pop(slot, None)

    async def reset(self) -> None:
        """Nothing runs."""
        self.online = {}
