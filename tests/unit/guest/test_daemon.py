# SPDX-License-Identifier: Apache-2.0
"""A real agent process on the fake kernel: start, watchdog, stop, and what it costs while nothing happens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from kit import documents
from kit.fakes.kernel_socket import KernelSocket
from kit.fakes.sysfs import FakeKernel, firmware_id
from kit.until import DEADLINE, until
from vcpu_proto.v1 import agent_pb2 as pb
from vcpu_proto.v1 import agent_pb2_grpc

ROOT = Path(__file__).resolve().parents[3]
#: Seconds for a start: importing gRPC on a machine that is busy.
START = DEADLINE


@pytest.fixture
async def kernel_socket(kernel: FakeKernel, tmp_path: Path) -> AsyncIterator[KernelSocket[FakeKernel]]:
    async with KernelSocket(kernel, tmp_path / "k") as kernel_socket:
        yield kernel_socket


@pytest.fixture
def served(kernel_socket: KernelSocket[FakeKernel]) -> FakeKernel:
    return kernel_socket.kernel


@asynccontextmanager
async def vcpud(
    kernel: FakeKernel, tmp_path: Path, *options: str, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "tests/kit/fakes/vcpud.py")),
        *("--kernel", str(tmp_path / "k"), "--sysfs", str(kernel.root), *options),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def words(process: asyncio.subprocess.Process) -> bytes:
    assert process.stderr is not None
    return await process.stderr.read()


@asynccontextmanager
async def stub(path: Any) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        agent = agent_pb2_grpc.GuestAgentStub(channel)  # type: ignore[no-untyped-call]
        await agent.ListCpus(pb.ListCpusRequest(), timeout=START, wait_for_ready=True)
        yield agent


async def test_it_tells_systemd_how_it_is_from_start_to_end(served: FakeKernel, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        loop = asyncio.get_running_loop()
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        async with vcpud(served, tmp_path, "--listen", str(tmp_path / "s"), **environment) as process:
            async with asyncio.timeout(START):
                assert (await loop.sock_recv(systemd, 200)).startswith(b"READY=1\n")
                for _ in range(3):
                    assert await loop.sock_recv(systemd, 200) == b"WATCHDOG=1"
                process.terminate()
                last = b""
                while last != b"STOPPING=1":
                    last = await loop.sock_recv(systemd, 200)
                assert await process.wait() == 0


async def test_its_socket_is_roots_alone(served: FakeKernel, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    path = tmp_path / "run/agent.sock"
    async with vcpud(served, tmp_path, "--listen", str(path)), stub(path):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


async def test_a_write_that_runs_is_waited_for_at_the_end(served: FakeKernel, tmp_path: Path) -> None:
    served.add(1)
    async with vcpud(served, tmp_path, "--listen", str(tmp_path / "s")) as process, stub(tmp_path / "s") as agent:
        served.released.clear()
        call = agent.SetOnline(pb.SetOnlineRequest(firmware_ids=[firmware_id(1)], online=True))
        reading = asyncio.ensure_future(call.read())
        await until(served.holding.is_set)
        process.send_signal(signal.SIGTERM)
        served.released.set()
        async with asyncio.timeout(START):
            assert await process.wait() == 0
        assert 1 in served.online
        reading.cancel()


async def test_events_reach_a_watch_through_the_whole_agent(served: FakeKernel, tmp_path: Path) -> None:
    async with vcpud(served, tmp_path, "--listen", str(tmp_path / "s")), stub(tmp_path / "s") as agent:
        call = agent.Watch(pb.WatchRequest(), timeout=START)
        assert len((await call.read()).snapshot.cpus) == 1
        served.add(5)
        while len((await call.read()).snapshot.cpus) == 1:
            pass
        call.cancel()


async def test_its_journal_says_at_the_default_level_which_cpus_came_and_went_and_for_whom(
    served: FakeKernel, tmp_path: Path
) -> None:
    async with vcpud(served, tmp_path, "--listen", str(tmp_path / "s")) as process:
        async with stub(tmp_path / "s") as agent:
            served.add(5)
            request = pb.SetOnlineRequest(request_id="f00-1", firmware_ids=[firmware_id(5)], online=True)
            assert len([answer async for answer in agent.SetOnline(request, timeout=START)]) == 2
        process.terminate()
        lines = (await words(process)).decode().splitlines()
    assert "cpus_online=0" in next(line for line in lines if line.startswith("info: started"))
    assert "info: CPUs online cpus=1 by='request f00-1'" in lines
    assert any(line.startswith("info: CPUs came cpus=1 ") for line in lines)


async def test_losing_the_source_of_events_ends_the_agent(
    kernel_socket: KernelSocket[FakeKernel], tmp_path: Path
) -> None:
    environment = {"WATCHDOG_USEC": "200000"}
    async with vcpud(kernel_socket.kernel, tmp_path, "--listen", str(tmp_path / "s"), **environment) as process:
        async with stub(tmp_path / "s"):
            kernel_socket.drop()
        async with asyncio.timeout(START):
            assert await process.wait() == 1
        assert b"the source of events has ended" in await words(process)


async def test_a_port_that_is_not_there_is_one_line_and_status_1(served: FakeKernel, tmp_path: Path) -> None:
    async with vcpud(served, tmp_path, "--port", str(tmp_path / "none")) as process, asyncio.timeout(START):
        assert await process.wait() == 1
        (line,) = (await words(process)).decode().splitlines()
        assert line.startswith(f"vcpud: {tmp_path / 'none'}: there is no such port")


async def test_a_configuration_that_cannot_be_read_is_one_line_and_status_2(served: FakeKernel, tmp_path: Path) -> None:
    (tmp_path / "conf").write_text("prot = 1\n")
    async with vcpud(served, tmp_path, "--config", str(tmp_path / "conf")) as process, asyncio.timeout(START):
        assert await process.wait() == 2
        assert b"unknown key 'prot'" in await words(process)


async def test_the_eject_gate_is_closed_from_start_to_end_if_it_is_asked_for(
    served: FakeKernel, tmp_path: Path
) -> None:
    (tmp_path / "conf").write_text("eject_gate = true\n")
    options = ("--config", str(tmp_path / "conf"), "--listen", str(tmp_path / "s"))
    async with vcpud(served, tmp_path, *options) as process:
        async with stub(tmp_path / "s") as agent:
            hello = await agent.Hello(pb.HelloRequest(), timeout=START)
            assert "eject-gate" in hello.capabilities
            assert not hello.environment.eject_enabled
            number = served.add(1)
            request = pb.SetOnlineRequest(firmware_ids=[firmware_id(1)], for_eject=True)
            assert len([answer async for answer in agent.SetOnline(request, timeout=START)]) == 2
            assert served.ejects == [False, True]
            assert number not in served.online
        process.terminate()
        async with asyncio.timeout(START):
            assert await process.wait() == 0
    assert served.ejects == [False, True, False]


async def test_check_prints_what_it_sees(served: FakeKernel, tmp_path: Path) -> None:
    served.add(5)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vcpu_guest", "--check", "--sysfs", str(served.root), "--events", "none"),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(START):
        out, _ = await process.communicate()
    report = json.loads(out)
    assert process.returncode == 0
    documents.check(report)
    assert [cpu["online"] for cpu in report["cpus"]] == [True, False]
    assert report["environment"]["possible"] == "0-15"
