# SPDX-License-Identifier: Apache-2.0
"""What a run has come to so far, and how it stands in ``build/chaos.json``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Agent:
    """One process of vcpud at the end of a turn's faults: ``process`` tells it from all others of the run."""

    process: tuple[int, ...]
    turn: int
    rss_kb: int
    descriptors: int


@dataclass
class Report:
    """The counts of a run."""

    operations: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    violations: list[dict[str, Any]] = field(default_factory=list)
    environment: list[dict[str, Any]] = field(default_factory=list)
    restores: int = 0
    agents: list[Agent] = field(default_factory=list)
    #: Seconds by what they went into.
    spent: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def spending(self, what: str) -> Iterator[None]:
        """Count the time of the block."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.spent[what] += time.monotonic() - began  # type: ignore[assignment]

    def by_process(self) -> list[list[Agent]]:
        """The looks at vcpud, those at one process together."""
        found: dict[tuple[int, ...], list[Agent]] = {}
        for agent in self.agents:
            found.setdefault(agent.process, []).append(agent)
        return list(found.values())


def document(about: Mapping[str, Any], report: Report, seconds: float) -> dict[str, Any]:
    """The report. ``about``: which run it is."""
    return {
        "schema_version": SCHEMA_VERSION,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **about,
        "operations": report.operations,
        "outcomes": dict(report.outcomes),
        "faults": dict(report.faults),
        "violations": report.violations,
        "environment": report.environment,
        "restores": report.restores,
        "agents": [_process(looks) for looks in report.by_process()],
        "seconds": round(seconds, 1),
        "spent": {what: round(share, 1) for what, share in report.spent.most_common()},
    }


def _process(looks: list[Agent]) -> dict[str, Any]:
    """One process of vcpud: the turns that it lived in, and what it held at the first look, at the last, at most."""

    def span(values: list[int]) -> list[int]:
        return [values[0], values[-1], max(values)]

    return {
        "turns": [looks[0].turn, looks[-1].turn],
        "rss_kb": span([look.rss_kb for look in looks]),
        "descriptors": span([look.descriptors for look in looks]),
    }
