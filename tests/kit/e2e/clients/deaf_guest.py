# SPDX-License-Identifier: Apache-2.0
"""``deaf_guest.py URI DOMAIN``: vcpuctl's own way to a domain's channel, used while nobody in the guest reads.

It writes until libvirt's stream hangs, gives up, and prints the seconds that giving up took. The libraries of vcpuctl
are imported, and nothing else of the tests.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from vcpu_host.libvirt.connection import Connection
from vcpu_host.libvirt.domain import Domain
from vcpu_host.libvirt.port import ChannelPort
from vcpu_proto.link import WireProtocol

_PIECE, _PIECES = b"x" * 65536, 64
#: For as long libvirt has to take nothing, in seconds, to be said to hang.
_STILL = 1.0


class _Lost(WireProtocol):
    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


async def _nobody() -> str:
    return ""


async def main(uri: str, name: str) -> None:
    connection = await Connection.open(uri, timeout=30, call_timeout=30)
    domain = await Domain.find(connection, name)
    port = ChannelPort(uri)
    port.belongs_to(domain, _nobody)
    protocol = _Lost()
    host: Any = None  # which libvirt's port does not look at
    wire = await port.wire(host)(protocol)
    transport = wire.transport
    for _ in range(_PIECES):
        transport.write(_PIECE)
    left, since = 0, time.monotonic()
    while time.monotonic() - since < _STILL:
        now = transport.get_write_buffer_size()
        if now != left:
            left, since = now, time.monotonic()
        await asyncio.sleep(0.05)
    assert 0 < left < len(_PIECE) * _PIECES, left
    began = time.monotonic()
    transport.abort()
    await protocol.lost.wait()
    await port.close()
    await domain.close()
    print(time.monotonic() - began)


asyncio.run(main(*sys.argv[1:]))
