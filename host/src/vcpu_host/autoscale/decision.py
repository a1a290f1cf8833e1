# SPDX-License-Identifier: Apache-2.0
"""What was decided, from what, and which rules had a say: so that it can be explained."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from .window import Averages


class Verdict(StrEnum):
    """What a rule says of a change: let it be, bound it, or forbid it."""

    PASSES = "passes"
    BOUNDS = "bounds"
    HOLDS = "holds"


class Direction(StrEnum):
    """Where to."""

    UP = "up"
    DOWN = "down"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Check:
    """One rule that was asked: its code (``core.codes``), and its words with the figures that it went by."""

    code: str
    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True)
class Decision:
    """A goal, or a hold: then ``goal`` is ``online``, or what is there already. ``checks`` are in their order.

    ``load`` is what the guest said, averaged; ``need`` how many vCPUs that takes now, ``highest`` how many it took at
    most within the window for shrinking. None is not known. The last check is the one that decided.
    """

    at: float
    online: int
    goal: int
    floor: int
    ceiling: int
    checks: tuple[Check, ...]
    load: Averages | None = None
    need: int | None = None
    highest: int | None = None
    wanted: int | None = None

    @property
    def direction(self) -> Direction:
        """Whether the VM is to grow or to shrink."""
        if self.goal == self.online:
            return Direction.HOLD
        return Direction.UP if self.goal > self.online else Direction.DOWN

    @property
    def code(self) -> str:
        """The code of the rule that decided."""
        return self.checks[-1].code

    @property
    def text(self) -> str:
        """The words of the rule that decided."""
        return self.checks[-1].text

    def to_json(self, now: float) -> dict[str, Any]:
        """Return it as a document has it; its time is told as its age at ``now``."""
        return {
            "age": max(0.0, now - self.at),
            "direction": str(self.direction),
            "online": self.online,
            "goal": self.goal,
            "wanted": self.wanted,
            "code": str(self.code),
            "text": self.text,
            "min": self.floor,
            "max": self.ceiling,
            "need": self.need,
            "highest_need": self.highest,
            "load": None if self.load is None else asdict(self.load),
            "checks": [
                {"code": str(each.code), "verdict": str(each.verdict), "text": each.text} for each in self.checks
            ],
        }
