# SPDX-License-Identifier: Apache-2.0
"""Connecting to what may be no monitor: the right words, in bounded time, and not a byte written."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kit.clock import Clock
from kit.fakes.qemu import Config, FakeQemu, Rule
from kit.until import DEADLINE, until
from vcpu_host.errors import QemuGoneError, RefusedError, UsageError, VcpuctlError
from vcpu_host.qmp import connect

GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}, "package": ""}, "capabilities": []}}\r\n'
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="vq", dir="/tmp") as name:
        yield Path(name)


class Stranger:
    """Something that listens: it says its piece to one client, then keeps what it hears until the client goes."""

    def __init__(self, path: Path | str, piece: bytes, *, hang_up: bool = False) -> None:
        self.heard = b""
        self.said = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._listener.settimeout(60)
        self._piece = piece
        self._hang_up = hang_up
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        client.settimeout(60)
        with client:
            client.sendall(self._piece)
            self.said = True
            while not self._hang_up:
                try:
                    data = client.recv(4096)
                except ConnectionResetError:  # it went without having read all of our piece
                    return
                if not data:
                    return
                self.heard += data

    def close(self) -> None:
        self._thread.join(10)
        self._listener.close()


async def refusal(path: object, kind: type[VcpuctlError], *, silent: Callable[[], object] | None = None) -> str:
    """The code of the error with which connecting fails: long before its time, unless the peer is ``silent`` by then.

    Then its time passes quickly once that holds.
    """
    connecting = asyncio.ensure_future(connect(str(path), timeout=3600))
    ending = asyncio.wait_for(connecting, DEADLINE) if silent is None else Clock().ends(connecting, silent)
    with pytest.raises(kind) as caught:
        await ending
    assert caught.value.reason.text
    assert caught.value.reason.hint
    return caught.value.reason.code


async def test_a_path_where_nothing_is_may_be_that_of_a_vm_that_is_off(folder: Path) -> None:
    (folder / "link").symlink_to("nowhere")
    for path in ("nope", "nope/nope", "link"):
        assert await refusal(folder / path, QemuGoneError) == "no-such-socket"


async def test_what_can_be_no_path_of_a_socket_is_a_usage_error(folder: Path) -> None:
    (folder / "file").touch()
    (folder / "loop").symlink_to("loop")
    for path in ("\0", "", "@", folder / "file" / "nope", folder / "loop"):
        assert await refusal(path, UsageError) == "not-a-socket"


async def test_an_abstract_socket_is_a_monitor_too_and_a_vm_that_is_off_if_nobody_has_it(folder: Path) -> None:
    name = f"@{folder}"
    assert await refusal(name, QemuGoneError) == "qemu-gone"
    for bound in (f"\0{folder}", f"\0{folder}".ljust(108, "\0")):  # tight=on and tight=off
        with closing(Stranger(bound, b"login: ")) as stranger:
            assert await refusal(name, UsageError) == "not-qmp"
        assert stranger.heard == b""


async def test_a_file_or_a_directory_is_no_socket(folder: Path) -> None:
    (folder / "file").touch()
    assert await refusal(folder / "file", UsageError) == "not-a-socket"
    assert await refusal(folder, UsageError) == "not-a-socket"


async def test_a_path_that_no_socket_can_have_says_how_long_it_may_be(folder: Path) -> None:
    assert await refusal(folder / ("x" * 200), UsageError) == "path-too-long"


async def test_a_socket_that_nobody_listens_on_means_that_qemu_is_gone(folder: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as dead:
        dead.bind(str(folder / "dead"))
    assert await refusal(folder / "dead", QemuGoneError) == "qemu-gone"


async def test_a_datagram_socket_is_no_monitor(folder: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as other:
        other.bind(str(folder / "dgram"))
        assert await refusal(folder / "dgram", UsageError) == "not-qmp"


def test_a_socket_of_another_user_is_refused_with_the_way_in(folder: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as other:
        other.bind(str(folder / "private"))
        other.listen(1)
        (folder / "private").chmod(0o700)
        folder.chmod(0o755)
        assert as_nobody(folder / "private") == "not-permitted"
        folder.chmod(0o700)
        assert as_nobody(folder / "private") == "not-permitted"


#: All that is needed is imported before the rights go: nobody may not read root's Python.
_AS_NOBODY = """
import asyncio, os, sys
from vcpu_host.errors import RefusedError
from vcpu_host.qmp import connect

async def refusal():
    try:
        await connect(sys.argv[1])
    except RefusedError as error:
        return error.reason.code

os.setgid(65534)
os.setuid(65534)
print(asyncio.run(refusal()))
"""


def as_nobody(path: Path) -> str:
    """The error's code for somebody without rights, in a process of its own if we are root."""
    if os.geteuid() != 0:
        path.chmod(0)
        return asyncio.run(refusal(path, RefusedError))
    # Not by os.fork(): gRPC's threads are in this process, and a fork of it may hang.
    argv = [sys.executable, "-c", _AS_NOBODY, str(path)]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=DEADLINE).stdout.strip()


