# SPDX-License-Identifier: Apache-2.0
"""The service's socket. Two languages are spoken there: vcpuctl's own lines, and gRPC, told apart by the first byte.

So one socket can be systemd's (a gRPC server cannot be handed one that is open already), and one mode of one file says
who may come in. Who has come in is known by the kernel's word (SO_PEERCRED, unix(7)).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from functools import partial

from ..core import codes
from ..core.reason import Origin, Reason
from ..documents import Document
from ..errors import UsageError, VcpuctlError
from ..local.processes import peer_user
from ..sharing import wire
from ..sharing.answers import Say
from ..sharing.calls import Call, Kind
from ..sharing.conversation import PATIENCE, Conversation, first_message
from ..sharing.places import Places
from ..sharing.unread import Unread
from .keeper import Keeper
from .kept import Asked, Kept

#: So many programs are served at once, and so many of one user: a command for many VMs comes up to 96 times at once.
_MOST, _OF_ONE = 256, 128
#: The longest name of a monitor, in characters: PATH_MAX.
_LONGEST = 4096
#: What HTTP/2 begins with (RFC 9113, section 3.4).
_HTTP2 = b"P"
#: Bytes that are passed on at a time.
_PIECE = 64 << 10

#: Seconds in which those who were answered before the end may take the answer.
_TAKEN = 0.5
#: Gives the path of a socket on which gRPC is served to the user with this id, for as long as somebody uses it.
Rpc = Callable[[int], AbstractAsyncContextManager[str]]
#: What ends each connection that was passed on to gRPC, by the name that gRPC has for it (``Context.peer``).
Connections = dict[str, Callable[[], object]]


class Door:
    """Serves whoever may connect to the listening socket that it is given."""

    def __init__(
        self, keeper: Keeper, rpc: Rpc, unread: Unread | None = None, connections: Connections | None = None
    ) -> None:
        self._keeper = keeper
        self._connections: Connections = {} if connections is None else connections
        self._unread = unread or Unread()
        self._rpc = rpc
        self._server: asyncio.Server | None = None
        self._places = Places(_MOST, _OF_ONE)
        self._serving: set[asyncio.Task[None]] = set()

    async def open(self, listener: socket.socket) -> None:
        """Begin."""
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=wire.LONGEST_CALL)

    def shut(self) -> None:
        """Let nobody in any more."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """Cut everybody off."""
        self.shut()
        if self._serving:
            await asyncio.wait(self._serving, timeout=_TAKEN)
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("asyncio runs this as a task")
        self._serving.add(task)
        try:
            uid = peer_user(writer.get_extra_info("socket"))
            with self._places.taken(uid):
                await self._let_in(uid, reader, writer)
        except VcpuctlError as error:
            writer.write(wire.line(wire.of_error(error)))
        except asyncio.CancelledError:
            pass  # by close: the task is nobody else's
        finally:
            self._serving.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _let_in(self, uid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                first = await reader.read(1)
        except (TimeoutError, OSError):
            return
        if first == _HTTP2:
            # Orders come by such a connection, too; but it stays, whatever it is used for.
            with suppress(OSError), self._places.for_question(uid):
                async with self._rpc(uid) as path:
                    await _pass_on(first, reader, writer, path, self._connections)
            return
        message = await first_message(reader, first)
        if message is None:
            return
        kept = self._kept(message)
        if kept is None:
            writer.write(wire.line({"unknown": True}))
            return
        asked = kept.asked()
        with nullcontext() if message.get("call") == Kind.RUN else self._places.for_question(uid):
            conversation = Conversation(reader, writer, uid, self._unread, kept.name)
            await conversation.answer_one(message, partial(_ask, asked, uid), asked.interrupt)

    def _kept(self, message: wire.Message) -> Kept | None:
        """Return the VM that is meant, by where its monitor is.

        Raise UsageError "bad-call" for what can be no such place.
        """
        monitor = message.get("monitor")
        if not isinstance(monitor, str) or not 0 < len(monitor) <= _LONGEST or "\0" in monitor:
            text = f"a call has to name the VM's monitor, in at most {_LONGEST} characters"
            raise UsageError(Reason(codes.BAD_CALL, Origin.VCPUCTL, text, "use the same version everywhere"))
        return self._keeper.at(monitor)


async def _ask(asked: Asked, uid: int, call: Call, say: Say) -> Document:
    if call.changes:
        say({"begun": True})
    return await asked.answer(call._replace(for_uid=uid), say)


async def _pass_on(
    first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, connections: Connections
) -> None:
    """Pass bytes on, both ways, until one of the two ends; neither side makes this process hold more than a piece."""
    there, back, name = await _named_connection(path)
    connections[name] = back.transport.abort
    back.write(first)
    try:
        pumps = {asyncio.ensure_future(_pump(reader, back)), asyncio.ensure_future(_pump(there, writer))}
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
    finally:
        del connections[name]
        back.close()
        with suppress(OSError):
            await back.wait_closed()


async def _named_connection(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
    """Connect from an address that the kernel chooses (unix(7), autobind), by which gRPC tells connections apart."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.bind("")
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, path)
        there, back = await asyncio.open_unix_connection(sock=connection)
    except BaseException:
        connection.close()
        raise
    return there, back, "unix-abstract:" + connection.getsockname().removeprefix(b"\0").decode()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await source.read(_PIECE):
            sink.write(piece)
            await sink.drain()
