# SPDX-License-Identifier: Apache-2.0
"""The host's end of the link: one connection to the chardev's socket, one session, one gRPC connection over it."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import socket
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from .errors import BusyError, LinkError, NoAnswerError, PeerGoneError, SessionLostError, UnreachableError, VersionError
from .events import Accepted, AgentStarted, EndCode, Ended, Event, Pong, VersionMismatch
from .frames import TOKEN_BYTES
from .pump import LocalEnd, Pump
from .session import Role, Session, State
from .unix import bound_name, dial

#: Seconds after which an OPEN is sent again; the last one repeats. One may be read by an agent that is just dying.
_RESEND = (0.2, 0.5, 1.0)
#: Seconds without an answer after which the connection is made anew, once. A guest that writes to a client that hung up
#: while the VM was stopped leaves the port throttled for the next one (QEMU 10.0, hw/char/virtio-console.c, flush_buf:
#: the write fails, and there is no socket left to watch), until that one hangs up too (virtio_serial_close).
_ANEW = 0.8
#: Seconds that QEMU gets to take the last bytes before the socket is closed by force, for it has one client only.
_LAST_BYTES = 0.5
#: From this OPEN on we ask whether the socket is busy: before, QEMU may still be letting go of the last client.
_BUSY_FROM = 2

#: Raises if what a connection leads to is not the agent's port: nothing has been written to it by then.
Check = Callable[[socket.socket], None]


def _no_check(_connection: socket.socket) -> None:
    """Whatever is there is taken for the port."""


class HostLink(Pump):
    """One session. ``async with await HostLink.connect(path) as link``, then ``link.listen()`` for a gRPC channel.

    ``instance``: 8 random bytes of the agent's start. ``ended``: a future that gets an Ended as soon as the session is
    over, whoever ended it; the wire is closed then, and a new connect() is the way to go on.
    """

    def __init__(self, path: str, token: bytes) -> None:
        """Use connect()."""
        super().__init__(Session(Role.HOST))
        loop = asyncio.get_running_loop()
        self.path = path
        self.token = token
        self.ended: asyncio.Future[Ended] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._accepted: asyncio.Future[None] = loop.create_future()
        self._mismatch: VersionMismatch | None = None
        self._pongs: dict[bytes, asyncio.Future[None]] = {}
        self._listener: socket.socket | None = None
        self._joining: asyncio.Task[object] | None = None
        self._listened = False
        self._announced = False

    @classmethod
    async def connect(cls, path: str | os.PathLike[str], *, timeout: float = 5.0, check: Check = _no_check) -> HostLink:
        """Connects to the chardev's socket and opens a session with the agent. ``timeout`` in seconds, for all of it.

        ``path`` may be "@NAME", an abstract socket. Raises UnreachableError, BusyError, NoAnswerError, VersionError,
        PeerGoneError, and what ``check`` raises, which sees each connection before anything is written to it.
        """
        path = os.fspath(path)
        until = asyncio.get_running_loop().time() + timeout
        if timeout > 2 * _ANEW:
            with suppress(NoAnswerError):
                return await cls._connect(path, _ANEW, check)
        try:
            return await cls._connect(path, until - asyncio.get_running_loop().time(), check)
        except NoAnswerError as error:
            raise NoAnswerError(path, timeout, taken=error.taken) from None

    @classmethod
    async def _connect(cls, path: str, timeout: float, check: Check = _no_check) -> HostLink:
        try:
            connection = dial(path)
        except BlockingIOError:
            raise BusyError(path) from None
        except OSError as error:
            raise UnreachableError(path, error) from error
        try:
            check(connection)
        except BaseException:
            connection.close()
            raise
        link = cls(path, os.urandom(TOKEN_BYTES))
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=connection)
        try:
            await link._open(timeout)
        except BaseException:
            link.abort()
            raise
        return link

    @property
    def instance(self) -> bytes:
        """The agent's instance id."""
        return self.session.instance

    async def listen(self) -> str:
        """Makes a private socket (in a directory of mode 0700) for one connection and returns its path.

        That connection is the session's stream. The socket is removed as soon as it came, so a gRPC channel that loses
        it fails at once instead of reconnecting into a session that it does not know.
        """
        if self._listened:
            raise LinkError("a session takes one local connection")
        if self.session.state is not State.OPEN:
            raise SessionLostError(await self.ended)
        import tempfile  # slow to import, and the guest imports this module too

        path = str(Path(tempfile.mkdtemp(prefix="vcpuctl-")) / "agent")
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
        """Returns when the agent's link answered. Raises SessionLostError, TimeoutError (``timeout`` in seconds)."""
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
        """Ends the session (the agent is told), and returns once the port is free for others, within half a second."""
        self.end(EndCode.LOCAL_ENDED)
        self._close_wire()
        await asyncio.wait({self._closed}, timeout=_LAST_BYTES)
        if not self._closed.done():
            self.abort()
            await self._closed

    def abort(self) -> None:
        """Drops the connection at once, without a word to the agent."""
        self._remove_socket()
        if self._wire is not None:
            self._wire.abort()

    async def __aenter__(self) -> Self:
        """Returns itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes."""
        await self.close()

    # -- opening

    async def _open(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        for turn in itertools.count():
            self._write(self.session.open(self.token))
            left = deadline - loop.time()
            if left > 0:
                await asyncio.wait({self._accepted}, timeout=min(left, _RESEND[min(turn, len(_RESEND) - 1)]))
            if self._accepted.done():
                return self._accepted.result()
            taken = self._unread() == 0
            expired = loop.time() >= deadline
            if not taken and (expired or turn >= _BUSY_FROM) and self._is_busy():
                raise BusyError(self.path)
            if expired:
                raise NoAnswerError(self.path, timeout, taken=taken)
        raise AssertionError("count() has no end")

    def _unread(self) -> int:
        """Bytes of ours that QEMU did not take yet (SIOCOUTQ, unix(7))."""
        if self._wire is None:
            return 0
        number = self._wire.get_extra_info("socket").fileno()
        (unread,) = struct.unpack("i", fcntl.ioctl(number, termios.TIOCOUTQ, bytes(4)))
        return int(unread) + self._wire.get_write_buffer_size()

    def _is_busy(self) -> bool:
        # By the name that its listener has bound: what led there may have been another one.
        return self._wire is not None and _is_busy(bound_name(self._wire.get_extra_info("socket")))

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
        """QEMU closed the socket, or we did."""
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
                self._accepted.set_exception(PeerGoneError(f"QEMU closed {self.path}"))
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
            path = Path(listener.getsockname())
            listener.close()
            path.unlink(missing_ok=True)
            path.parent.rmdir()


def _is_busy(name: str) -> bool:
    """Says if the listener that bound ``name`` serves somebody while a connection waits to be accepted.

    QEMU's chardev stops accepting while it has a client (chardev/char-socket.c, tcp_chr_accept), so a second connect(2)
    succeeds and nothing ever happens. /proc/net/unix shows the listener's side of every connection with its path: state
    03 is accepted, 02 waits (net/unix/af_unix.c, unix_seq_show: a socket that nobody accepted has no struct socket).
    What fills up an abstract name's length is shown as "@", too.
    """
    accepted = waiting = False
    for line in Path("/proc/net/unix").read_text(encoding="utf-8", errors="surrogateescape").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and name in (fields[7], fields[7].rstrip("@")):
            accepted |= fields[5] == "03"
            waiting |= fields[5] == "02"
    return accepted and waiting
