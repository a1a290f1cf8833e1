# SPDX-License-Identifier: Apache-2.0
"""Telling one program, by lines, what it is to know: as fast as it reads, and of views the newest only."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from functools import partial

from ..documents import Document
from . import wire
from .shown import once
from .unread import Room, Unread

#: Bytes that are handed on at a time, and that may lie in the connection's own buffer.
_PIECE = 32 << 10
#: Bytes of messages, beside views, that a program may leave unread before it is cut off: an operation's log has many.
_UNREAD = 4 << 20
#: Seconds in which an operation's caller may take more than that.
_PATIENCE = 5.0


class Teller:
    """Sends messages in the order in which they were said. A view that was not sent yet gives way to a newer one."""

    def __init__(self, writer: asyncio.StreamWriter, unread: Unread, user: int) -> None:
        self._writer = writer
        self._unread = unread
        self._user = user
        self._lines: deque[bytes] = deque()
        self._size = 0  # of the lines
        self._view: Document | None = None
        self._something = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        writer.transport.set_write_buffer_limits(_PIECE)
        self._sending = asyncio.ensure_future(self._send())

    def say(self, message: wire.Message) -> None:
        """Have the message sent. Who leaves too much of what cannot be left out is cut off."""
        if "view" in message:
            self._view = message["view"]
        else:
            self._lines.append(wire.line(message))
            self._size += len(self._lines[-1])
            if self._size > _UNREAD and len(self._lines) > 1:
                self._writer.transport.abort()  # it does not read
        self._idle.clear()
        self._something.set()

    async def sent(self) -> None:
        """Return when all was handed on, or the program has gone."""
        idle = asyncio.ensure_future(self._idle.wait())
        try:
            await asyncio.wait({idle, self._sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            idle.cancel()

    async def answer(self, line: bytes) -> None:
        """Send the last line, of a question: after all else, and when there is room for it."""
        await self.sent()
        with suppress(OSError):
            async with self._unread.room(self._user, len(line), self._cut) as room:
                await self._pieces(line, room)

    async def last_words(self, line: bytes) -> None:
        """Send the last line, of an operation: it is the only word of that, and nobody has to wait for its reader."""
        await self.close()
        self._writer.transport.set_write_buffer_limits(_UNREAD)
        for each in (*self._lines, line):
            self._writer.write(each)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._writer.drain()

    async def close(self) -> None:
        """Send nothing any more."""
        self._sending.cancel()
        await asyncio.gather(self._sending, return_exceptions=True)

    async def _send(self) -> None:
        with suppress(OSError):
            while True:
                while self._lines:
                    line = self._lines.popleft()
                    self._size -= len(line)
                    self._writer.write(line)  # whole: what is left is what ``last_words`` sends
                    await self._writer.drain()
                if self._view is not None:
                    await self._send_view(len(once(self._view, _view_line)))
                if not self._lines and self._view is None:
                    self._idle.set()
                    self._something.clear()
                    await self._something.wait()

    async def _send_view(self, size: int) -> None:
        """Send the view that is the newest when there is room; meanwhile nothing but its bytes is held."""
        async with self._unread.room(self._user, size, self._cut) as room:
            view, self._view = self._view, None
            if view is None:
                return
            sending = self._pieces(once(view, _view_line), room)
            del view
            await sending

    async def _pieces(self, line: bytes, room: Room) -> None:
        for start in range(0, len(line), _PIECE):
            self._writer.write(line[start : start + _PIECE])
            await self._writer.drain()
            room.moved()

    def _cut(self) -> None:
        self._writer.transport.abort()


def _line(name: str, document: Document) -> bytes:
    return wire.line({name: document})


_view_line = partial(_line, "view")
answer_line = partial(_line, "answer")
