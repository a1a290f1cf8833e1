# SPDX-License-Identifier: Apache-2.0
"""A port, and a guest with an echo server behind its link."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kit.fakes.link_ends import Guest
from kit.fakes.virtio_port import VirtioPort


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[VirtioPort]:
    async with VirtioPort(tmp_path) as port:
        yield port


@pytest.fixture
async def guest(port: VirtioPort, tmp_path: Path) -> AsyncIterator[Guest]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    path = str(tmp_path / "server")
    server = await asyncio.start_unix_server(echo, path)
    guest = Guest(port, path)
    yield guest
    await guest.end()
    server.close()
