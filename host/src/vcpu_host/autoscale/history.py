# SPDX-License-Identifier: Apache-2.0
"""The decisions that differ from the one before, newest last: what ``vcpuctl autoscale history`` shows."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from heapq import merge

from ..core.reason import Outcome
from .decision import Decision, Direction

#: So many are kept for each VM, of those that were carried out and of the others.
MOST = 200
#: A decision that is not carried out is told again after so many seconds: load that sways makes it come and go.
AGAIN = 60.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A decision, and what became of it: ``outcome`` is None if it was not carried out, or is under way.

    ``time`` is in seconds since 1970. ``acted`` says whether it was carried out, or was to be.
    """

    time: float
    decision: Decision
    acted: bool = False
    outcome: Outcome | None = None
    elapsed: float | None = None
    words: str = ""


class History:
    """The newest decisions of one VM."""

    def __init__(self) -> None:
        self._acted: deque[Entry] = deque(maxlen=MOST)
        self._told: deque[Entry] = deque(maxlen=MOST)
        self._last: Decision | None = None
        self._told_at: dict[tuple[Direction, str], float] = {}

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All that are kept, the newest last."""
        return tuple(merge(self._acted, self._told, key=lambda entry: entry.time))

    def take(self, decision: Decision, time: float, *, acted: bool) -> Entry | None:
        """Keep a decision, and return its entry, if it says something else than those before it.

        One that is carried out (``acted``) always does.
        """
        last, self._last = self._last, decision
        entry = Entry(time, decision, acted)
        if acted:
            self._acted.append(entry)
            return entry
        kind = decision.direction, decision.code
        same = last is not None and (last.direction, last.code, last.goal) == (*kind, decision.goal)
        if same or 0 <= time - self._told_at.get(kind, -AGAIN) < AGAIN:
            return None
        self._told_at[kind] = time
        self._told.append(entry)
        return entry

    def ended(self, outcome: Outcome, elapsed: float, words: str) -> None:
        """Take how the newest decision that was carried out has ended."""
        if self._acted and self._acted[-1].outcome is None:
            self._acted[-1] = replace(self._acted[-1], outcome=outcome, elapsed=elapsed, words=words)
