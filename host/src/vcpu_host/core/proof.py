# SPDX-License-Identifier: Apache-2.0
"""What counts as a proof, and what was once taken for one and is none (promises 1 and 2).

- *Absence proves nothing by itself.* A CPU that the guest does not show is not there only if every CPU that it does
  show is one of a slot's: one that no slot explains may be the very CPU that is missed, under another name
  (:func:`unexplained`, :func:`proves_absence`).
- *Silence proves nothing.* A guest that has not told of a CPU may be busy with another one. Only its list, asked for
  after the time was up, shows that a CPU is not there.
- *A confirmation grows old.* What was offline a while ago may be online again: something in the guest may bring it
  back. It allows a ``device_del`` only for a moment (:class:`SeenDown`).
- *What was said of a CPU does not hold for the next one* in its slot, although that one has its name (``Job.is_out``).
- *A CPU on its way up is not offline,* although the guest's list may still say so (:func:`is_being_switched`).

Everything else in the core asks here, so that there is one place to get each of them wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import inf

from . import codes
from .guest import GuestCpu
from .reason import Origin, Reason


def unexplained(cpus: Iterable[GuestCpu], identities: Collection[str]) -> tuple[GuestCpu, ...]:
    """Return the guest CPUs whose firmware identity is no slot's.

    ``identities`` are those of all slots, empty ones too. A CPU without an identity is one of them: for a moment after
    its arrival the kernel shows none (the link to its firmware object comes after the CPU itself; drivers/acpi/glue.c,
    acpi_bind_one).
    """
    return tuple(cpu for cpu in cpus if cpu.firmware_id not in identities)


def proves_absence(cpus: Iterable[GuestCpu], identities: Collection[str]) -> bool:
    """Return whether a CPU that is not among these, all that the guest shows, is not there."""
    return not unexplained(cpus, identities)


def is_being_switched(cpu: GuestCpu) -> bool:
    """Return whether somebody in the guest is at work on the CPU: what it is now, it will not be in a moment.

    The kernel's list has a CPU that is being brought up among those that are offline, almost to the end of it.
    """
    return cpu.switching is not None


def is_at_rest(cpus: Iterable[GuestCpu]) -> bool:
    """Return whether nobody in the guest is at work on any of these.

    While one is switched, the kernel takes in no other (both take ``device_hotplug_lock``; drivers/base/core.c): what
    is missing then may be the next one.
    """
    return not any(map(is_being_switched, cpus))


#: How many looks in a row make up for a guest that is slow to answer each of them; the next one is asked for within so
#: many seconds, and takes no more than so many times as long.
_LOOKS_IN_A_ROW, _NEXT_WITHIN, _AS_SLOW = 3, 1.0, 3.0
#: The moment from an answer to what is done about it, in seconds: one turn of the loop, with room to spare.
_MOMENT = 0.02


@dataclass(slots=True)
class SeenDown:
    """When the guest last showed every thread of a slot offline. Times are in seconds, on one clock."""

    asked_at: float | None = None  # when the question was asked whose answer shows it
    told_at: float = 0.0
    in_a_row: int = 0  # of the looks that were answered slowly, those that followed upon each other

    def shown(self, asked_at: float, now: float, limit: float) -> None:
        """Take that an answer shows it, which came within ``limit`` seconds or later."""
        took = now - asked_at
        if took <= limit:
            self.in_a_row = 0
        elif self._goes_on(asked_at, took):
            self.in_a_row += 1
        else:
            self.in_a_row = 1
        self.asked_at, self.told_at = asked_at, now

    def _goes_on(self, asked_at: float, took: float) -> bool:
        if self.asked_at is None or self.in_a_row == 0 or asked_at - self.told_at > _NEXT_WITHIN:
            return False
        return took <= _AS_SLOW * (self.told_at - self.asked_at)

    def forget(self) -> None:
        """Forget it: it is not so any more, or nobody knows."""
        self.asked_at, self.in_a_row = None, 0

    def is_fresh(self, now: float, limit: float) -> bool:
        """Return whether that may be acted on now.

        The guest read its state after the question, so no more than ``limit`` seconds may have passed since that. A
        guest that takes longer to answer has to show it several times, one after the other, and what is done follows
        the last answer at once: nothing newer can be had.
        """
        return now <= self.holds_until(limit)

    def holds_until(self, limit: float) -> float:
        """Return until when it may be acted on; see ``is_fresh``."""
        if self.asked_at is None:
            return -inf
        in_a_row = self.told_at + _MOMENT if self.in_a_row >= _LOOKS_IN_A_ROW else -inf
        return max(self.asked_at + limit, in_a_row)


def no_slot_explains(cpus: Sequence[GuestCpu]) -> Reason:
    """Return why nothing can be said of CPUs that are missed while the guest shows these."""
    named = [f"cpu{cpu.number} ({cpu.firmware_id or 'no firmware name'})" for cpu in cpus[:4]]
    names = ", ".join(named) + (f" and {len(cpus) - 4} more" if len(cpus) > 4 else "")
    return Reason(
        codes.UNEXPLAINED_CPUS,
        Origin.GUEST,
        f"the guest shows CPUs that no slot of QEMU explains: {names}; so it cannot be told which CPU is which, nor "
        "whether one is missing",
        "if they have firmware names, this vcpuctl does not know the machine type's: choose a newer type (q35, pc), or "
        "resize by hand",
    )
