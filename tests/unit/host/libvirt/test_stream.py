# SPDX-License-Identifier: Apache-2.0
"""A libvirt stream as a transport: nothing of what a guest does, or does not do, hangs or fills this process."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from kit.fakes.adapters import until
from kit.fakes.libvirt_stream import FakeModule, FakeStream, LibvirtError
from kit.until import DEADLINE
from vcpu_host.libvirt import binding, stream


class Heard(asyncio.Protocol):
    """What a protocol is told."""

    def __init__(self) -> None:
        self.data = b""
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.full: list[bool] = []

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    def pause_writing(self) -> None:
        self.full.append(True)

    def resume_writing(self) -> None:
        self.full.append(False)


class Rig:
    """A transport over a stand-in of a stream."""

    def __init__(self) -> None:
        self.stream = FakeStream()
        self.heard = Heard()
        self.cuts = 0
        self.frees = True  # whoever cuts it off
        self.over = asyncio.Event()
        self.transport = stream.StreamTransport(self.stream, self.heard, self._cut, self.over.set)
        self.transport.begin()
        self.transport.start()

    def _cut(self) -> None:
        self.cuts += 1
        if self.frees:
            self.stream.freed.set()

    async def tell(self, *pieces: bytes | Exception) -> None:
        """Let these come in another thread, and have the loop take them in."""
        await asyncio.to_thread(self.stream.tell, *pieces)
        await asyncio.sleep(0)


async def _until(condition: threading.Event) -> None:
    assert await asyncio.to_thread(condition.wait, 60)


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "module", FakeModule)


async def test_what_comes_is_handed_on_in_order_and_its_end_is_told() -> None:
    rig = Rig()
    await rig.tell(b"one ", b"two ")
    await rig.tell(b"three", b"")
    async with asyncio.timeout(DEADLINE):
        error = await rig.heard.lost
        await rig.over.wait()
    assert (rig.heard.data, rig.cuts) == (b"one two three", 0)
    assert isinstance(error, ConnectionError)


async def test_a_stream_that_fails_is_told_in_libvirts_words() -> None:
    rig = Rig()
    await rig.tell(b"one", LibvirtError("stream had I/O failure"))
    async with asyncio.timeout(DEADLINE):
        error = await rig.heard.lost
    assert (rig.heard.data, str(error)) == (b"one", "stream had I/O failure")


async def test_what_is_written_goes_out_whole_whatever_a_send_takes() -> None:
    rig = Rig()
    for takes, data in ((3, b"abcdefgh"), (0, b"ijkl"), (1 << 20, b"mn")):
        rig.stream.takes = takes
        rig.transport.write(data)
        await until(lambda: not rig.transport.get_write_buffer_size())
    rig.transport.close()
    await _until(rig.stream.finished)
    async with asyncio.timeout(DEADLINE):
        assert await rig.heard.lost is None
        await rig.over.wait()
    assert rig.stream.sent == b"abcdefghijklmn"


async def test_a_guest_that_does_not_read_hangs_nobody() -> None:
    rig = Rig()
    rig.stream.takes = None
    rig.transport.write(b"x" * 100_000)
    assert rig.heard.full == [True]
    await _until(rig.stream.hanging)
    rig.transport.close()
    assert not rig.heard.lost.done(), "what was written may go out yet"
    rig.transport.abort()
    assert rig.heard.lost.done()
    assert rig.cuts == 0, "nobody knows yet that it hangs"
    async with asyncio.timeout(DEADLINE):
        await rig.transport.settled()
        assert rig.cuts == 1, "the channel has to be freed by another way, or nobody can open it"
        await rig.over.wait()
    assert not rig.transport.held


async def test_a_stream_that_lets_go_by_itself_is_not_cut_off_though_a_write_was_under_way() -> None:
    rig = Rig()
    rig.stream.takes = None
    rig.transport.write(b"x")
    await _until(rig.stream.hanging)
    rig.transport.abort()
    assert rig.transport.held
    rig.stream.freed.set()
    async with asyncio.timeout(DEADLINE):
        await rig.over.wait()
        await rig.transport.settled()
    rig.transport._cut_off()  # its time is over by now
    assert (rig.cuts, rig.transport.held) == (0, False)


async def test_a_stream_that_has_let_go_is_held_no_more_though_its_thread_lives_on_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig, judged = Rig(), threading.Event()
    loop = asyncio.get_running_loop()
    tell = loop.call_soon_threadsafe

    def lingering(what: Any, *arguments: Any, **more: Any) -> asyncio.Handle:
        handle = tell(what, *arguments, **more)
        if what == rig.transport._used_no_more:
            assert judged.wait(DEADLINE)
        return handle

    monkeypatch.setattr(loop, "call_soon_threadsafe", lingering)
    rig.transport.close()
    async with asyncio.timeout(DEADLINE):
        await rig.over.wait()
    held = rig.transport.held
    judged.set()
    assert not held


async def test_a_stream_that_hangs_and_floods_is_cut_off_once() -> None:
    rig = Rig()
    rig.frees = False
    rig.stream.takes = None
    rig.transport.write(b"x")
    await _until(rig.stream.hanging)
    rig.transport.pause_reading()
    await rig.tell(b"x" * 65_536, *[b"x" * 65_536] * (stream.MOST // 65_536))
    async with asyncio.timeout(DEADLINE):
        await rig.heard.lost
    rig.transport.abort()
    rig.transport._cut_off()  # its time is over, and it still hangs
    assert (rig.cuts, rig.transport.held) == (1, True)
    rig.stream.freed.set()
    async with asyncio.timeout(DEADLINE):
        await rig.over.wait()


async def test_a_guest_that_floods_a_reader_who_waits_is_cut_off_at_a_bound() -> None:
    rig = Rig()
    rig.transport.pause_reading()
    piece = b"x" * 65_536
    pieces = stream.MOST // len(piece)
    await rig.tell(*[piece] * pieces)
    assert not rig.heard.lost.done()
    rig.transport.resume_reading()
    assert len(rig.heard.data) == stream.MOST
    rig.transport.pause_reading()
    await rig.tell(*[piece] * (pieces + 1))
    async with asyncio.timeout(DEADLINE):
        error = await rig.heard.lost
    assert (rig.cuts, str(error)) == (1, "the guest sends more than anybody reads")


async def test_writing_is_asked_to_wait_and_to_go_on() -> None:
    rig = Rig()
    rig.stream.takes = 50_000
    rig.transport.write(b"x" * 100_000)
    await until(lambda: rig.heard.full == [True, False])
    rig.transport.abort()
    async with asyncio.timeout(DEADLINE):
        await rig.over.wait()
    assert rig.cuts == 0, "nothing hangs"


async def test_a_stream_that_is_closed_while_it_is_read_is_told_as_lost() -> None:
    rig = Rig()
    rig.transport.abort()
    async with asyncio.timeout(DEADLINE):
        await rig.over.wait()
    rig.stream.comes.append(LibvirtError("operation failed: stream is closed"))
    rig.transport._readable(rig.stream, 1, None)  # libvirt's thread was in it when the stream was closed
    assert await rig.heard.lost is None
