# SPDX-License-Identifier: Apache-2.0
"""The document about VMs whose vCPUs follow the guest's load: what is decided, from what, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import Document, of_reason

if TYPE_CHECKING:
    from ..autoscale.decision import Decision
    from ..autoscale.history import Entry
    from ..autoscale.settings import Settings
    from ..core.guest import LoadSupport
    from ..core.reason import Reason


def of_autoscaler(
    settings: Settings,
    decision: Decision,
    entries: Sequence[Entry],
    *,
    enabled: bool,
    support: LoadSupport | None,
    now: float,
) -> Document:
    """Return how the autoscaling of one VM stands; ``now`` is of the decision's clock."""
    from ..autoscale.settings import to_json

    return {
        "mode": str(settings.mode),
        "enabled": enabled,
        "decision": decision.to_json(now),
        "guest": None if support is None else support._asdict(),
        "settings": to_json(settings),
        "history": [_of_entry(entry) for entry in entries],
    }


def _of_entry(entry: Entry) -> Document:
    decision = entry.decision
    return {
        "time": entry.time,
        "direction": str(decision.direction),
        "online": decision.online,
        "goal": decision.goal,
        "code": str(decision.code),
        "text": decision.text,
        "acted": entry.acted,
        "outcome": None if entry.outcome is None else str(entry.outcome),
        "elapsed": entry.elapsed,
        "words": entry.words,
    }


def of_autoscale(vms: Sequence[tuple[str, Document | Reason]]) -> Document:
    """Return how the autoscaling of these VMs stands, each by its name, or why that is not known."""
    return {
        "vms": [
            {"name": name, "error": None, **found}
            if isinstance(found, dict)
            else {"name": name, "error": of_reason(found)}
            for name, found in vms
        ]
    }
