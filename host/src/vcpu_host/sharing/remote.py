# SPDX-License-Identifier: Apache-2.0
"""Asking the process that holds a VM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from ..core.text import printable
from ..documents import Document
from ..local.unix_sockets import dial_far
from . import wire
from .answers import Say
from .calls import Call
from .hub import Part


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None]:
    """Connect to a hub's socket; None if nobody listens there."""
    try:
        reader, writer = await asyncio.open_unix_connection(sock=dial_far(path), limit=wire.LONGEST)
    except OSError:
        yield None
        return
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


class Asking:
    """One call to the process that listens at ``path``; ``about`` goes along with it.

    ``reached`` says whether anybody listens there, ``begun`` whether that process has begun to change the VM,
    ``unknown`` that it has no such VM.
    """

    def __init__(self, path: Path, call: Call, **about: str) -> None:
        self._path = path
        self._message = {**call.to_json(), **about}
        self._writer: asyncio.StreamWriter | None = None
        self.reached = self.begun = self.unknown = False

    async def answer(self, say: Say) -> Document | None:
        """Return the answer; None if the process ended, or lost the VM, before it gave one. Raise what it raised."""
        async with connected(self._path) as streams:
            if streams is None:
                return None
            self.reached = True
            reader, self._writer = streams
            self._writer.write(wire.line(self._message))
            while (message := await wire.receive(reader)) is not None:
                if "answer" in message:
                    answer = message["answer"]
                    return answer if isinstance(answer, dict) else None
                if "error" in message:
                    raise wire.read_error(message)
                if "begun" in message:
                    self.begun = True
                elif "unknown" in message:
                    self.unknown = True
                else:
                    say(message)
            return None

    def interrupt(self) -> None:
        """Say that nobody waits any longer; the answer then says what is known."""
        if self._writer is not None:
            self._writer.write(wire.line({"interrupt": True}))


class Holder:
    """The process that holds a VM, as it answers to a request to give way."""

    def __init__(self, message: wire.Message, reader: asyncio.StreamReader) -> None:
        self.part = str(message.get("part", ""))
        self.name = printable(str(message.get("holder", "")), 200)
        self.gives_way = message.get("gives_way") is True
        self._reader = reader

    async def released(self) -> None:
        """Return when it has let go of the VM, or ended."""
        while await wire.receive(self._reader) is not None:
            pass


@asynccontextmanager
async def asked_to_give_way(path: Path, part: Part, seconds: float, *, insists: bool) -> AsyncIterator[Holder | None]:
    """Ask the process that listens at ``path`` to give way; None if nobody does, or none answers in so many seconds.

    ``part`` is what the VM is wanted for: nobody gives way to one that reads. ``insists``: the VM itself is needed, and
    not somebody who carries an operation out.
    """
    async with connected(path) as streams:
        message = None
        if streams is not None:
            reader, writer = streams
            writer.write(wire.line({"call": "give-way", "for": str(part), "insists": insists}))
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    message = await wire.receive(reader)
        yield None if streams is None or message is None else Holder(message, streams[0])
