# SPDX-License-Identifier: Apache-2.0
"""The host's end of the link: one wire to the agent's port, one session, one gRPC connection over it."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from .errors import BusyError, LinkError, NoAnswerError, PeerGoneError, SessionLostError, VersionError
from .events import Accepted, AgentStarted, EndCode, Ended, Event, Pong, VersionMismatch
from .frames import TOKEN_BYTES
from .pump import LocalEnd, Pump, WireProtocol
from .session import Role, Session, State

#: Seconds after which an OPEN is sent again; the last one repeats. One may be read by an agent that is just dying.
_RESEND = (0.2, 0.5, 1.0)
#: Seconds without an answer after which the connection is made anew, once. A guest that writes to a client that hung up
#: while the VM was stopped leaves the port throttled for the next one (QEMU 10.0, hw/char/virtio-console.c, flush_buf:
#: the write fails, and there is no socket left to watch), until that one hangs up too (virtio_serial_close).
_ANEW = 0.8
#: Seconds that QEMU gets to take the last bytes before the wire is closed by force, for it has one client only.
_LAST_BYTES = 0.5
#: A port is busy that was seen so as often in a row, the last time with this OPEN unread (after 2 s, by _RESEND).
#: Before, QEMU, or a host that stands still for a moment, may not have come to letting go of the last client.
_BUSY_LOOKS, _BUSY_FROM = 2, 3
#: Seconds for another look where the time is over: the host may have stood still for all of it.
_ANOTHER_LOOK = 0.2


class HostWire:
    """An opened wire to the agent's port, and what can be told of the port while nobody answers.

    ``name`` is what messages call it. An adapter that knows more than its transport does overrides the two methods.
    """

    def __init__(self, transport: asyncio.Transport, name: str) -> None:
        self.transport = transport
        self.name = name

    def taken(self) -> bool:
        """Return whether the other end has taken all that was written."""
        return self.transport.get_write_buffer_size() == 0

    def is_busy(self) -> bool:
        """Return whether another client is known to hold the port, so that nobody will ever read this wire."""
        return False


#: Opens a wire for a protocol. Raises BusyError or UnreachableError, and what an adapter's own checks raise.
OpenHostWire = Callable[[WireProtocol], Awaitable[HostWire]]


class HostLink(Pump):
    """One session. ``async with await HostLink.connect(open_wire) as link``, then ``link.listen()`` for gRPC.

    ``instance``: 8 random bytes of the agent's start. ``ended``: a future that gets an Ended as soon as the session is
    over, whoever ended it; the wire is closed then, and a new connect() is the way to go on.
    """

    def __init__(self, token: bytes) -> None:
        """Use connect()."""
        super().__init__(Session(Role.HOST))
        loop = asyncio.get_running_loop()
        self.token = token
        self._name = "the port"  # until there is a wire
        self.ended: asyncio.Future[Ended] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._accepted: asyncio.Future[None] = loop.create_future()
        self._mismatch: VersionMismatch | None = None
        self._pongs: dict[bytes, asyncio.Future[None]] = {}
        self._listener: socket.socket | None = None
        self._joining: asyncio.Task[object] | None = None
        self._folder: Path | None = None  # that was made for the socket
        self._listened = False
        self._announced = False

    @classmethod
    async def connect(cls, open_wire: OpenHostWire, *, timeout: float = 5.0) -> Self:
        """Open a wire and a session with the agent over it. ``timeout`` in seconds, for all of it.

        The wire may be opened twice (see _ANEW). Raise what ``open_wire`` raises, BusyError, NoAnswerError,
        VersionError and PeerGoneError.
        """
        until = asyncio.get_running_loop().time() + timeout
        if timeout > 2 * _ANEW:
            try:
                return await cls._connect(open_wire, timeout, anew=True)
            except NoAnswerError:
                if until - asyncio.get_running_loop().time() < _ANEW:
                    raise
        try:
            return await cls._connect(open_wire, until - asyncio.get_running_loop().time(), anew=False)
        except NoAnswerError as error:
            raise NoAnswerError(timeout, taken=error.taken) from None

    @classmethod
    async def _connect(cls, open_wire: OpenHostWire, timeout: float, *, anew: bool) -> Self:
        link = cls(os.urandom(TOKEN_BYTES))
        try:
            await link._open(await open_wire(link), timeout, anew=anew)
        except BaseException:
            link.abort()
            raise
        return link

    @property
    def instance(self) -> bytes:
        """The agent's instance id."""
        return self.session.instance

    async def listen(self, path: str | None = None) -> str:
        """Make a private socket for one connection and return its path.

        ``path`` is where, in a directory that is this user's alone; None: in a new one, which a process that is killed
        leaves behind.

        That connection is the session's stream. The socket is removed as soon as it came, so a gRPC channel that loses
        it fails at once instead of reconnecting into a session that it does not know.
        """
        if self._listened:
            raise LinkError("a session takes one local connection")
        if self.session.state is not State.OPEN:
            raise SessionLostError(await self.ended)
        if path is None:
            import tempfile  # slow to import, and the guest imports this module too

            self._folder = Path(tempfile.mkdtemp(prefix="vcpuctl-"))
            path = str(self._folder / "agent")
        self._listened = True
        # Not asyncio's server: when it is closed between accept(2) and the protocol's making, it leaves the connection
        # open with nobody behind it (CPython 3.11, selector_events.py, _accept_connection2), and a call would hang.
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        self._listener.bind(path)
        self._listener.listen(1)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        return path

    async def ping(self, timeout: float) -> None:
        """Return when the agent's link answered. Raise SessionLostError, TimeoutError (``timeout`` in seconds)."""
        if self.session.state is not State.OPEN:
            raise SessionLostError(await self.ended)
        nonce = os.urandom(TOKEN_BYTES)
        answer = self._pongs[nonce] = asyncio.get_running_loop().create_future()
        self._write(self.session.ping(nonce))
        try:
            async with asyncio.timeout(timeout):
                await answer
        finally:
            del self._pongs[nonce]

    async def close(self) -> None:
        """End the session (the agent is told), and return once the port is free for others, within half a second."""
        self.end(EndCode.LOCAL_ENDED)
        self._close_wire()
        await asyncio.wait({self._closed}, timeout=_LAST_BYTES)
        if not self._closed.done():
            self.abort()
            await self._closed

    def abort(self) -> None:
        """Drop the connection at once, without a word to the agent."""
        self._remove_socket()
        if self._wire is not None:
            self._wire.abort()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    # -- opening

    async def _open(self, wire: HostWire, timeout: float, *, anew: bool) -> None:
        """Open the session with the agent, in ``timeout`` seconds.

        ``anew``: raise NoAnswerError after _ANEW seconds already, unless the port is with another client.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        renew = loop.time() + _ANEW if anew else deadline
        self._name = wire.name
        busy = 0
        for turn in itertools.count():
            self._write(self.session.open(self.token))
            now = loop.time()
            left = max(_ANOTHER_LOOK, (renew if now < renew else deadline) - now)
            await asyncio.wait({self._accepted}, timeout=min(left, _RESEND[min(turn, len(_RESEND) - 1)]))
            if self._accepted.done():
                return self._accepted.result()
            expired, due = loop.time() >= deadline, loop.time() >= renew
            if not due and turn < _BUSY_FROM:
                continue
            taken = self._wire is None or wire.taken()
            busy = busy + 1 if not taken and wire.is_busy() else 0
            if busy >= _BUSY_LOOKS and (expired or turn >= _BUSY_FROM):
                raise BusyError(wire.name)
            if due and not busy:
                raise NoAnswerError(timeout, taken=taken)
        raise AssertionError("count() has no end")

    # -- what happens

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        self._remove_socket()
        loop = asyncio.get_running_loop()
        join = loop.connect_accepted_socket(lambda: LocalEnd(self, self.token), connection)
        self._joining = loop.create_task(join)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the session, and let close() return: QEMU closed the socket, or we did."""
        super().connection_lost(exc)
        if not self._closed.done():
            self._closed.set_result(None)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Accepted):
            if not self._accepted.done():
                self._accepted.set_result(None)
        elif isinstance(event, AgentStarted):
            self._announced = True
        elif isinstance(event, VersionMismatch):
            self._mismatch = event
        elif isinstance(event, Pong):
            answer = self._pongs.get(event.nonce)
            if answer is not None and not answer.done():
                answer.set_result(None)

    def _settle(self) -> None:
        # It may have been started after our OPEN was read by the one before it. Once for a whole chunk, and not to a
        # wire that is full: an agent that announces itself on and on and reads nothing must not fill our memory.
        if self._announced and self.session.state is State.OPENING and not self._wire_full:
            self._write(self.session.open(self.token))
        self._announced = False

    def _session_over(self, ended: Ended) -> None:
        super()._session_over(ended)
        if not self._accepted.done():
            if self._mismatch is not None:
                self._accepted.set_exception(VersionError(self._mismatch))
            elif ended.code is EndCode.WIRE_LOST:
                why = f": {ended.text}" if ended.text else ""
                self._accepted.set_exception(PeerGoneError(f"{self._name} was closed at its other end{why}"))
            else:
                self._accepted.set_exception(SessionLostError(ended))
            # connect() may have been cancelled: then nobody asks.
            self._accepted.exception()
        for answer in self._pongs.values():
            if not answer.done():
                answer.set_exception(SessionLostError(ended))
        if not self.ended.done():
            self.ended.set_result(ended)
        self._close_wire()

    def _close_wire(self) -> None:
        self._remove_socket()
        if self._wire is not None and not self._wire.is_closing():
            self._wire.close()
            # QEMU may never read again (nobody has the port open): the port's only place must not stay taken for that.
            asyncio.get_running_loop().call_later(_LAST_BYTES, self._wire.abort)

    def _remove_socket(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener)
            bound = listener.getsockname()
            listener.close()
            if bound:  # else nothing could be bound there
                Path(bound).unlink(missing_ok=True)
            if self._folder is not None:
                self._folder.rmdir()
