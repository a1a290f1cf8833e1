# SPDX-License-Identifier: Apache-2.0
"""What tests of the link's two ends share: an agent to start and end, one to play by hand, and a call."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from kit.fakes.guest_port import opener
from kit.fakes.virtio_port import VirtioPort
from vcpu_proto.link import GuestLink, HostLink, HostWire, WireProtocol
from vcpu_proto.link.frames import Decoder


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the conditions are not events
            await asyncio.sleep(0.001)


class Guest:
    """An agent that can be started and ended, with an echo server behind it."""

    def __init__(self, port: VirtioPort, server: str) -> None:
        self._port = port
        self._server = server
        self.running: list[tuple[GuestLink, asyncio.Task[None]]] = []

    def start(self) -> GuestLink:
        link = GuestLink(opener(self._port.guest_path), self._server, instance=os.urandom(8))
        self.running.append((link, asyncio.create_task(link.run())))
        return link

    async def end(self) -> None:
        for link, task in self.running:
            link.abort()
            await task


class Sink(asyncio.Transport):
    """A wire that takes everything."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def resume_reading(self) -> None:
        pass

    def abort(self) -> None:
        pass


class MemoryWire(Sink):
    """One end of a wire that carries bytes within this process; ``pair`` makes both."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: WireProtocol | None = None
        self.other: MemoryWire | None = None

    @classmethod
    def pair(cls) -> tuple[MemoryWire, MemoryWire]:
        one, other = cls(), cls()
        one.other, other.other = other, one
        return one, other

    def join(self, protocol: WireProtocol) -> MemoryWire:
        """What a guest's end opens."""
        self.protocol = protocol
        protocol.connection_made(self)
        return self

    async def open(self, protocol: WireProtocol) -> HostWire:
        """What a host's end opens."""
        return HostWire(self.join(protocol), "a wire in memory")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert self.other is not None
        asyncio.get_running_loop().call_soon(self.other.deliver, bytes(data))

    def deliver(self, data: bytes) -> None:
        if self.protocol is not None:
            self.protocol.data_received(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.protocol is None

    def close(self) -> None:
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            asyncio.get_running_loop().call_soon(protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()


async def exchange(link: HostLink, data: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(await link.listen())
    writer.write(data)
    answer = await asyncio.wait_for(reader.readexactly(len(data)), 10)
    writer.close()
    return answer


async def raw_agent(port: VirtioPort) -> socket.socket:
    """Opens the guest's side, to answer by hand or not at all."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setblocking(False)
    connection.connect(port.guest_path)
    await until(lambda: port.guest_connected)
    return connection


async def token_of_open(agent: socket.socket) -> bytes:
    decoder = Decoder()
    while True:
        packet = await asyncio.get_running_loop().sock_recv(agent, 1000)
        if packet[:1] == b"D":
            for frame in decoder.feed(packet[1:]):
                return frame.token


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[VirtioPort]:
    async with VirtioPort(tmp_path) as port:
        yield port


@pytest.fixture
async def echo_server(tmp_path: Path) -> AsyncIterator[str]:
    """The path of a server that sends everything back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    path = str(tmp_path / "server")
    server = await asyncio.start_unix_server(echo, path)
    yield path
    server.close()


@pytest.fixture
async def guest(port: VirtioPort, echo_server: str) -> AsyncIterator[Guest]:
    guest = Guest(port, echo_server)
    yield guest
    await guest.end()
