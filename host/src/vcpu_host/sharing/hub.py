# SPDX-License-Identifier: Apache-2.0
"""The socket of the process that holds a VM, on which others ask it, and ask it to give way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from ..documents import Document
from ..errors import RefusedError
from ..local.lock import busy
from ..local.processes import peer_user
from ..local.unix_sockets import bound
from . import wire
from .answers import Say
from .calls import Call, Kind, Part
from .conversation import Conversation, first_message
from .interruption import Interruption
from .places import Places
from .unread import Unread

#: Seconds in which an operation whose wait was ended, since the VM is to be let go, says what is known.
LAST_WORDS = 10.0
#: Seconds in which it may end by itself first: QEMU may have gone, and it knows that best.
_BY_ITSELF = 1.0
#: So many programs are served at once. All are this user's, or root's.
_MOST = 64


#: Answers one call of another process, whose wait may be ended.
Answer = Callable[[Call, Say, Interruption], Awaitable[Document]]
#: Ends what a process does to a VM of its own accord, for the sake of somebody who was asked to.
StandsBack = Callable[[], Awaitable[None]]


class Hub:
    """Serves other processes for as long as this one holds the VM.

    ``answer`` gets their calls; an operation gets there only if this process keeps the VM. ``asked`` is set when this
    process is to give way, which is up to whoever made it. ``stands_back`` is called before anybody else changes the
    VM: what this process does of its own accord ends then. ``operating``: the VM is being changed.
    """

    def __init__(
        self,
        part: Part,
        holder: str,
        answer: Answer,
        stands_back: StandsBack | None = None,
    ) -> None:
        self.asked = asyncio.Event()
        self.operating = False
        self._wanted = False
        self._ended = False
        self._closing = False
        self._orders: dict[asyncio.Task[None], Interruption] = {}  # conversations about operations
        self._interruption: Interruption | None = None  # of the operation that is under way
        self._free = asyncio.Event()
        self._part = part
        self._holder = f"{os.getpid()} {holder}"
        self._answer = answer
        self._stands_back = stands_back
        self._places = Places(_MOST, _MOST)
        self._unread = Unread()
        self._servers: list[tuple[asyncio.Server, Path]] = []
        self._serving: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Task[None]] = set()  # for the VM to be free

    @contextmanager
    def operation(self, interruption: Interruption | None = None) -> Iterator[None]:
        """Change the VM for somebody else meanwhile; ``interruption`` ends the wait for that.

        Raise RefusedError "vm-busy" if somebody changes it already, or if it is about to be let go.
        """
        if self._part is Part.WRITES or self.operating or self._closing:
            raise busy(self._holder)
        self.operating, self._interruption = True, interruption
        self._free.clear()
        try:
            yield
        finally:
            self.operating, self._interruption = False, None
            self._free.set()
            if self._wanted:
                self.asked.set()

    def let_go(self) -> None:
        """Give the VM up as soon as nobody changes it."""
        self._wanted = True
        if not self.operating:
            self.asked.set()

    async def last_words(self, by_itself: float = 0.0) -> None:
        """Begin no operation any more. Have the one that is under way end, and be answered; but not for ever.

        It gets ``by_itself`` seconds before its wait is ended.
        """
        self._closing = True
        free = asyncio.ensure_future(self._free.wait())
        waits: set[asyncio.Future[Any]] = {*self._orders}
        if self._interruption is not None:
            waits.add(free)
        try:
            if waits:
                await asyncio.wait(waits, timeout=by_itself)
                for interruption in (self._interruption, *self._orders.values()):
                    if interruption is not None:
                        interruption.interrupt()
                await asyncio.wait(waits, timeout=LAST_WORDS)
        finally:
            free.cancel()

    async def listen(self, path: Path) -> None:
        """Listen there, too. The caller holds the lock of that name, so that whatever lies there is left over.

        Raise OSError if nothing can be made there.
        """
        # Served only once it is known here: if this is cancelled in between, ``close`` ends it.
        server = await asyncio.start_unix_server(
            self._serve, sock=bound(path), limit=wire.LONGEST_CALL, start_serving=False
        )
        self._servers.append((server, path))
        await server.start_serving()

    async def leave(self) -> None:
        """Serve nobody any more; who waits for the VM goes on waiting. The caller still holds the locks and the VM.

        An operation that is under way ends first.
        """
        for _, path in self._servers:
            path.unlink(missing_ok=True)
        await self.last_words(_BY_ITSELF)
        await self._end()

    async def close(self) -> None:
        """Tell those who wait that the VM is free.

        A socket that is there yet is left: without the lock it may be the next holder's, who also replaces ours.
        """
        await self._end()
        await _end(self._waiting)

    async def _end(self) -> None:
        self._ended = True
        for server, _ in self._servers:
            server.close()
        self._servers.clear()
        await _end(self._serving - self._waiting)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("asyncio runs this as a task")
        self._serving.add(task)
        try:
            if not self._ended:
                uid = peer_user(writer.get_extra_info("socket"))
                with self._places.taken(uid):
                    await self._converse(uid, reader, writer)
        except RefusedError as error:
            writer.write(wire.line(wire.of_error(error)))
        except asyncio.CancelledError:
            pass  # by close: the task is nobody else's
        finally:
            self._serving.discard(task)
            self._waiting.discard(task)
            self._orders.pop(task, None)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _converse(self, uid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        message = await first_message(reader)
        task = asyncio.current_task()
        if message is None or task is None:
            return
        if message.get("call") == "give-way":
            self._waiting.add(task)
            await self._give_way(message, reader, writer)
            return
        interruption = Interruption()
        changes = message.get("call") == Kind.RUN
        if changes:
            self._orders[task] = interruption
        answer = partial(self._operated, uid, interruption)
        with nullcontext() if changes else self._places.for_question(uid):
            conversation = Conversation(reader, writer, uid, self._unread, self._holder)
            await conversation.answer_one(message, answer, interruption.interrupt)

    async def _give_way(
        self, message: wire.Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Say for what this process holds the VM, and stay until it does not any more, or the other one goes."""
        wants = message.get("for") != Part.READS  # one that reads only wants to know whom to ask
        yields = wants and (self._part is Part.READS or (self._part is Part.KEEPS and message.get("insists") is True))
        if yields and self._stands_back is not None:
            await self._stands_back()
        if yields:
            self.let_go()
        at_once = yields and not self.operating
        said = {"part": str(self._part), "holder": self._holder, "gives_way": yields, "at_once": at_once}
        writer.write(wire.line(said))
        while await wire.receive(reader) is not None:
            pass

    async def _operated(self, uid: int, interruption: Interruption, call: Call, say: Say) -> Document:
        if not call.changes:
            return await self._answer(call, say, interruption)
        if self._stands_back is not None:
            await self._stands_back()
        interruption.check()
        with self.operation(interruption):
            say({"begun": True})
            return await self._answer(call._replace(for_uid=uid), say, interruption)


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    ended = list(tasks)
    for task in ended:
        task.cancel()
    await asyncio.gather(*ended, return_exceptions=True)
