# SPDX-License-Identifier: Apache-2.0
"""A record that others write, too, while this process does: of a domain of libvirt's, by vcpuctl on other hosts."""

from __future__ import annotations

from collections.abc import Sequence

from .. import ports
from ..core.intent import Intent
from ..core.operation import record


def for_one(journal: ports.Journal) -> ports.Journal:
    """Return the record as one operation keeps it."""
    return Shared(journal) if journal.shared else journal


class Shared:
    """One user's view of a record. What others have written since it was loaded is kept when it is saved.

    Nothing locks the record: who writes in the very moment between the reading and the writing is overwritten.
    """

    shared = True

    def __init__(self, journal: ports.Journal) -> None:
        self._journal = journal
        self._loaded: tuple[Intent, ...] = ()
        self._tried: set[Intent] = set()  # whether it was written is not known of a write that was given up

    async def load(self) -> tuple[Intent, ...]:
        """See ``ports.Journal``."""
        self._loaded = await self._journal.load()
        return self._loaded

    async def save(self, intents: Sequence[Intent]) -> None:
        """See ``ports.Journal``."""
        theirs = await self._journal.load()
        tried, self._tried = frozenset(self._tried), {*self._tried, *intents}
        await self._journal.save(record.merged(intents, self._loaded, tried, theirs))
