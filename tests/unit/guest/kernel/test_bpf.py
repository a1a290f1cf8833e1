# SPDX-License-Identifier: Apache-2.0
"""The filter in the kernel's own interpreter, on a socket that needs no rights."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from vcpu_guest.kernel import bpf

#: All that the kernel says (lib/kobject_uevent.c, kobject_actions).
ACTIONS = ("add", "remove", "change", "move", "online", "offline", "bind", "unbind")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    kernel, agent = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    agent.setblocking(False)
    bpf.attach(agent)
    yield kernel, agent
    kernel.close()
    agent.close()


def passes(ends: tuple[socket.socket, socket.socket], message: bytes) -> bool:
    kernel, agent = ends
    kernel.send(message)
    try:
        assert agent.recv(4096) == message
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("number", [0, 9, 10, 4095])
def test_every_event_of_a_cpu_passes(ends: tuple[socket.socket, socket.socket], action: str, number: int) -> None:
    path = f"/devices/system/cpu/cpu{number}"
    assert passes(ends, f"{action}@{path}\0ACTION={action}\0DEVPATH={path}\0SUBSYSTEM=cpu\0".encode())


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    "path",
    [
        "/devices/system/machinecheck/machinecheck3",
        "/devices/system/cpu/cpufreq",
        "/devices/system/cpu/cpu",
        "/devices/system/cpv/cpu1",
        "/devices/virtual/cpuid/cpu3",
        "/d",
        "/module/x",
    ],
)
def test_the_events_of_others_do_not(ends: tuple[socket.socket, socket.socket], action: str, path: str) -> None:
    assert not passes(ends, f"{action}@{path}\0ACTION={action}\0DEVPATH={path}\0".encode())


@pytest.mark.parametrize("message", [b"replace@/devices/system/cpu/cpu1\0", b"libudev\0\xfe\xed\xca\xfe and so on"])
def test_what_it_does_not_understand_passes(ends: tuple[socket.socket, socket.socket], message: bytes) -> None:
    assert passes(ends, message)
