# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from kit.until import DEADLINE, until
from vcpu_guest.core.model import AgentInfo, Environment
from vcpu_guest.cpus.inventory import Inventory
from vcpu_guest.cpus.writer import Writer
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.acpi import Acpi
from vcpu_guest.rpc.server import LocalServer
from vcpu_guest.rpc.service import GuestAgentService
from vcpu_proto.v1 import agent_pb2 as pb
from vcpu_proto.v1 import agent_pb2_grpc


@pytest.fixture
async def agent(sysfs: Sysfs, inventory: Inventory) -> AsyncIterator[Any]:
    writer = Writer(sysfs, Acpi(), inventory)
    yield GuestAgentService(AgentInfo("1", "x", "6", "b", "c", "acpi", "udev"), inventory, writer, "acpi", Environment)
    await writer.close(DEADLINE)


async def listed(path: Any) -> None:
    async with grpc.aio.insecure_channel(f"unix:{path}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = agent_pb2_grpc.GuestAgentStub(channel)  # type: ignore[no-untyped-call]
        await stub.ListCpus(pb.ListCpusRequest(), timeout=DEADLINE)


async def test_it_ends_when_no_host_is_there_and_starts_again_when_asked(agent: Any, tmp_path: Path) -> None:
    sessions = [True]
    server = LocalServer(agent, str(tmp_path / "s"), lambda: bool(sessions), linger=0.01)
    for _ in range(3):
        sessions.append(True)
        await listed(await server.up())
        sessions.clear()
        await until(lambda: not server.running)
    await server.close()


async def test_a_server_whose_socket_has_gone_is_started_anew(agent: Any, tmp_path: Path) -> None:
    server = LocalServer(agent, str(tmp_path / "s"), lambda: True)
    os.unlink(await server.up())
    await listed(await server.up())
    await server.close()
    assert "s" not in os.listdir(tmp_path)


async def test_a_server_that_cannot_be_stopped_is_none_for_the_next_session(agent: Any, tmp_path: Path) -> None:
    server = LocalServer(agent, str(tmp_path / "s"), lambda: True)
    await server.up()
    whole: Any = server._server
    assert whole is not None

    class Stubborn:
        async def stop(self, grace: float | None) -> None:
            await whole.stop(grace)
            raise RuntimeError("not now")

    server._server = Stubborn()  # type: ignore[assignment]
    with pytest.raises(RuntimeError):
        await server.close()
    await listed(await server.up())
    await server.close()


async def test_it_stays_while_a_host_has_a_session(agent: Any, tmp_path: Path) -> None:
    asked: list[bool] = []

    def has_host() -> bool:
        asked.append(True)
        return True

    server = LocalServer(agent, str(tmp_path / "s"), has_host, linger=0.01)
    path = await server.up()
    await until(lambda: len(asked) > 5)
    await listed(path)
    await server.close()
    assert not server.running


async def test_a_session_that_begins_while_it_is_about_to_end_keeps_it(agent: Any, tmp_path: Path) -> None:
    asked: list[bool] = []

    def has_host() -> bool:
        # Idle at the first look, and no more at the second, which is taken under the lock.
        asked.append(True)
        return len(asked) > 1

    server = LocalServer(agent, str(tmp_path / "s"), has_host, linger=0.01)
    path = await server.up()
    await until(lambda: len(asked) > 1)
    await listed(path)
    assert server.running
    await server.close()