@pytest.mark.parametrize(
    "piece",
    [
        b"QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) ",
        b"\x7e\x01\x02",
        b"login: ",
        b"{\r\n",
        b'{"hello": 1}\r\n',
        b'{"QMP": 5}\r\n',
        b'{"QMP": {"version": {}}, "capabilities": []}\r\n',
        b"{" + b"x" * 100 + b"\r\n",
    ],
)
async def test_whatever_greets_otherwise_than_qmp_does_is_told_at_once_and_not_a_byte_is_sent_to_it(
    folder: Path, piece: bytes
) -> None:
    with closing(Stranger(folder / "s", piece)) as stranger:
        assert await refusal(folder / "s", UsageError) == "not-qmp"
    assert stranger.heard == b""


async def test_half_a_greeting_is_none_when_its_time_is_over(folder: Path) -> None:
    with closing(Stranger(folder / "s", b'{"QMP"')) as stranger:
        assert await refusal(folder / "s", UsageError, silent=lambda: stranger.said) == "not-qmp"
    assert stranger.heard == b""


async def test_a_silent_socket_may_be_a_busy_monitor_and_not_a_byte_is_sent_to_it(folder: Path) -> None:
    with closing(Stranger(folder / "s", b"")) as stranger:
        assert await refusal(folder / "s", RefusedError, silent=lambda: stranger.said) == "monitor-busy"
    assert stranger.heard == b""


@pytest.mark.parametrize("piece", [b"", GREETING[:30], GREETING])
async def test_a_monitor_that_hangs_up_during_the_greeting_is_gone(folder: Path, piece: bytes) -> None:
    with closing(Stranger(folder / "s", piece, hang_up=True)):
        error = UsageError if piece == GREETING[:30] else QemuGoneError
        assert await refusal(folder / "s", error) in ("qemu-gone", "not-qmp")


async def test_a_monitor_that_greets_and_then_says_nothing_ends_in_time(folder: Path) -> None:
    with closing(Stranger(folder / "s", GREETING)) as stranger:
        await refusal(folder / "s", UsageError, silent=lambda: stranger.heard)


async def test_a_monitor_with_another_client_is_busy_until_that_one_goes(folder: Path) -> None:
    async with FakeQemu(folder) as qemu:
        first = await connect(str(qemu.qmp))
        assert await refusal(qemu.qmp, RefusedError, silent=lambda: True) == "monitor-busy"
        waiting = asyncio.create_task(connect(str(qemu.qmp), timeout=3600))
        await asyncio.sleep(0)
        await first.close()
        second = await waiting
        assert (await second.look()).status == "running"
        await second.close()


@pytest.mark.parametrize("refused", [False, True])
async def test_an_answer_to_the_client_before_is_neither_a_greeting_nor_an_answer(folder: Path, refused: bool) -> None:
    async with FakeQemu(folder) as qemu:
        first = await connect(str(qemu.qmp))
        view = await first.look()
        held = Rule("before:device_add", "hold")
        qemu.faults.add(held)
        if refused:
            qemu.faults.add(Rule("after:device_add", "fail"))
        plugging = asyncio.create_task(first.plug(view.slots[1]))
        await until(lambda: any(command == "device_add" for _, command, _ in qemu.log))
        before = qemu.monitors["qmp"].client
        await first.close()
        connecting = asyncio.create_task(connect(str(qemu.qmp), timeout=3600))
        await until(lambda: qemu.monitors["qmp"].client not in {before, None})
        held.released.set()
        second = await connecting
        assert (await second.look()).slots[1].filled
        await second.close()
        with pytest.raises(QemuGoneError):
            await plugging


@pytest.mark.parametrize(
    "first",
    [
        b'{"return": [], "id": "__qmp#00007"}\r\n',
        b'{"error": {"class": "GenericError", "desc": "no"}, "id": "1"}\r\n',
        b'{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 0}}\r\n',
    ],
)
async def test_what_comes_before_the_greeting_is_for_somebody_else(folder: Path, first: bytes) -> None:
    with closing(Stranger(folder / "s", first + GREETING)) as stranger:
        assert await refusal(folder / "s", UsageError, silent=lambda: stranger.heard) == "not-qmp"  # it does not answer
    assert b"qmp_capabilities" in stranger.heard


async def test_a_full_listen_queue_is_busy_too_and_no_hang(folder: Path) -> None:
    async with FakeQemu(folder, Config(maxcpus=2)) as qemu:
        first = await connect(str(qemu.qmp))
        waiting: list[socket.socket] = []
        try:
            fill(qemu.qmp, waiting.append)
            assert await refusal(qemu.qmp, RefusedError, silent=lambda: True) == "monitor-busy"
        finally:
            for sock in waiting:
                sock.close()
        await first.close()


def fill(path: Path, keep: Callable[[socket.socket], None]) -> None:
    """Connect until the kernel's queue is full."""
    for _ in range(20):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        keep(sock)
        try:
            sock.connect(str(path))
        except BlockingIOError:
            return
    raise AssertionError("the queue has no end")
