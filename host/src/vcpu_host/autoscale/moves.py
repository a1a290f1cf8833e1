# SPDX-License-Identifier: Apache-2.0
"""What was done to the VM, by the loop and by others, and how long each of that holds the next change off."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from ..core.reason import Outcome, Reason
from .decision import Direction
from .settings import Settings

#: After a change that did not succeed the next one in its direction waits so many seconds, twice as many after each
#: further one, and at most so many.
BACK_OFF, LONGEST_BACK_OFF = 5.0, 600.0
#: After an outcome that is not known, so many seconds pass before the VM's record is believed to be settled.
SETTLES = 10.0
#: So many changes of direction within an hour are too many.
MOST_TURNS = 20
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Move:
    """A change by the loop: from so many vCPUs to so many. ``ended`` is None while it is under way."""

    before: int
    goal: int
    begun: float
    ended: float | None = None

    @property
    def direction(self) -> Direction:
        """Where to."""
        return Direction.UP if self.goal > self.before else Direction.DOWN

    def age(self, now: float) -> float:
        """Return how long ago it ended, in seconds; 0 while it is under way."""
        return 0.0 if self.ended is None else max(0.0, now - self.ended)


@dataclass(frozen=True, slots=True)
class BackOff:
    """Until when a direction waits, after so many attempts in a row, and why the last one did not succeed."""

    until: float
    attempts: int
    why: Reason | None


@dataclass(frozen=True, slots=True)
class Bar:
    """The VM does not shrink below ``level`` vCPUs until then."""

    level: int
    until: float


class Moves:
    """The changes of one VM."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.last: Move | None = None
        self.under_way: Move | None = None
        self.operator_until = -math.inf
        self.unknown_until = -math.inf
        self.bar: Bar | None = None
        self._regrets = 0
        self._turns: deque[float] = deque(maxlen=MOST_TURNS)
        self._back_off: dict[Direction, BackOff] = {}

    def begun(self, before: int, goal: int, now: float) -> None:
        """Take that the loop begins to change the VM."""
        self.under_way = Move(before, goal, now)

    def ended(self, outcome: Outcome, why: Reason | None, now: float) -> None:
        """Take how that ended."""
        move, self.under_way = self.under_way, None
        if move is None:
            return
        direction = move.direction
        if outcome is Outcome.DONE:
            self._back_off.pop(direction, None)
        else:
            if outcome is Outcome.UNKNOWN:
                self.unknown_until = now + SETTLES
            known = self._back_off.get(direction)
            attempts = 1 if known is None else known.attempts + 1
            wait = min(LONGEST_BACK_OFF, BACK_OFF * 2 ** min(attempts - 1, 16))
            self._back_off[direction] = BackOff(now + wait, attempts, why)
        if outcome is not Outcome.REFUSED:  # a refusal has changed nothing
            self._moved(Move(move.before, move.goal, move.begun, now))

    def _moved(self, move: Move) -> None:
        last, self.last = self.last, move
        if last is None or last.direction is move.direction:
            return
        self._turns.append(move.begun)
        if move.direction is Direction.UP:
            self._look_back(last, move)

    def _look_back(self, shrank: Move, grew: Move) -> None:
        """Hold a VM that grows right after it shrank, which it should not have, above that: for longer each time."""
        window = self.settings.down_window
        if grew.begun - (shrank.ended or grew.begun) > 2 * window:
            self._regrets, self.bar = 0, None
            return
        self._regrets += 1
        held = min(max(HOUR, window), window * 2 ** min(self._regrets, 16))
        self.bar = Bar(shrank.goal + 1, (grew.ended or grew.begun) + held)

    def operated(self, now: float) -> None:
        """Take that somebody else changes the VM: the load that was seen before decides nothing of it."""
        self.operator_until = now + self.settings.operator_hold

    def free(self) -> None:
        """Let the loop decide, whatever somebody did before, and try again what did not succeed."""
        self.operator_until = -math.inf
        self.bar = None
        self._back_off.clear()
        self._turns.clear()

    def backs_off(self, direction: Direction, now: float) -> BackOff | None:
        """Return why this direction waits now; None if it does not."""
        known = self._back_off.get(direction)
        return known if known is not None and now < known.until else None

    def oscillates(self, now: float) -> bool:
        """Return whether the VM changed its direction too often."""
        return len(self._turns) == MOST_TURNS and now - self._turns[0] < HOUR
