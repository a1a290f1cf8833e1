# SPDX-License-Identifier: Apache-2.0
"""What tests of the link's two ends share: an agent to start and end, one to play by hand, and a call."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from kit.fakes.guest_port import opener
from kit.fakes.virtio_port import VirtioPort
from vcpu_proto.link import GuestLink, HostLink
from vcpu_proto.link.frames import Decoder


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
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
