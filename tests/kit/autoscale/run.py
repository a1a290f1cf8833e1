# SPDX-License-Identifier: Apache-2.0
"""A rule against a trace, in simulated time, and what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median

from vcpu_host.autoscale.settings import Mode, Settings

from .guest import SimGuest
from .rules import RULES, Rule
from .traces import Trace

STEP = 0.25
#: What every rule gets.
SETTINGS = Settings(max=8, min=1, mode=Mode.ACT, boot_grace=0.0)


@dataclass
class Outcome:
    """What came of a rule under a trace. Times are in seconds; ``slack`` and ``lack`` in vCPU-seconds.

    ``slack`` is what was given and not used, ``lack`` what could have been given (within the maximum) and would have
    been used: the pressure that is left. ``enough`` are the times from a lack's beginning to its end.
    """

    rule: str
    trace: str
    seconds: float = 0.0
    slack: float = 0.0
    lack: float = 0.0
    used: float = 0.0
    resizes: int = 0
    turns: int = 0
    enough: list[float] = field(default_factory=list)
    #: For the plots: time, vCPUs, runnable tasks (at most the maximum).
    line: list[tuple[float, int, float]] = field(default_factory=list)

    @property
    def resizes_an_hour(self) -> float:
        """How often the VM was resized."""
        return self.resizes / self.seconds * 3600

    @property
    def turns_an_hour(self) -> float:
        """How often it changed its direction."""
        return self.turns / self.seconds * 3600

    @property
    def time_to_enough(self) -> tuple[float, float]:
        """The median and the longest time from a lack to its end; 0 if there was none."""
        return (median(self.enough), max(self.enough)) if self.enough else (0.0, 0.0)


def run(rule: Rule, trace: Trace, most: int = SETTINGS.max) -> Outcome:
    """Return what comes of it."""
    guest, found = SimGuest(), Outcome(rule.name, trace.name, trace.seconds)
    lacks_since: float | None = None
    had, way, shown = guest.vcpus, 0, -math.inf
    while guest.now < trace.seconds:
        guest.step(trace.at(guest.now), STEP)
        could = min(guest.runnable, float(most))
        found.slack += max(0.0, guest.vcpus - guest.runnable) * STEP
        found.lack += max(0.0, could - guest.vcpus) * STEP
        found.used += guest.used * STEP
        if could > guest.vcpus + 0.1:
            lacks_since = guest.now if lacks_since is None else lacks_since
        elif lacks_since is not None:
            found.enough.append(guest.now - lacks_since)
            lacks_since = None
        if guest.vcpus != had:
            now_way = 1 if guest.vcpus > had else -1
            found.resizes += 1
            found.turns += now_way == -way
            had, way = guest.vcpus, now_way
        if guest.now - shown >= trace.seconds / 1500:
            shown = guest.now
            found.line.append((guest.now, guest.vcpus, could))
        rule.look(guest)
    if lacks_since is not None:
        found.enough.append(guest.now - lacks_since)
    return found


def all_rules(trace: Trace) -> list[Outcome]:
    """Return what comes of each rule under this trace."""
    return [run(rule(SETTINGS), trace) for rule in RULES]
