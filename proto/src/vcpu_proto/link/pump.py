# SPDX-License-Identifier: Apache-2.0
"""Joins one session to one local stream, with back-pressure both ways. Shared by both ends of the link.

Both sides are asyncio transports, and everything happens in their callbacks: a chunk goes from one file descriptor to
the other within the callback that read it, with no task to wake in between, for a unary call waits for four such hops.

Back-pressure is asyncio's own: when one side's write buffer passes its high-water mark, reading the other side is
paused. So at most one mark (64 KiB) plus one read (at most 256 KiB) waits in each direction.
"""

from __future__ import annotations

import asyncio
from typing import cast

from .events import Data, EndCode, Ended, Event
from .session import Session, State

#: Bytes that may come for a local stream that is not there yet before reading the wire is paused.
_MOST_EARLY = 64 * 1024
#: Seconds that a local stream may take to swallow the last bytes of its session.
_LAST_BYTES = 1.0


class WireProtocol(asyncio.Protocol):
    """What a wire calls: asyncio's Protocol, and two calls more from wires that outlive their peer (a virtio port)."""

    def peer_gone(self) -> None:
        """Hear that the other end of the wire was closed. It may come back. Until then what is written waits."""

    def peer_back(self) -> None:
        """Hear that the other end is there (again). What it reads need not begin with the beginning of a frame."""


class LocalEnd(asyncio.Protocol):
    """The local stream of one session: a connection of a gRPC client or to a gRPC server."""

    def __init__(self, pump: Pump, token: bytes) -> None:
        """``token``: the session that the stream is for; it is closed if that session is over by then."""
        self._pump = pump
        self.token = token
        self._transport: asyncio.Transport | None = None
        self._abort: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Offer the stream to the pump."""
        self._transport = cast(asyncio.Transport, transport)
        if not self._pump.adopt(self):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Pass local bytes on to the peer."""
        self._pump.local_data(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the session: the local program closed its connection; why does not matter to the peer."""
        if self._abort is not None:
            self._abort.cancel()
        self._pump.local_lost(self)

    def pause_writing(self) -> None:
        """Have the wire paused: the local program reads too slowly."""
        self._pump.local_full(self, full=True)

    def resume_writing(self) -> None:
        """Have the wire read again: the local program caught up."""
        self._pump.local_full(self, full=False)

    def write(self, data: bytes) -> None:
        """Write bytes from the peer."""
        if self._transport is not None:
            self._transport.write(data)

    def pause(self, *, paused: bool) -> None:
        """Stop or resume reading."""
        if self._transport is None:
            return
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def finish(self) -> None:
        """Close the stream once it has taken what was written, and by force if it does not within a second."""
        if self._transport is None or self._abort is not None:
            return
        self._transport.close()
        self._abort = asyncio.get_running_loop().call_later(_LAST_BYTES, self._transport.abort)


class Pump(WireProtocol):
    """A wire, its session and that session's local stream. HostLink and GuestLink add who opens and who connects."""

    def __init__(self, session: Session) -> None:
        """``session``: idle, of the role that this end has."""
        self.session = session
        self._wire: asyncio.Transport | None = None
        self._local: LocalEnd | None = None
        self._early = bytearray()
        self._wire_full = False

    # -- called by the wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the wire, which is there now."""
        self._wire = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the peer."""
        events = self.session.receive(data)
        self._answer()
        chunks: list[bytes] = []
        for event in events:
            if isinstance(event, Data):
                chunks.append(event.data)
                continue
            if chunks:
                self._deliver(chunks)
                chunks = []
            if isinstance(event, Ended):
                self._session_over(event)
            else:
                self._on_event(event)
        if chunks:
            self._deliver(chunks)
        self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the session: the wire is gone for good."""
        token, was = self.session.token, self.session.state
        self.session.forget()
        self._wire = None
        if was is not State.IDLE:
            self._session_over(Ended(token, EndCode.WIRE_LOST, str(exc) if exc else ""))

    def pause_writing(self) -> None:
        """Pause the local stream: the wire takes no more for now."""
        self._wire_full = True
        if self._local is not None:
            self._local.pause(paused=True)

    def resume_writing(self) -> None:
        """Resume the local stream, and write what is owed: the wire takes again."""
        self._wire_full = False
        self._answer()
        if self._local is not None:
            self._local.pause(paused=False)

    # -- called by the local stream

    def adopt(self, local: LocalEnd) -> bool:
        """Take the stream as the session's; return False if the session is over or has one."""
        if self._local is not None or self.session.state is not State.OPEN or local.token != self.session.token:
            return False
        self._local = local
        if self._wire_full:
            local.pause(paused=True)
        if self._early:
            early = bytes(self._early)
            self._early.clear()
            self._pause_wire(paused=False)
            local.write(early)
        return True

    def local_data(self, local: LocalEnd, data: bytes) -> None:
        """Send bytes of the local program."""
        if local is self._local:
            self._write(self.session.send(data))

    def local_lost(self, local: LocalEnd) -> None:
        """End the session: the local program ended the connection."""
        if local is self._local:
            self.end(EndCode.LOCAL_ENDED)

    def local_full(self, local: LocalEnd, *, full: bool) -> None:
        """Pause or resume the wire: the local program takes no more, or again."""
        if local is self._local:
            self._pause_wire(paused=full)

    # -- for both ends

    def end(self, code: EndCode, text: str = "") -> None:
        """End the session, telling the peer why; do nothing if there is none."""
        if self.session.state is State.IDLE:
            return
        token = self.session.token
        self._write(self.session.close(code, text))
        self._session_over(Ended(token, code, text))

    def _on_event(self, event: Event) -> None:
        """Take any event but Data and Ended."""

    def _settle(self) -> None:
        """Do what is due after a chunk from the wire was dealt with."""

    def _session_over(self, ended: Ended) -> None:
        """Let go of the local stream: the session has ended, here or there."""
        del ended
        local, self._local = self._local, None
        self._early.clear()
        self._pause_wire(paused=False)
        if local is not None:
            local.finish()

    def _deliver(self, chunks: list[bytes]) -> None:
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if self._local is not None:
            self._local.write(data)
            return
        self._early += data
        if len(self._early) > _MOST_EARLY:
            self._pause_wire(paused=True)

    def _answer(self) -> None:
        """Write what is owed, unless the wire is full: until it is not, the session keeps the newest answer of a kind.

        So a peer that asks on and on, and reads nothing, is owed no more than that.
        """
        if not self._wire_full:
            self._write(self.session.replies())

    def _write(self, data: bytes) -> None:
        if data and self._wire is not None:
            self._wire.write(data)

    def _pause_wire(self, *, paused: bool) -> None:
        if self._wire is None:
            return
        if paused:
            self._wire.pause_reading()
        else:
            self._wire.resume_reading()
