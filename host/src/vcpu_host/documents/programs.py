# SPDX-License-Identifier: Apache-2.0
"""The part of documents that is about the guest's programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..core.workload.model import Note, Who

#: The most notes of one document: no guest can make it longer.
MOST = 64


def of_notes(notes: Iterable[Note]) -> list[dict[str, Any]]:
    """Return what an operation does, or has done, to the guest's programs; those that hurt come first."""
    ordered = sorted(notes, key=lambda note: not note.hurts)
    return [_of_note(note) for note in ordered[:MOST]]


def _of_note(note: Note) -> dict[str, Any]:
    return {
        "level": str(note.level),
        "code": note.code,
        "what": note.text,
        "fix": note.hint,
        "slots": list(note.slots),
        "count": note.count,
        "who": [_of_who(who) for who in note.who],
    }


def _of_who(who: Who) -> dict[str, Any]:
    return {
        "pid": who.pid or None,
        "tid": who.tid or None,
        "comm": who.comm or None,
        "unit": who.unit or None,
        "cgroup": who.cgroup or None,
    }
