# SPDX-License-Identifier: Apache-2.0
"""When to look: at QEMU's slots, and at the guest's list of CPUs. Times are the machine's ``now``, in seconds.

A look under way is not asked for a second time. Each class knows when the next one is due and nothing of what it shows.
"""

from __future__ import annotations

from .limits import Limits


class HostLook:
    """The looks at QEMU: at once where something hints at a change, else one after each interval.

    The interval is ``limits.poll_idle``. While a removal is awaited it grows from ``poll_first`` to ``poll_most``.
    """

    __slots__ = ("_asked_at", "_interval", "_limits", "_next_at", "_under_way", "_wanted")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._interval = limits.poll_first
        self._asked_at = now
        self._next_at = now + limits.poll_idle
        self._wanted = False
        self._under_way = False

    @property
    def next_at(self) -> float | None:
        """When the next look is due if nothing happens, or None while one is under way."""
        return None if self._under_way else self._next_at

    def due(self, now: float) -> bool:
        """Return whether to ask now."""
        return not self._under_way and (self._wanted or now >= self._next_at)

    def want(self) -> None:
        """Ask for a look as soon as none is under way: it can settle something."""
        self._wanted = True

    def restart_interval(self) -> None:
        """Let the next looks follow each other closely again: a removal moves on."""
        self._interval = self._limits.poll_first

    def follow_removal(self, now: float) -> None:
        """Look after the shortest interval, and often from then on: a removal is under way in QEMU."""
        self.restart_interval()
        self._at_the_latest(now + self._interval, now)

    def follow_others(self, now: float) -> None:
        """Leave ``poll_most`` between two looks: one is to serve several slots."""
        self._at_the_latest(self._asked_at + self._limits.poll_most, now)

    def _at_the_latest(self, when: float, now: float) -> None:
        self._next_at = min(self._next_at, max(when, now))

    def asked(self, now: float, *, removing: bool) -> None:
        """Take that a look was asked for; ``removing`` says whether a removal is awaited."""
        if removing:
            self._next_at = now + self._interval
            self._interval = min(self._interval * 2, self._limits.poll_most)
        else:
            self._next_at = now + self._limits.poll_idle
        self._wanted = False
        self._under_way = True
        self._asked_at = now

    def ended(self) -> None:
        """Take that the answer came."""
        self._under_way = False

    @property
    def under_way(self) -> bool:
        """Whether the answer is awaited."""
        return self._under_way


class GuestLook:
    """The look at the guest's list: wanted, or under way, or neither. It belongs to one link session."""

    __slots__ = ("_not_before", "_under_way", "_wanted")

    def __init__(self) -> None:
        self._wanted = False
        self._under_way = False
        self._not_before = 0.0

    @property
    def next_at(self) -> float | None:
        """When a look that is wanted may be asked for, or None if none is wanted or one is under way."""
        return self._not_before if self._wanted and not self._under_way else None

    def due(self, now: float) -> bool:
        """Return whether to ask now."""
        return self._wanted and not self._under_way and now >= self._not_before

    def want(self) -> None:
        """Ask for a look: only the guest's list can tell what is to be known now."""
        self._wanted = True

    def asked(self) -> None:
        """Take that it was asked for."""
        self._wanted, self._under_way = False, True

    def ended(self) -> None:
        """Take that the answer came."""
        self._under_way = False

    def again(self, again_at: float) -> None:
        """Ask again then: the answer is not the last one needed, or there will be none."""
        self._wanted, self._under_way, self._not_before = True, False, again_at
