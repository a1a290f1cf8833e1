# SPDX-License-Identifier: Apache-2.0
"""Both ends of the link when somebody does not read: bounded memory, and a port that is given back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest
from kit.fakes.guest_port import opener
from kit.fakes.link_ends import Guest, raw_agent, token_of_open, until
from kit.fakes.virtio_port import VirtioPort
from kit.until import DEADLINE
from vcpu_host.agent.socket_wire import wire_to
from vcpu_proto.link import EndCode, GuestLink, HostLink
from vcpu_proto.link.frames import Decoder, Frame, Kind, encode
from vcpu_proto.unix import dial


async def test_a_reader_that_stops_stops_the_sender_and_nothing_piles_up(port: VirtioPort, guest: Guest) -> None:
    guest.start()
    async with await HostLink.connect(wire_to(port.host_path)) as link:
        connection = dial(await link.listen())
        sent = got = 0
        chunk = bytes(65_536)
        loop = asyncio.get_running_loop()
        # What is sent comes back and nobody reads it: the sender must be stopped before 8 MB are under way.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while sent < 64 * 1024 * 1024:
                    await loop.sock_sendall(connection, chunk)
                    sent += len(chunk)
        assert sent < 8 * 1024 * 1024
        async with asyncio.timeout(DEADLINE):
            while got < sent:
                got += len(await loop.sock_recv(connection, 1 << 20))
        connection.close()


async def test_closing_ends_although_nobody_reads(port: VirtioPort, guest: Guest) -> None:
    agent = guest.start()
    link = await HostLink.connect(wire_to(port.host_path))
    connection = dial(await link.listen())
    await until(lambda: link._local is not None)
    agent.abort()
    with contextlib.suppress(BlockingIOError):
        while True:
            connection.send(bytes(65_536))
            await asyncio.sleep(0)
    await link.close()
    await until(lambda: not port.host_connected)
    connection.close()


async def test_a_peer_that_closes_and_reads_no_more_does_not_keep_the_port_taken(port: VirtioPort) -> None:
    agent = await raw_agent(port)
    opening = asyncio.create_task(HostLink.connect(wire_to(port.host_path)))
    agent.send(encode(Frame(Kind.ACCEPT, await token_of_open(agent), 0, b"instance")))
    link = await opening
    connection = dial(await link.listen())
    await until(lambda: link._local is not None)
    with contextlib.suppress(BlockingIOError):
        while True:
            connection.send(bytes(65_536))
            await asyncio.sleep(0)
    agent.send(encode(Frame(Kind.CLOSE, link.token, 0, b"\x02")))
    assert (await asyncio.wait_for(link.ended, DEADLINE)).code is EndCode.STOPPING
    await until(lambda: not port.host_connected, 3)
    connection.close()
    agent.close()


class Seen(HostLink):
    """One that a test can look at while it opens."""

    made: list[Seen]

    def __init__(self, token: bytes) -> None:
        super().__init__(token)
        self.made.append(self)


@pytest.mark.parametrize("opened", [False, True], ids=["while it opens", "in a session"])
async def test_a_peer_that_asks_on_and_on_and_reads_nothing_is_owed_little(tmp_path: Path, opened: bool) -> None:
    Seen.made = []
    with socket.socket(socket.AF_UNIX) as listener:
        path = str(tmp_path / "port")
        listener.bind(path)
        listener.listen(1)
        listener.setblocking(False)
        opening = asyncio.create_task(Seen._connect(wire_to(path), 60, anew=False))
        loop = asyncio.get_running_loop()
        peer, _ = await loop.sock_accept(listener)
        token = Decoder().feed(await loop.sock_recv(peer, 100))[0].token
        if opened:
            await loop.sock_sendall(peer, encode(Frame(Kind.ACCEPT, token, 0, b"instance")))
            await opening
            question = encode(Frame(Kind.PING, token, 0, b"whatever"))
        else:
            question = encode(Frame(Kind.BEACON, bytes(8), 0, b"instance"))
        # One question a read, so that each is answered alone; far more than the sockets' own buffers hold of answers.
        for _ in range(10_000):
            await loop.sock_sendall(peer, question)
            await asyncio.sleep(0)
        (link,) = Seen.made
        assert link._wire is not None
        assert link._wire.get_write_buffer_size() < 80_000
        opening.cancel()
        await asyncio.wait({opening})
        link.abort()
        peer.close()


async def test_what_the_server_says_first_is_there_when_the_client_comes(port: VirtioPort, tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"welcome" * 30_000)
        await reader.read()
        writer.close()
        gone.set()

    server = await asyncio.start_unix_server(greet, tmp_path / "greeter")
    agent = GuestLink(opener(port.guest_path), str(tmp_path / "greeter"), instance=b"instance")
    task = asyncio.create_task(agent.run())
    async with await HostLink.connect(wire_to(port.host_path)) as link:
        # More than may come early: the wire is paused, and goes on when the client is there.
        await until(lambda: len(link._early) > 64 * 1024)
        reader, writer = await asyncio.open_unix_connection(await link.listen())
        assert await asyncio.wait_for(reader.readexactly(7 * 30_000), DEADLINE) == b"welcome" * 30_000
        writer.close()
    await asyncio.wait_for(gone.wait(), DEADLINE)
    agent.abort()
    await task
    server.close()


async def test_a_cancelled_connect_frees_the_port(port: VirtioPort) -> None:
    opening = asyncio.create_task(HostLink.connect(wire_to(port.host_path)))
    await until(lambda: port.host_connected)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await until(lambda: not port.host_connected)
