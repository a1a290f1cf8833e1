# SPDX-License-Identifier: Apache-2.0
"""What an operation asks of QEMU goes on record first, and waits here until it is (``core.operation.record``).

Writing may take long: with libvirt it waits for whoever keeps the domain busy, for up to 30 s. The operation goes on
meanwhile, so that its time and Ctrl-C are heard. What was not sent by then is not sent at all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from .. import ports
from ..core.intent import Intent, IntentKind
from ..core.model import HostView
from ..core.operation import record
from ..core.operation.events import DoPlug, DoUnplug
from ..core.operation.result import OperationResult
from ..core.reason import Reason
from ..errors import RefusedError

Change = DoPlug | DoUnplug
#: How long the last word of an operation may take, in seconds. Without it the record keeps entries that are settled:
#: the next look sees that they are.
_LAST_WORD = 2.0


class Recording:
    """The record of one operation's VM.

    ``begin`` sends what is on record; ``refuse`` hears of what cannot be recorded, and is not sent, and why.
    """

    def __init__(
        self, journal: ports.Journal, begin: Callable[[Change], None], refuse: Callable[[Change, Reason], None]
    ) -> None:
        self._journal = journal
        self._begin = begin
        self._refuse = refuse
        self._intents: tuple[Intent, ...] = ()
        self._in_doubt = False  # a write was given up or failed: the record may be either
        self._waiting: list[Change] = []
        self._asked: set[int] = set()
        self._unsent: set[int] = set()  # removals that this operation has put on record, and not sent yet

    async def load(self) -> None:
        """Learn what is on record. Raise RefusedError."""
        self._intents = await self._journal.load()

    @property
    def waits(self) -> bool:
        """Whether anything waits to be put on record."""
        return bool(self._waiting)

    def add(self, changes: Sequence[Change]) -> None:
        """Take what is to be put on record, by ``write``, and then sent."""
        self._waiting += changes

    async def write(self, host: Callable[[], HostView]) -> None:
        """Put on record what waits, in turn, and send it; ``host`` is the last look at QEMU."""
        while self._waiting:
            changes = list(self._waiting)
            before = {intent.slot for intent in self._intents if intent.kind is IntentKind.UNPLUG}
            try:
                await self._save(record.before(self._intents, changes, host(), time.time()))
            except RefusedError as error:
                del self._waiting[: len(changes)]
                for change in changes:
                    self._refuse(change, error.reason)
                continue
            del self._waiting[: len(changes)]
            self._asked.update(change.slot for change in changes)
            self._unsent |= {change.slot for change in changes if isinstance(change, DoUnplug)} - before
            for change in changes:
                self._begin(change)

    def withdraw(self) -> list[Change]:
        """Return what still waits: it will not be sent. ``write`` has to be cancelled."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def sending(self, slot: int) -> bool:
        """Take that the slot's removal goes out now.

        Return whether none that this operation has put on record has before.
        """
        first = slot in self._unsent
        self._unsent.discard(slot)
        return first

    def held_up(self, slot: int, *, first: bool) -> None:
        """Take that it was too late to be sent; ``first`` is what ``sending`` said."""
        if first:
            self._unsent.add(slot)

    async def end(self, result: OperationResult, host: HostView) -> None:
        """Strike out what the operation has seen to its end, if that can be done in a moment."""
        with suppress(RefusedError, TimeoutError):
            async with asyncio.timeout(_LAST_WORD):
                await self._save(record.after(self._intents, result, self._asked, host, self._unsent))

    async def _save(self, intents: tuple[Intent, ...]) -> None:
        if intents == self._intents and not self._in_doubt:
            return
        self._in_doubt = True
        await self._journal.save(intents)
        self._intents, self._in_doubt = intents, False
