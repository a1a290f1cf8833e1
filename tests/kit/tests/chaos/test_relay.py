# SPDX-License-Identifier: Apache-2.0
"""The relay before a monitor: everything passes, in both directions, and somebody sees each command first."""

from __future__ import annotations

import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kit.chaos.relay import Relay
from kit.until import DEADLINE

SOON = DEADLINE
ADD, DEL = ({"execute": name, "arguments": {"id": "vcpu-1"}} for name in ("device_add", "device_del"))


class Bench:
    """A monitor's socket, a relay before it, and clients."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.stack = stack
        self.seen: list[dict[str, Any]] = []
        self.hold = threading.Event()
        self.hold.set()
        self.monitor = stack.enter_context(socket.socket(socket.AF_UNIX))
        self.monitor.bind(str(folder / "qmp"))
        self.monitor.listen(1)
        self.monitor.settimeout(SOON)
        self.path = folder / "relay"
        self.relay = Relay(self.path, folder / "qmp", self._before)
        stack.callback(self.relay.close)

    def _before(self, command: dict[str, Any]) -> None:
        self.seen.append(command)
        assert self.hold.wait(SOON)

    def client(self) -> socket.socket:
        client = self.stack.enter_context(socket.socket(socket.AF_UNIX))
        client.settimeout(SOON)
        client.connect(str(self.path))
        return client

    def qemu(self) -> socket.socket:
        """The next client, as QEMU gets it."""
        qemu, _ = self.monitor.accept()
        qemu.settimeout(SOON)
        return self.stack.enter_context(qemu)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="vr", dir="/tmp") as name, ExitStack() as stack:
        yield Bench(Path(name), stack)


def line(command: dict[str, Any]) -> bytes:
    return json.dumps(command).encode() + b"\n"


def read(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := end.recv(size - len(data))):
        data += more
    return data


def test_both_directions_pass_and_each_command_is_seen(bench: Bench) -> None:
    client, qemu = bench.client(), bench.qemu()
    qemu.sendall(b"greeting\n")
    assert read(client, 9) == b"greeting\n"
    client.sendall(line(ADD) + line(DEL))
    assert read(qemu, len(line(ADD) + line(DEL))) == line(ADD) + line(DEL)
    assert bench.seen == [ADD, DEL]


def test_commands_need_no_lines_and_may_come_in_pieces(bench: Bench) -> None:
    client, qemu = bench.client(), bench.qemu()
    both = json.dumps(ADD).encode() + json.dumps({**DEL, "id": "über"}, ensure_ascii=False).encode()
    for byte in both:
        client.sendall(bytes([byte]))
    assert read(qemu, len(both)) == both
    assert bench.seen == [ADD, {**DEL, "id": "über"}]


def test_a_command_waits_until_it_has_been_looked_at(bench: Bench) -> None:
    client, qemu = bench.client(), bench.qemu()
    bench.hold.clear()
    client.sendall(line(DEL))
    qemu.settimeout(0.05)
    with pytest.raises(TimeoutError):
        qemu.recv(1)
    qemu.settimeout(SOON)
    bench.hold.set()
    assert read(qemu, len(line(DEL))) == line(DEL)


def test_what_a_client_has_said_arrives_although_it_is_gone_and_the_next_one_is_served(bench: Bench) -> None:
    client = bench.client()
    client.sendall(line(ADD))
    client.close()
    qemu = bench.qemu()
    assert read(qemu, len(line(ADD))) == line(ADD)
    assert qemu.recv(1) == b""
    second = bench.client()
    bench.qemu().sendall(b"greeting\n")
    assert read(second, 9) == b"greeting\n"


def test_who_comes_while_another_is_served_gets_no_greeting(bench: Bench) -> None:
    bench.client()
    bench.qemu()
    bench.client()
    bench.monitor.settimeout(0.05)
    with pytest.raises(TimeoutError):
        bench.qemu()


def test_qemu_s_end_is_the_client_s_end(bench: Bench) -> None:
    client, qemu = bench.client(), bench.qemu()
    qemu.shutdown(socket.SHUT_RDWR)
    assert client.recv(1) == b""


def test_it_can_be_closed_while_it_serves(bench: Bench) -> None:
    client, _qemu = bench.client(), bench.qemu()
    bench.relay.close()
    assert client.recv(1) == b""
