# SPDX-License-Identifier: Apache-2.0
"""Rules by which a test makes the fake misbehave: at a place, do something, so many times.

Places: ``before:COMMAND`` (not executed yet), ``after:COMMAND`` (executed, not answered yet), ``guest:insert`` and
``guest:eject`` (the guest was told), ``event:NAME``. What can be done there:

==================  ==========================================================================================
before:, after:     ``delay`` (seconds), ``hold`` (until released), ``die``, ``close`` (the client's connection),
                    ``fail`` (class, desc), ``mute`` (never answer), ``nameless`` (answer without the id),
                    ``error`` (desc: an error without the id), ``flood`` (answer with a line of so many bytes)
guest:              ``delay``, ``hold``, ``die``, ``refuse`` (status: what _OST reports), ``linger`` (ejected, the vCPU
                    stays in query-cpus-fast until released)
event:              ``drop``, ``duplicate``
==================  ==========================================================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_COMMAND = frozenset({"delay", "hold", "die", "close", "fail", "mute", "nameless", "error", "flood"})
#: What may be done at each kind of place.
DEEDS: Mapping[str, frozenset[str]] = {
    "before": _COMMAND,
    "after": _COMMAND,
    "guest": frozenset({"delay", "hold", "die", "refuse", "linger"}),
    "event": frozenset({"drop", "duplicate"}),
}


@dataclass
class Rule:
    """``times`` None means always; ``slot`` None means any; ``hits`` counts how often it applied."""

    at: str
    do: str
    times: int | None = 1
    slot: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    hits: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)
    hit: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        if self.do not in DEEDS.get(self.at.partition(":")[0], frozenset()):
            raise ValueError(f"{self.do!r} cannot be done at {self.at!r}")


class Faults:
    """The rules in force, oldest first."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []

    def add(self, rule: Rule) -> int:
        """Put a rule in force; its number is for ``release``."""
        self.rules.append(rule)
        return len(self.rules) - 1

    def clear(self) -> None:
        """No rule applies any more; what is held goes on."""
        for rule in self.rules:
            rule.times = 0
            rule.released.set()

    def _matching(self, at: str, slot: int | None) -> Iterator[Rule]:
        for rule in self.rules:
            if rule.at == at and rule.times != 0 and (rule.slot is None or rule.slot == slot):
                yield rule

    def take(self, at: str, slot: int | None = None) -> Rule | None:
        """The first rule for this place, which is used up by one."""
        for rule in self._matching(at, slot):
            if rule.times is not None:
                rule.times -= 1
            rule.hits += 1
            rule.hit.set()
            return rule
        return None

    async def meet(self, at: str, slot: int | None = None) -> Rule | None:
        """Like :meth:`take`, having waited as ``delay`` or ``hold`` says."""
        rule = self.take(at, slot)
        if rule is not None and rule.do == "delay":
            await asyncio.sleep(float(rule.params.get("seconds", 0)))
        elif rule is not None and rule.do == "hold":
            await rule.released.wait()
        return rule
