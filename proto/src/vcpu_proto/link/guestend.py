# SPDX-License-Identifier: Apache-2.0
"""The guest's end of the link: accepts one session after another, each with its own connection to the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..unix import dial
from .events import EndCode, Ended
from .pump import LocalEnd, Pump, WireProtocol
from .session import Role, Session, State

#: Seconds that the host's end may be closed, and silent, before its session is given up. The guest's kernel hears of
#: "closed" and "open" on the control queue and of data on another, so the news of an old host's end may come after a
#: new host's OPEN (drivers/char/virtio_console.c: handle_control_message runs in a work item).
_GRACE = 1.0
#: Seconds that the port gets to take the last bytes at the end.
_LAST_BYTES = 0.5

OpenWire = Callable[[WireProtocol], asyncio.Transport]
FindServer = Callable[[], Awaitable[str]]


class GuestLink(Pump):
    """Serves the port for as long as it is there.

    ``sessions`` counts those accepted.
    """

    def __init__(self, open_wire: OpenWire, server: str | FindServer, *, instance: bytes) -> None:
        """``open_wire``: vcpu_guest.port.opener(path); ``server``: path of the gRPC server's Unix socket.

        ``server`` may be a coroutine function that gives the path: it is awaited for each session, so that the server
        need not run while there is none. It raises OSError if the server cannot be had.

        ``instance``: 8 random bytes, new for each start of the agent.
        """
        super().__init__(Session(Role.GUEST, instance=instance))
        self.sessions = 0
        self._open_wire = open_wire
        self._server = server
        self._closed: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._dialing: asyncio.Task[None] | None = None
        self._dialed = b""
        self._grace: asyncio.TimerHandle | None = None

    @property
    def host_in_session(self) -> bool:
        """Whether a host has a session with us."""
        return self.session.state is State.OPEN

    async def run(self) -> None:
        """Open the port and serve it until stop(). Start the gRPC server before.

        Raise what opening the port raises (PortError), and PortError when the port is taken out of the guest. When
        cancelled, drop everything at once.
        """
        self._open_wire(self)
        self._write(self.session.beacon())
        try:
            # Waited for through a shield: a cancelled run() must leave the future to connection_lost().
            error = await asyncio.shield(self._closed)
        finally:
            self.abort()
        if error is not None:
            raise error

    async def stop(self) -> None:
        """Tell the host that the agent is stopping, close, and let run() return. It takes at most half a second."""
        self.end(EndCode.STOPPING, "agent stopping")
        if self._wire is not None:
            self._wire.close()
            await asyncio.wait({self._closed}, timeout=_LAST_BYTES)
        self.abort()

    def abort(self) -> None:
        """Drop the port at once."""
        if self._dialing is not None:
            self._dialing.cancel()
        if self._grace is not None:
            self._grace.cancel()
        if self._wire is not None:
            self._wire.abort()

    # -- what happens

    def peer_gone(self) -> None:
        """Let the session live on for a moment, see _GRACE: the host closed its end."""
        if self._grace is None:
            self._await_host()

    def peer_back(self) -> None:
        """Tell a host that is there, at once, that we are, too."""
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        self._write(self.session.beacon())

    def connection_lost(self, exc: Exception | None) -> None:
        """End the session, and let run() return: the port is closed or gone."""
        super().connection_lost(exc)
        if not self._closed.done():
            self._closed.set_result(exc)

    def _give_up(self) -> None:
        self._grace = None
        token = self.session.token
        if self.session.state is State.OPEN:
            self.session.forget()
            self._session_over(Ended(token, EndCode.WIRE_LOST, "the host closed its end"))

    def _await_host(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
        self._grace = asyncio.get_running_loop().call_later(_GRACE, self._give_up)

    def _settle(self) -> None:
        if self._grace is not None:
            # The news of an end is older than these bytes, and the grace may be all but over: a session that a new host
            # begins just then must not end with it.
            self._await_host()
        # Once for a whole chunk: a flood of OPENs makes one connection, not thousands.
        token = self.session.token
        if self.session.state is State.OPEN and token != self._dialed:
            self.sessions += 1
            self._dialed = token
            if self._dialing is not None:
                self._dialing.cancel()
            self._dialing = asyncio.get_running_loop().create_task(self._dial(token))

    async def _dial(self, token: bytes) -> None:
        try:
            connection = dial(self._server if isinstance(self._server, str) else await self._server())
        except OSError as error:
            if self.session.token == token:
                self.end(EndCode.LOCAL_FAILED, f"the agent's own server does not answer: {error.strerror}")
            return
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: LocalEnd(self, token), sock=connection)
        except asyncio.CancelledError:
            connection.close()
            raise
