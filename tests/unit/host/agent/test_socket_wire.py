# SPDX-License-Identifier: Apache-2.0
"""The link over the chardev's socket: who is there, who is not, and who holds it."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import closing
from pathlib import Path

import pytest
from kit.clock import Clock
from kit.fakes.link_ends import Guest, until
from kit.fakes.virtio_port import VirtioPort
from vcpu_host.agent.socket_wire import wire_to
from vcpu_host.local.unix_sockets import bound_name, dial
from vcpu_proto.link import BusyError, HostLink, NoAnswerError, UnreachableError


async def test_no_socket_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="No such file"):
        await HostLink.connect(wire_to(str(tmp_path / "none")))


async def test_a_port_in_use_is_busy_and_not_a_hang(port: VirtioPort, guest: Guest) -> None:
    guest.start()
    async with await HostLink.connect(wire_to(port.host_path)) as first:
        # It does not take the time, which is longer than the test's own.
        with pytest.raises(BusyError):
            await HostLink.connect(wire_to(port.host_path), timeout=3600)
        await first.ping(60)


async def test_a_port_in_use_is_busy_by_whatever_path_it_is_reached(
    port: VirtioPort, guest: Guest, tmp_path: Path
) -> None:
    guest.start()
    (tmp_path / "link").symlink_to(port.host_path)
    async with await HostLink.connect(wire_to(tmp_path / "link")):
        with pytest.raises(BusyError):
            await HostLink.connect(wire_to(tmp_path / "link"), timeout=3600)


async def test_an_abstract_socket_is_reached_by_its_name_and_busy_under_it(tmp_path: Path) -> None:
    async with VirtioPort(tmp_path, abstract=True) as port:
        assert port.host_path.startswith("@")
        connecting = asyncio.ensure_future(HostLink.connect(wire_to(port.host_path), timeout=60))
        with pytest.raises(NoAnswerError):
            await Clock().ends(connecting, lambda: port.host_connected)
        await until(lambda: not port.host_connected)
        with closing(dial(port.host_path)) as other:
            assert bound_name(other) == port.host_path
            await until(lambda: port.host_connected)
            with pytest.raises(BusyError):
                await HostLink.connect(wire_to(port.host_path), timeout=3600)


async def test_an_abstract_name_that_takes_all_of_the_address_is_reached_and_busy_too() -> None:
    name = f"@vcpuctl-test-{os.getpid()}"
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(f"\0{name[1:]}".ljust(108, "\0"))
        listener.listen(1)
        with closing(dial(name)) as first:
            assert bound_name(first) == name
            accepted, _ = listener.accept()
            with accepted, pytest.raises(BusyError):
                await HostLink.connect(wire_to(name), timeout=3600)
        with pytest.raises(UnreachableError):
            await HostLink.connect(wire_to(f"{name}x"))


async def test_nothing_is_written_to_what_a_check_refuses(port: VirtioPort, guest: Guest) -> None:
    guest.start()
    seen: list[str] = []

    def check(connection: socket.socket) -> None:
        seen.append(bound_name(connection))
        raise ValueError("not ours")

    with pytest.raises(ValueError, match="not ours"):
        await HostLink.connect(wire_to(port.host_path, check))
    assert seen == [port.host_path]
    await until(lambda: not port.host_connected)
    assert port.total == 0


async def test_a_port_whose_queue_is_full_is_busy_at_once(port: VirtioPort, guest: Guest) -> None:
    guest.start()
    async with await HostLink.connect(wire_to(port.host_path)):
        waiting = [dial(port.host_path) for _ in range(2)]
        with pytest.raises(BusyError):
            await HostLink.connect(wire_to(port.host_path), timeout=3600)
        for connection in waiting:
            connection.close()
