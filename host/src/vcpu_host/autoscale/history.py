# SPDX-License-Identifier: Apache-2.0
"""The decisions that differ from the one before, newest last: what ``vcpuctl autoscale history`` shows."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from ..core.reason import Outcome
from .decision import Decision, Direction

#: So many are kept for each VM.
MOST = 200


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
        self._entries: deque[Entry] = deque(maxlen=MOST)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All that are kept, the newest last."""
        return tuple(self._entries)

    def take(self, decision: Decision, time: float, *, acted: bool) -> Entry | None:
        """Keep a decision, and return its entry, if it says something else than the one before."""
        last = self._entries[-1].decision if self._entries else None
        if last is not None and not acted and _says(last) == _says(decision):
            return None
        entry = Entry(time, decision, acted)
        self._entries.append(entry)
        return entry

    def ended(self, outcome: Outcome, elapsed: float, words: str) -> None:
        """Take how the newest decision that was carried out has ended."""
        for index in range(len(self._entries) - 1, -1, -1):
            entry = self._entries[index]
            if entry.acted and entry.outcome is None:
                self._entries[index] = replace(entry, outcome=outcome, elapsed=elapsed, words=words)
                return


def _says(decision: Decision) -> tuple[Direction, int, str]:
    return decision.direction, decision.goal, decision.code
