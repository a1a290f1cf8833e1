# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from kit.until import DEADLINE
from vcpu_host.qmp.events import EventHub
from vcpu_host.qmp.monitor import SocketMonitor

_GREETING = {"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": ""}, "capabilities": []}}


async def test_what_is_asked_at_one_time_reaches_qemu_by_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[list[str]] = []
    write = asyncio.StreamWriter.write

    def noted(writer: asyncio.StreamWriter, data: bytes) -> None:
        if commands := [message["execute"] for message in _messages(data) if "execute" in message]:
            written.append(commands)
        write(writer, data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(_GREETING).encode() + b"\r\n")
        while chunk := await reader.read(1 << 16):
            for command in _messages(chunk):
                writer.write(json.dumps({"return": {}, "id": command["id"]}).encode() + b"\r\n")
        writer.close()

    monkeypatch.setattr(asyncio.StreamWriter, "write", noted)
    path = str(tmp_path / "qmp")
    async with asyncio.timeout(DEADLINE), await asyncio.start_unix_server(serve, path):
        monitor = await SocketMonitor.connect(path, EventHub(), timeout=DEADLINE, call_timeout=DEADLINE)
        together = ["query-status", "query-migrate", "query-cpus-fast"]
        await asyncio.gather(*map(monitor.call, together))
        await monitor.call("query-name")
        await monitor.close()
    assert written == [["qmp_capabilities"], together, ["query-name"]]


def _messages(data: bytes) -> list[dict[str, Any]]:
    """Those of our side have nothing between them."""
    found: list[dict[str, Any]] = json.loads(b"[" + data.replace(b"}{", b"},{") + b"]")
    return found
