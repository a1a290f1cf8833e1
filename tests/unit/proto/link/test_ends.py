# SPDX-License-Identifier: Apache-2.0
"""HostLink and GuestLink over a port with virtio_console's quirks; a plain echo server takes gRPC's place."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from kit.clock import Clock
from kit.fakes.guest_port import opener
from kit.fakes.link_ends import Guest, MemoryWire, Sink, exchange, raw_agent, token_of_open, until
from kit.fakes.virtio_port import VirtioPort
from kit.until import DEADLINE
from vcpu_guest.port import PortError
from vcpu_host.agent.socket_wire import wire_to
from vcpu_proto.link import (
    BusyError,
    EndCode,
    GuestLink,
    HostLink,
    HostWire,
    LinkError,
    NoAnswerError,
    PeerGoneError,
    SessionLostError,
    VersionError,
)
from vcpu_proto.link.frames import Frame, Kind, encode
from vcpu_proto.link.pump import WireProtocol
from vcpu_proto.unix import dial


async def test_bytes_go_there_and_back_unchanged(port: VirtioPort, guest: Guest) -> None:
    agent = guest.start()
    data = bytes(range(256)) * 4000
    async with await HostLink.connect(wire_to(port.host_path)) as link:
        assert link.instance == agent.session.instance
        assert await exchange(link, data) == data
        assert (await asyncio.wait_for(link.ended, DEADLINE)).code is EndCode.LOCAL_ENDED
    assert agent.sessions == 1


async def test_the_ends_need_no_socket_between_them(echo_server: str) -> None:
    here, there = MemoryWire.pair()
    agent = GuestLink(there.join, echo_server, instance=b"instance")
    task = asyncio.create_task(agent.run())
    async with await HostLink.connect(here.open) as link:
        assert link.instance == b"instance"
        assert await exchange(link, bytes(range(256)) * 400) == bytes(range(256)) * 400
    agent.abort()
    await task


class Unread:
    """A port that takes nothing of what is written to it. ``opened`` are its wires, ``looks`` when it was looked at.

    It is another client's as long as ``busy`` says so, which is told how often it was looked at.
    """

    def __init__(self, busy: Callable[[int], bool]) -> None:
        self.opened: list[MemoryWire] = []
        self.looks: list[float] = []
        self._busy = busy

    async def open(self, protocol: WireProtocol) -> HostWire:
        port = self
        self.opened.append(MemoryWire.pair()[0])

        class Wire(HostWire):
            def taken(self) -> bool:
                return False

            def is_busy(self) -> bool:
                port.looks.append(asyncio.get_running_loop().time())
                return port._busy(len(port.looks))

        return Wire(self.opened[-1].join(protocol), "that port")

    async def open_and_stand_still(self, protocol: WireProtocol, seconds: float) -> HostWire:
        """The same, and a moment later the host stands still for so long."""
        asyncio.get_running_loop().call_later(0.1, Clock().goes_on, seconds)
        return await self.open(protocol)


async def test_a_wire_that_says_that_the_port_is_busy_ends_the_wait_long_before_its_time() -> None:
    with pytest.raises(BusyError, match="that port is in use"):
        await HostLink.connect(Unread(lambda _looks: True).open, timeout=3600)


async def test_a_port_whose_last_client_is_let_go_of_late_is_waited_for() -> None:
    """A host that stands still for a second wakes to a QEMU that has not yet seen that the last client is gone."""
    port = Unread(lambda looks: looks < 4)
    connecting = HostLink.connect(partial(port.open_and_stand_still, seconds=1.0), timeout=60)
    with pytest.raises(NoAnswerError):
        await Clock().ends(connecting, lambda: len(port.opened) == 2)
    assert port.looks[2] - port.looks[0] > 1.0


async def test_a_host_that_stood_still_for_all_of_the_time_looks_once_more_before_a_port_is_busy() -> None:
    port = Unread(lambda looks: looks < 2)
    with pytest.raises(NoAnswerError):
        await HostLink.connect(partial(port.open_and_stand_still, seconds=3600.0), timeout=5)
    assert port.looks[1] - port.looks[0] >= 0.1


async def test_no_second_wire_is_opened_where_no_time_is_left_for_it() -> None:
    """It would find the port busy with the first."""
    leaves = asyncio.get_running_loop().time() + 1.0
    port = Unread(lambda _looks: asyncio.get_running_loop().time() < leaves)
    with pytest.raises(NoAnswerError):
        await HostLink.connect(port.open, timeout=1.7)
    assert len(port.opened) == 1


async def test_a_wire_whose_bytes_are_taken_and_not_answered_is_opened_a_second_time() -> None:
    opened: list[MemoryWire] = []

    async def open_wire(protocol: WireProtocol) -> HostWire:
        opened.append(MemoryWire.pair()[0])
        return HostWire(opened[-1].join(protocol), "that port")

    with pytest.raises(NoAnswerError, match="within 2 s") as caught:
        await HostLink.connect(open_wire, timeout=2)
    assert caught.value.taken
    assert [wire.is_closing() for wire in opened] == [True, True]


async def test_one_session_follows_another(port: VirtioPort, guest: Guest) -> None:
    agent = guest.start()
    for number in range(20):
        async with await HostLink.connect(wire_to(port.host_path)) as link:
            assert await exchange(link, b"%d" % number) == b"%d" % number
    assert agent.sessions == 20
    await until(lambda: not agent.host_in_session)


async def test_the_private_socket_is_the_user_s_alone_takes_one_connection_and_leaves_nothing(
    port: VirtioPort, guest: Guest
) -> None:
    guest.start()
    link = await HostLink.connect(wire_to(port.host_path))
    path = Path(await link.listen())
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    first = dial(str(path))
    await until(lambda: not path.exists())
    assert not path.parent.exists()
    with pytest.raises(LinkError, match="one local connection"):
        await link.listen()
    first.close()
    assert (await asyncio.wait_for(link.ended, DEADLINE)).code is EndCode.LOCAL_ENDED


async def test_a_private_socket_lies_where_it_is_wanted_and_takes_nothing_else_along(
    port: VirtioPort, guest: Guest, tmp_path: Path
) -> None:
    guest.start()
    async with await HostLink.connect(wire_to(port.host_path)) as link:
        path = tmp_path / "link"
        assert await link.listen(str(path)) == str(path)
        assert path.is_socket()
    assert not path.exists()


async def test_a_link_that_is_closed_unused_leaves_no_socket(port: VirtioPort, guest: Guest) -> None:
    guest.start()
    async with await HostLink.connect(wire_to(port.host_path)) as link:
        directory = Path(await link.listen()).parent
    assert not directory.exists()


async def test_nobody_at_the_port_is_no_answer_in_time_and_frees_the_port(port: VirtioPort) -> None:
    connecting = asyncio.ensure_future(HostLink.connect(wire_to(port.host_path), timeout=60))
    with pytest.raises(NoAnswerError) as caught:
        await Clock().ends(connecting, lambda: port.host_connected)
    assert not caught.value.taken
    await until(lambda: not port.host_connected)


async def test_an_opener_that_does_not_answer_is_told_apart_from_nobody(port: VirtioPort) -> None:
    agent = await raw_agent(port)
    connecting = asyncio.ensure_future(HostLink.connect(wire_to(port.host_path), timeout=60))
    await token_of_open(agent)
    with pytest.raises(NoAnswerError) as caught:
        await Clock().ends(connecting)
    assert caught.value.taken
    agent.close()


async def test_an_agent_that_starts_late_is_found_at_once(port: VirtioPort, guest: Guest) -> None:
    opening = asyncio.create_task(HostLink.connect(wire_to(port.host_path)))
    await until(lambda: port.host_connected)
    agent = guest.start()
    async with await opening as link:
        assert link.instance == agent.session.instance
        assert await exchange(link, b"hello") == b"hello"


async def test_an_open_that_a_dying_agent_ate_is_sent_again(port: VirtioPort, guest: Guest) -> None:
    dying = await raw_agent(port)
    opening = asyncio.create_task(HostLink.connect(wire_to(port.host_path)))
    await until(lambda: port.total)
    dying.close()
    guest.start()
    async with await opening as link:
        await link.ping(60)


async def test_an_agent_that_announces_itself_gets_the_open_at_once(port: VirtioPort) -> None:
    agent = await raw_agent(port)
    opening = asyncio.create_task(HostLink.connect(wire_to(port.host_path)))
    one = len(encode(Frame(Kind.OPEN, bytes(8))))
    # After the second OPEN the next is half a second away.
    await until(lambda: port.total >= 2 * one)
    before = port.total
    agent.send(encode(Frame(Kind.BEACON, bytes(8), 0, b"instance")))
    await until(lambda: port.total > before + one + len(b"instance"), 0.3)
    opening.cancel()
    agent.close()


async def test_an_agent_announces_itself_at_its_start_and_when_a_host_comes_back(tmp_path: Path) -> None:
    wire = Sink()

    def open_wire(protocol: WireProtocol) -> Sink:
        protocol.connection_made(wire)
        return wire

    agent = GuestLink(open_wire, str(tmp_path / "server"), instance=b"instance")
    task = asyncio.create_task(agent.run())
    beacon = encode(Frame(Kind.BEACON, bytes(8), 0, b"instance"))
    await until(lambda: wire.written == beacon)
    agent.peer_gone()
    agent.peer_back()
    assert wire.written == beacon * 2
    agent.connection_lost(None)
    await task


async def test_qemu_s_end_while_opening_is_an_error_of_its_own(port: VirtioPort) -> None:
    opening = asyncio.create_task(HostLink.connect(wire_to(port.host_path)))
    await until(lambda: port.host_connected)
    port.drop_host()
    with pytest.raises(PeerGoneError):
        await opening


async def test_an_agent_of_another_version_is_told_with_who_must_update(port: VirtioPort) -> None:
    agent = await raw_agent(port)
    opening = asyncio.create_task(HostLink.connect(wire_to(port.host_path)))
    agent.send(encode(Frame(Kind.CLOSE, await token_of_open(agent), 0, b"\x04", version=2)))
    with pytest.raises(VersionError) as caught:
        await opening
    assert caught.value.update == "host"
    agent.close()


async def test_a_restarted_agent_ends_the_host_s_session_at_once(port: VirtioPort, guest: Guest) -> None:
    first = guest.start()
    link = await HostLink.connect(wire_to(port.host_path))
    first.abort()
    guest.start()
    assert (await asyncio.wait_for(link.ended, DEADLINE)).code is EndCode.AGENT_RESTARTED
    async with await HostLink.connect(wire_to(port.host_path)) as again:
        assert await exchange(again, b"again") == b"again"


async def test_a_stopping_agent_says_so_and_run_returns(port: VirtioPort, guest: Guest) -> None:
    agent = guest.start()
    link = await HostLink.connect(wire_to(port.host_path))
    reader, writer = await asyncio.open_unix_connection(await link.listen())
    await agent.stop()
    assert (await asyncio.wait_for(link.ended, DEADLINE)).code is EndCode.STOPPING
    assert await asyncio.wait_for(reader.read(), DEADLINE) == b""
    await asyncio.wait_for(guest.running[0][1], DEADLINE)
    with pytest.raises(SessionLostError, match="stopping"):
        await link.ping(1)
    writer.close()


async def test_an_agent_whose_server_is_not_there_says_so(port: VirtioPort, tmp_path: Path) -> None:
    agent = GuestLink(opener(port.guest_path), str(tmp_path / "none"), instance=os.urandom(8))
    task = asyncio.create_task(agent.run())
    link = await HostLink.connect(wire_to(port.host_path))
    ended = await asyncio.wait_for(link.ended, DEADLINE)
    assert ended.code is EndCode.LOCAL_FAILED
    assert "No such file" in ended.text
    agent.abort()
    await task


async def test_a_second_agent_is_refused_and_the_first_goes_on(port: VirtioPort, guest: Guest) -> None:
    guest.start()
    async with await HostLink.connect(wire_to(port.host_path)) as link:
        second = GuestLink(opener(port.guest_path), "unused", instance=os.urandom(8))
        with pytest.raises(PortError) as caught:
            await asyncio.wait_for(second.run(), DEADLINE)
        assert caught.value.code == "port-busy"
        await link.ping(60)


async def test_a_host_that_goes_without_a_word_costs_the_guest_its_session_soon(port: VirtioPort, guest: Guest) -> None:
    agent = guest.start()
    link = await HostLink.connect(wire_to(port.host_path))
    assert agent.host_in_session
    link.abort()
    await until(lambda: not agent.host_in_session, 3)


async def test_late_news_of_an_older_host_s_end_does_not_end_the_new_session(port: VirtioPort, guest: Guest) -> None:
    agent = guest.start()
    async with await HostLink.connect(wire_to(port.host_path)) as link:
        agent.peer_gone()
        await link.ping(60)
        agent.peer_back()
        assert await exchange(link, b"still here") == b"still here"


async def test_bytes_from_a_host_begin_the_grace_anew_so_that_a_new_session_does_not_end_with_an_old_one(
    tmp_path: Path,
) -> None:
    def open_wire(protocol: WireProtocol) -> Sink:
        protocol.connection_made(wire)
        return wire

    wire = Sink()
    agent = GuestLink(open_wire, str(tmp_path / "server"), instance=b"instance")
    task = asyncio.create_task(agent.run())
    await until(lambda: wire.written)
    agent.peer_gone()
    assert agent._grace is not None
    about_to_end = agent._grace.when()
    agent.data_received(encode(Frame(Kind.OPEN, b"newtoken")))
    assert agent.host_in_session
    assert agent._grace.when() > about_to_end
    agent.peer_back()
    assert vars(agent)["_grace"] is None
    agent.abort()
    agent.connection_lost(None)
    await task


async def test_ping_is_answered_by_an_agent_whose_server_hangs_and_times_out_when_the_agent_does(
    port: VirtioPort, guest: Guest
) -> None:
    agent = guest.start()
    async with await HostLink.connect(wire_to(port.host_path)) as link:
        await link.ping(60)
        assert agent._wire is not None
        agent._wire.pause_reading()
        with pytest.raises(TimeoutError):
            await link.ping(0.1)
