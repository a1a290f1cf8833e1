# SPDX-License-Identifier: Apache-2.0
"""One call of another process, from its message to the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from ..documents import Document
from ..errors import VcpuctlError
from . import fault, wire
from .answers import Say
from .calls import Call, Kind

#: Answers one call of another process.
Answer = Callable[[Call, Say], Awaitable[Document]]

#: Seconds in which a program that has connected has to say what it wants, and to take what it is told.
PATIENCE = 5.0
#: Bytes that a program may leave unread before it is cut off; a map of 4096 slots is smaller.
_UNREAD = 8 << 20


async def first_message(reader: asyncio.StreamReader, begun: bytes = b"") -> wire.Message | None:
    """Return what the other process wants; None if it does not say so in time. ``begun`` was read of it already."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await wire.receive(reader, begun)
    except TimeoutError:
        return None


async def answer_one(
    message: wire.Message,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    answer: Answer,
    interrupt: Callable[[], None],
    name: str,
) -> None:
    """Answer the call in ``message``. A caller that goes away ends its question; of an operation, it ends the wait.

    ``name`` is what the log knows by which VM it is about.
    """
    writer.transport.set_write_buffer_limits(_UNREAD)
    writer.write(wire.line({"heard": True}))  # the answer may take long: who asks learns that somebody is at it

    def say(told: wire.Message) -> None:
        if writer.transport.get_write_buffer_size() > _UNREAD:
            writer.transport.abort()  # it does not read
        else:
            writer.write(wire.line(told))

    changes = message.get("call") == Kind.RUN
    try:
        answered: wire.Message = {"answer": await _answered(Call.from_json(message), say, reader, answer, interrupt)}
    except VcpuctlError as error:
        answered = wire.of_error(error)
    except Exception as error:  # noqa: BLE001 - who is cut off would not know why, nor what became of the VM
        answered = wire.of_error(fault.met(name, error, changes=changes))
    writer.write(wire.line(answered))
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await writer.drain()


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
