# SPDX-License-Identifier: Apache-2.0
"""The port as a transport: the kernel's quirks, one by one."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.until import DEADLINE
from vcpu_guest.port import CharDevice, PortError, PortTransport, opener
from vcpu_proto.link.pump import WireProtocol


class Recorder(WireProtocol):
    def __init__(self) -> None:
        self.data = bytearray()
        self.calls: list[str] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def peer_gone(self) -> None:
        self.calls.append("gone")

    def peer_back(self) -> None:
        self.calls.append("back")

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


class Scripted:
    """A device whose every answer is told beforehand."""

    def __init__(self) -> None:
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        self.mask = 0
        self.reads: list[bytes | OSError] = []
        self.writes: list[int | OSError] = []
        self.written = bytearray()
        self.closed = False

    def edge(self, mask: int) -> None:
        self.mask = mask
        os.eventfd_write(self.event, 1)

    def fileno(self) -> int:
        return self.event

    def changes(self) -> int:
        os.eventfd_read(self.event)
        return self.mask

    def read(self, size: int) -> bytes:
        answer = self.reads.pop(0) if self.reads else BlockingIOError()
        if isinstance(answer, OSError):
            raise answer
        return answer[:size]

    def write(self, data: memoryview) -> int:
        answer = self.writes.pop(0) if self.writes else len(data)
        if isinstance(answer, OSError):
            raise answer
        taken = min(answer, len(data))
        self.written += data[:taken]
        return taken

    def close(self) -> None:
        os.close(self.event)
        self.closed = True


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the conditions are not events
            await asyncio.sleep(0.001)


def started() -> tuple[Scripted, Recorder, PortTransport]:
    device, protocol = Scripted(), Recorder()
    return device, protocol, PortTransport(device, "port", protocol)


@given(
    st.lists(st.binary(min_size=1, max_size=100_000), max_size=5),
    st.lists(st.one_of(st.integers(1, 32_768), st.just(0), st.just("again")), max_size=30),
)
def test_what_is_written_arrives_whole_and_in_order_however_short_the_writes(
    chunks: list[bytes], answers: list[int | str]
) -> None:
    async def run() -> None:
        device, _, transport = started()
        device.writes = [answer if isinstance(answer, int) else BlockingIOError() for answer in answers]
        for chunk in chunks:
            transport.write(chunk)
        while transport.get_write_buffer_size():
            device.edge(select.EPOLLOUT)
            await asyncio.sleep(0)
        assert device.written == b"".join(chunks)
        transport.abort()

    asyncio.run(run())


async def test_a_write_that_took_nothing_is_tried_again_without_an_edge() -> None:
    device, _, transport = started()
    device.writes = [0]
    transport.write(b"frame")
    await until(lambda: device.written == b"frame")
    transport.abort()


async def test_writing_is_paused_while_the_port_takes_nothing_and_resumed_when_it_does() -> None:
    device, protocol, transport = started()
    device.writes = [BlockingIOError()]
    transport.write(bytes(100_000))
    assert protocol.calls == ["pause"]
    device.edge(select.EPOLLOUT)
    await until(lambda: protocol.calls == ["pause", "resume"])
    assert len(device.written) == 100_000
    transport.abort()


async def test_all_that_is_there_is_read_after_one_edge() -> None:
    device, protocol, transport = started()
    await asyncio.sleep(0)
    device.reads = [bytes([number]) * 4096 for number in range(100)]
    device.edge(select.EPOLLIN | select.EPOLLOUT)
    await until(lambda: len(protocol.data) == 100 * 4096)
    assert protocol.data[-1] == 99
    transport.abort()


async def test_what_came_before_the_port_was_opened_is_read_without_an_edge() -> None:
    device, protocol, transport = started()
    device.reads = [b"early"]
    await until(lambda: protocol.data == b"early")
    transport.abort()


async def test_nothing_is_read_while_paused_and_everything_afterwards() -> None:
    device, protocol, transport = started()
    transport.pause_reading()
    device.reads = [b"later"]
    device.edge(select.EPOLLIN)
    await asyncio.sleep(0.01)
    assert (bytes(protocol.data), transport.is_reading()) == (b"", False)
    transport.resume_reading()
    await until(lambda: protocol.data == b"later")
    transport.abort()


async def test_the_host_s_end_is_told_as_it_goes_and_comes_and_data_go_first() -> None:
    device, protocol, transport = started()
    device.reads = [b"last words", b""]
    await until(lambda: protocol.calls == ["gone"])
    assert protocol.data == b"last words"
    device.edge(select.EPOLLOUT)
    await until(lambda: protocol.calls == ["gone", "back"])
    device.edge(select.EPOLLIN | select.EPOLLHUP)
    device.reads = [b""]
    await until(lambda: protocol.calls == ["gone", "back", "gone"])
    transport.abort()


@pytest.mark.parametrize("where", ["read", "write"])
async def test_a_port_that_is_unplugged_is_an_error_with_a_code(where: str) -> None:
    device, protocol, transport = started()
    unplugged = OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    if where == "read":
        device.reads = [unplugged]
        device.edge(select.EPOLLIN | select.EPOLLHUP)
    else:
        device.writes = [unplugged]
        transport.write(b"x")
    error = await asyncio.wait_for(protocol.lost, DEADLINE)
    assert isinstance(error, PortError)
    assert (error.code, error.errno) == ("port-gone", errno.ENODEV)
    assert device.closed


async def test_close_waits_for_what_was_written_and_then_gives_the_port_back() -> None:
    device, protocol, transport = started()
    device.writes = [BlockingIOError()]
    transport.write(b"last")
    transport.close()
    transport.write(b"too late")
    assert not device.closed
    device.edge(select.EPOLLOUT)
    assert await asyncio.wait_for(protocol.lost, DEADLINE) is None
    assert (bytes(device.written), device.closed) == (b"last", True)


async def test_close_does_not_wait_for_a_host_that_is_not_there() -> None:
    device, protocol, transport = started()
    device.reads = [b""]
    await until(lambda: protocol.calls == ["gone"])
    device.writes = [BlockingIOError()]
    transport.write(b"nobody")
    transport.close()
    assert await asyncio.wait_for(protocol.lost, DEADLINE) is None


async def test_an_absent_host_costs_no_wake_ups() -> None:
    """The descriptor stands at POLLIN | POLLHUP with reads of nothing, as the port does while no host is connected."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.close()
    wakes = 0

    class Counted(CharDevice):
        def changes(self) -> int:
            nonlocal wakes
            wakes += 1
            return super().changes()

    protocol = Recorder()
    transport = PortTransport(Counted(ours.detach()), "port", protocol)
    await until(lambda: protocol.calls == ["gone"])
    # A stretch of time in which nothing may happen; a level-triggered loop makes thousands of rounds in it.
    await asyncio.sleep(0.2)
    assert wakes <= 2
    transport.abort()


async def test_the_real_device_reads_and_writes_through_its_nested_epoll() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    protocol = Recorder()
    transport = PortTransport(CharDevice(ours.detach()), "port", protocol)
    transport.write(bytes(1_000_000))
    got = 0
    async with asyncio.timeout(DEADLINE):
        while got < 1_000_000:
            got += len(await asyncio.get_running_loop().sock_recv(theirs, 65_536))
    theirs.send(b"back")
    await until(lambda: protocol.data == b"back")
    theirs.close()
    transport.abort()


async def test_a_port_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(PortError, match="no such port") as caught:
        opener(str(tmp_path / "none"))(Recorder())
    assert caught.value.code == "port-absent"


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EBUSY, "port-busy"), (errno.EACCES, "port-denied"), (errno.EIO, "port-error")]
)
async def test_each_refusal_has_its_code(number: int, code: str) -> None:
    def refuse(path: str) -> CharDevice:
        raise OSError(number, os.strerror(number), path)

    with pytest.raises(PortError) as caught:
        opener("port", refuse)(Recorder())
    assert (caught.value.code, caught.value.errno) == (code, number)
