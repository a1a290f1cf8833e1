# SPDX-License-Identifier: Apache-2.0
"""The way to the agent by libvirt's channel: what fails on it is the agent's trouble, and leaves QEMU's side alone."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kit.fakes.adapters import until
from kit.fakes.libvirt_module import FakeLibvirt
from kit.fakes.libvirt_stream import FakeStream, LibvirtError
from kit.sim.views import host
from kit.until import DEADLINE
from vcpu_host.agent.dialer import LinkDialer
from vcpu_host.core import codes
from vcpu_host.core.identity import DomainId
from vcpu_host.core.model import Channel
from vcpu_host.errors import AgentGoneError, RefusedError, VcpuctlError
from vcpu_host.libvirt import binding
from vcpu_host.libvirt.port import ChannelPort
from vcpu_host.libvirt.stream import StreamTransport
from vcpu_proto.link import HostWire, WireProtocol

URI = "qemu+ssh://root@host1/system"


@pytest.fixture(name="libvirt")
def _libvirt(monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
    fake = FakeLibvirt()
    monkeypatch.setattr(binding, "module", lambda: fake)
    return fake


def _port(timeout: float = DEADLINE) -> ChannelPort:
    port = ChannelPort(URI, timeout=timeout)

    async def holder() -> str:
        return "vcpuctl serve on host2, process 7"

    port.belongs_to(cast("Any", SimpleNamespace(identity=DomainId("uuid", "host"))), holder)
    return port


async def _dialled(timeout: float = DEADLINE) -> VcpuctlError:
    """What a session with the agent fails with."""
    port = _port(timeout)
    try:
        with pytest.raises((AgentGoneError, RefusedError)) as error:
            await LinkDialer(port).dial(host(4, {0}, channel=Channel(None, guest_open=True)), 60.0)
    finally:
        await port.close()
    return error.value


async def test_a_connection_that_cannot_be_opened_for_the_channel_is_the_agents_trouble(libvirt: FakeLibvirt) -> None:
    libvirt.refuse = True
    error = await _dialled()
    assert isinstance(error, AgentGoneError)
    assert error.reason.code == codes.LIBVIRT_GONE
    assert "channel" in error.reason.text
    libvirt.refuse, libvirt.hang = False, True
    error = await _dialled(timeout=0.05)
    libvirt.goes_on.set()
    assert isinstance(error, AgentGoneError)
    assert error.reason.code == codes.LIBVIRT_SILENT


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        (LibvirtError("End of file while reading data: Input/output error", 38), AgentGoneError, "libvirt-gone"),
        (LibvirtError("Requested operation is not valid: domain is not running", 55, 10), AgentGoneError, "domain-off"),
        (LibvirtError("Domain not found", 42, 10), AgentGoneError, "no-such-domain"),
        (LibvirtError("operation forbidden: read only access", 29, 0), AgentGoneError, "libvirt-denied"),
        (LibvirtError("internal error: cannot find channel x", 1, 10), AgentGoneError, "no-channel"),
        (LibvirtError("operation failed: Active channel stream exists", 9, 10), RefusedError, "port-busy"),
    ],
)
async def test_whatever_libvirt_says_of_the_channel_is_told_of_the_agent(
    libvirt: FakeLibvirt, monkeypatch: pytest.MonkeyPatch, said: LibvirtError, kind: type[Exception], code: str
) -> None:
    monkeypatch.setattr("vcpu_host.libvirt.port._PATIENCE", 0.0)
    libvirt.no_channel = said
    error = await _dialled()
    assert type(error) is kind
    assert error.reason.code == code
    assert not [each for each in libvirt.opened if each.open]
    if code == codes.PORT_BUSY:
        assert "vcpuctl serve on host2, process 7" in error.reason.text


async def _hanging(libvirt: FakeLibvirt) -> tuple[ChannelPort, HostWire, FakeStream]:
    """A wire whose guest reads nothing."""
    stream = FakeStream()
    stream.takes = None
    libvirt.stream = lambda: stream
    port = _port()
    wire = await port.wire(host(4, {0}))(WireProtocol())
    libvirt.stream = FakeStream
    wire.transport.write(b"x")
    assert await asyncio.to_thread(stream.hanging.wait, DEADLINE)
    return port, wire, stream


async def test_a_channel_whose_stream_hangs_is_free_for_others_once_the_port_is_closed(libvirt: FakeLibvirt) -> None:
    port, wire, stream = await _hanging(libvirt)
    wire.transport.abort()
    await port.close()
    assert stream.freed.is_set()
    (by_force,) = libvirt.forced
    assert by_force.finished.is_set(), "it is not kept"
    await until(lambda: not [each for each in libvirt.opened if each.open])


async def test_a_channel_is_not_taken_from_whoever_has_it_once_our_stream_has_let_go(libvirt: FakeLibvirt) -> None:
    port, wire, stream = await _hanging(libvirt)
    libvirt.hang = True  # the way by which the channel is freed takes its time
    wire.transport.abort()
    await until(lambda: libvirt.attempts == 2)
    stream.freed.set()
    theirs = libvirt.holder = FakeStream()
    await until(lambda: not cast("StreamTransport", wire.transport).held)
    libvirt.goes_on.set()
    await port.close()
    assert (libvirt.forced, theirs.freed.is_set()) == ([], False)
