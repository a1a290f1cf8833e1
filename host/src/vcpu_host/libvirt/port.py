# SPDX-License-Identifier: Apache-2.0
"""The agent's port by libvirt's channel of it (virDomainOpenChannel)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from vcpu_proto.link import BusyError, HostWire, OpenHostWire, UnreachableError, WireProtocol

from ..core import codes
from ..core.channel import PORT_NAME
from ..core.model import Channel, HostView
from ..core.reason import Origin, Reason
from ..errors import AgentGoneError, RefusedError, VcpuctlError
from . import binding, words
from .connection import Connection
from .domain import Domain
from .stream import StreamTransport

#: What a domain's definition needs for the agent.
CHANNEL_XML = f"<channel type='unix'><target type='virtio' name='{PORT_NAME}'/></channel>"
#: How long another client that holds the channel is waited for, in seconds, and how often it is tried again.
_PATIENCE, _AGAIN = 2.0, 0.1
#: How long a channel whose stream hangs may take to be freed, in seconds.
_FREES = 10.0


class ChannelPort:
    """Fills ``agent.dialer.Port``. Each wire has a connection to itself: a stream that hangs takes it along.

    It has to ``belong to`` a domain before it is used.
    """

    def __init__(self, uri: str, *, timeout: float = 30.0, call_timeout: float = 10.0) -> None:
        self._open = partial(Connection.open, uri, timeout=timeout, call_timeout=call_timeout)
        self._next: asyncio.Task[Connection] | None = None
        self._streams: set[StreamTransport] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._domain: Domain
        self._holder: Callable[[], Awaitable[str]]

    def prepare(self) -> None:
        """Begin to connect: to another host that takes a while."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._open(alone=True))

    def belongs_to(self, domain: Domain, holder: Callable[[], Awaitable[str]]) -> None:
        """Be the port of this domain; ``holder`` says who has something under way with it, in words, if anybody."""
        self._domain = domain
        self._holder = holder

    def obstacle(self, channel: Channel | None) -> Reason | None:
        """See ``dialer.Port``."""
        return no_channel() if channel is None else None

    def wire(self, host: HostView) -> OpenHostWire:
        """See ``dialer.Port``."""
        del host
        return self._wire

    def explain(self, host: HostView, error: UnreachableError) -> VcpuctlError:
        """See ``dialer.Port``: libvirt's own errors say what is the matter."""
        del host
        return AgentGoneError(Reason(error.code, Origin.LIBVIRT, str(error), error.hint))

    async def close(self) -> None:
        """End all that is left of it: nobody's channel stays with a stream of ours that hangs."""
        streams = list(self._streams)
        for stream in streams:
            stream.abort()
        await asyncio.gather(*(stream.settled() for stream in streams))
        if self._next is not None:
            self._next.cancel()
            made = await asyncio.gather(self._next, return_exceptions=True)
            for connection in made:
                if isinstance(connection, Connection):
                    await connection.close()
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _wire(self, protocol: WireProtocol) -> HostWire:
        made, self._next = self._next or asyncio.ensure_future(self._open(alone=True)), None
        try:
            connection = await made
        except VcpuctlError as error:
            text = f"there is no connection for the agent's channel: {error.reason.text}"
            raise AgentGoneError(error.reason._replace(text=text)) from error
        try:
            stream = await self._channel(connection)
            transport = StreamTransport(
                stream,
                protocol,
                lambda: self._end(self._free(transport)),
                lambda: self._over(transport, connection),
            )
            del stream
            await connection.call("read the channel", transport.begin)
        except BaseException as error:
            self._end(connection.close())
            if isinstance(error, VcpuctlError) and error.reason.code != BusyError.code:
                # Of the channel alone: who may only look does that without the agent, and what becomes of the domain
                # its own connection tells.
                raise AgentGoneError(error.reason) from error
            raise
        self._streams.add(transport)
        transport.start()
        return HostWire(transport, PORT_NAME)

    async def _channel(self, connection: Connection) -> Any:
        """Return the open stream. Another client is waited for a little: it may be one that only looks."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE
        while True:
            try:
                return await connection.call("open the channel", self._opened, connection)
            except BusyError as error:
                if loop.time() >= until:
                    raise await self._busy() from error
                await asyncio.sleep(_AGAIN)

    async def _busy(self) -> RefusedError:
        who = await self._holder()
        text = f"another client has the domain's channel {PORT_NAME}, here or on another host"
        if who:
            text += f"; the record of what is pending was written by {who}"
        return RefusedError(Reason(BusyError.code, Origin.LIBVIRT, text, "wait until it has ended, or end it"))

    def _over(self, transport: StreamTransport, connection: Connection) -> None:
        self._streams.discard(transport)
        self._end(connection.close())

    def _opened(self, connection: Connection) -> Any:
        """Return a stream that has the channel. In the connection's thread."""
        libvirt = binding.module()
        stream = connection.raw.newStream(libvirt.VIR_STREAM_NONBLOCK)
        try:
            self._found(connection).openChannel(PORT_NAME, stream, 0)
        except libvirt.libvirtError as error:
            said = words.said(error)
            if "Active channel stream exists" in said:
                raise BusyError(f"the channel {PORT_NAME}") from error
            if "cannot find channel" in said:
                raise AgentGoneError(no_channel()) from error
            raise
        return stream

    async def _free(self, transport: StreamTransport) -> None:
        """Take the channel from a stream of ours that hangs, or floods, and let it go.

        Not by the domain's connection, whose calls go one after another: others would come to wait for this, and this
        for them, while the stream may let go by itself and somebody else get the channel.
        """
        with contextlib.suppress(VcpuctlError, TimeoutError):
            async with asyncio.timeout(_FREES):
                connection = await self._open()
                try:
                    await connection.call("free the channel", self._taken_and_freed, connection, transport)
                finally:
                    await connection.close()

    def _taken_and_freed(self, connection: Connection, transport: StreamTransport) -> None:
        """Take the channel and free it, if it is still with that stream. In the connection's thread."""
        libvirt = binding.module()
        stream = connection.raw.newStream(libvirt.VIR_STREAM_NONBLOCK)
        domain = self._found(connection)
        if transport.held:  # else it is free, or somebody else's by now
            domain.openChannel(PORT_NAME, stream, libvirt.VIR_DOMAIN_CHANNEL_FORCE)
            stream.abort()

    def _found(self, connection: Connection) -> Any:
        """Return libvirt's object of the domain, by this connection. In its thread."""
        return connection.raw.lookupByUUIDString(self._domain.identity.uuid)

    def _end(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def no_channel() -> Reason:
    """Return the reason that the domain has no channel for the agent."""
    return Reason(
        codes.NO_CHANNEL,
        Origin.VCPUCTL,
        f"this domain has no channel named {PORT_NAME}",
        f"vcpuctl channel --apply adds it, live and for good; it is {CHANNEL_XML}",
    )
