# SPDX-License-Identifier: Apache-2.0
"""One call of another process, from its message to the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..documents import Document
from ..errors import VcpuctlError
from . import fault, wire
from .answers import Say
from .calls import Call, Kind
from .shown import once
from .telling import Teller, answer_line
from .unread import Unread

#: Answers one call of another process.
Answer = Callable[[Call, Say], Awaitable[Document]]

#: Seconds in which a program that has connected has to say what it wants.
PATIENCE = 5.0


async def first_message(reader: asyncio.StreamReader, begun: bytes = b"") -> wire.Message | None:
    """Return what the other process wants; None if it does not say so in time. ``begun`` was read of it already."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await wire.receive(reader, begun)
    except TimeoutError:
        return None


class Conversation:
    """One program that has connected, by the kernel's word of the user with the id ``user``.

    ``unread`` bounds what all such programs may leave unread. ``name`` is what the log knows by which VM it is about.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: int, unread: Unread, name: str
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._user = user
        self._unread = unread
        self._name = name

    async def answer_one(self, message: wire.Message, answer: Answer, interrupt: Callable[[], None]) -> None:
        """Answer the call in ``message``. A caller that goes away ends its question; of an operation, the wait."""
        teller = Teller(self._writer, self._unread, self._user)
        try:
            teller.say({"heard": True})  # the answer may take long: who asks learns that somebody is at it
            changes = message.get("call") == Kind.RUN
            line = await self._line(message, teller.say, answer, interrupt, changes=changes)
            await (teller.last_words(line) if changes else teller.answer(line))
        finally:
            await teller.close()

    async def _line(
        self, message: wire.Message, say: Say, answer: Answer, interrupt: Callable[[], None], *, changes: bool
    ) -> bytes:
        try:
            document = await _answered(Call.from_json(message), say, self._reader, answer, interrupt)
            return once(document, answer_line)
        except VcpuctlError as error:
            return wire.line(wire.of_error(error))
        except Exception as error:  # noqa: BLE001 - who is cut off would not know why, nor what became of the VM
            return wire.line(wire.of_error(fault.met(self._name, error, changes=changes)))


async def _answered(
    call: Call, say: Say, reader: asyncio.StreamReader, answer: Answer, interrupt: Callable[[], None]
) -> Document:
    work = asyncio.ensure_future(answer(call, say))
    # It has gone, or says that it waits no longer.
    gone = asyncio.ensure_future(wire.receive(reader))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done() and call.changes:
            interrupt()
            await asyncio.wait({work})
        if work.done():
            return work.result()
        raise asyncio.CancelledError
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)
