# SPDX-License-Identifier: Apache-2.0
"""The servicer over a real gRPC connection, on the fake kernel."""

from __future__ import annotations

import asyncio
import errno
import gc
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from kit.fakes.sysfs import FakeKernel, firmware_id
from kit.until import DEADLINE, until
from vcpu_guest.core.model import AgentInfo, Environment
from vcpu_guest.cpus.inventory import Inventory
from vcpu_guest.cpus.writer import Writer
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.acpi import Acpi
from vcpu_guest.rpc.service import GuestAgentService, serve
from vcpu_proto.v1 import agent_pb2 as pb
from vcpu_proto.v1 import agent_pb2_grpc

IDENTITY = AgentInfo("1.2.3", "x86_64", "6.1.0", "b" * 36, "c" * 16, "acpi", "udev")


@pytest.fixture
async def agent(tmp_path: Path, sysfs: Sysfs, inventory: Inventory) -> AsyncIterator[Any]:
    writer = Writer(sysfs, Acpi(), inventory)
    environment = Environment(
        possible="0-15", kernel_max=8191, auto_online_rules=("/etc/a.rules",), eject_enabled=False
    )
    server = await serve(
        GuestAgentService(IDENTITY, inventory, writer, "acpi", lambda: environment), str(tmp_path / "s")
    )
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 's'}") as channel:
        yield agent_pb2_grpc.GuestAgentStub(channel)  # type: ignore[no-untyped-call]
    await server.stop(None)
    # gRPC's server ends for good with its last reference, and needs the loop for it.
    del server
    gc.collect()
    assert await writer.close(DEADLINE)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return caught.value


async def test_hello_says_who_answers_and_what_the_guest_is_like(agent: Any) -> None:
    answer = await agent.Hello(pb.HelloRequest(protocol_min=1, protocol_max=1))
    assert (answer.protocol_min, answer.protocol_max, answer.agent_version) == (1, 1, "1.2.3")
    assert "set-online" in answer.capabilities
    assert (answer.platform, answer.event_source, answer.boot_id) == ("acpi", "udev", "b" * 36)
    assert list(answer.environment.auto_online_rules) == ["/etc/a.rules"]
    assert answer.environment.HasField("eject_enabled")
    assert not answer.environment.eject_enabled


async def test_list_shows_every_cpu_with_its_identity(agent: Any, kernel: FakeKernel) -> None:
    kernel.add(5)
    answer = await agent.ListCpus(pb.ListCpusRequest(request_id="r"))
    assert answer.request_id == "r"
    assert [(c.number, c.firmware_id, c.online) for c in answer.snapshot.cpus] == [
        (0, firmware_id(0), True),
        (1, firmware_id(5), False),
    ]
    assert answer.snapshot.cpus[0].cannot_offline.code == "cpu0"
    assert answer.snapshot.cpus[0].HasField("package_id")
    assert not answer.snapshot.cpus[1].HasField("core_id")


async def test_watch_gives_a_snapshot_at_once_and_after_every_change(agent: Any, kernel: FakeKernel) -> None:
    call = agent.Watch(pb.WatchRequest(request_id="w"), timeout=DEADLINE)
    first = (await call.read()).snapshot
    assert len(first.cpus) == 1
    kernel.add(5)
    last = first
    while not (len(last.cpus) == 2 and last.cpus[1].firmware_id):
        last = (await call.read()).snapshot
    assert last.generation > first.generation
    call.cancel()


async def test_set_online_answers_each_cpu_and_then_the_snapshot(agent: Any, kernel: FakeKernel) -> None:
    kernel.add(5)
    request = pb.SetOnlineRequest(request_id="s", firmware_ids=[firmware_id(5), firmware_id(6)], online=True)
    found = [answer async for answer in agent.SetOnline(request, timeout=DEADLINE)]
    assert {answer.request_id for answer in found} == {"s"}
    statuses = {a.result.firmware_id: a.result.status for a in found[:-1]}
    assert statuses == {firmware_id(5): pb.CpuResult.STATUS_DONE, firmware_id(6): pb.CpuResult.STATUS_ABSENT}
    assert [c.online for c in found[-1].final.cpus] == [True, True]


async def test_a_refusal_carries_errno_name_and_reason(agent: Any, kernel: FakeKernel) -> None:
    kernel.online.add(kernel.add(5))
    kernel._lists()
    kernel.refuse(1, errno.ENOSPC, online=False)
    request = pb.SetOnlineRequest(firmware_ids=[firmware_id(5)], online=False)
    found = [answer async for answer in agent.SetOnline(request, timeout=DEADLINE)]
    reason = found[0].result.reason
    assert found[0].result.status == pb.CpuResult.STATUS_REFUSED
    assert (reason.code, reason.errno, reason.errno_name) == ("irq-vectors", errno.ENOSPC, "ENOSPC")


@pytest.mark.parametrize(
    "request_",
    [
        pb.SetOnlineRequest(online=True),
        pb.SetOnlineRequest(firmware_ids=["acpi:a", "acpi:a"]),
        pb.SetOnlineRequest(firmware_ids=["papr:4"]),
        pb.SetOnlineRequest(firmware_ids=["acpi:a"], request_id="x" * 200),
    ],
)
async def test_a_wrong_request_is_invalid(agent: Any, kernel: FakeKernel, request_: pb.SetOnlineRequest) -> None:
    error = await refused(agent.SetOnline(request_, timeout=DEADLINE))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details()
    assert kernel.writes == []


async def test_waiting_ends_with_the_deadline(agent: Any, kernel: FakeKernel, inventory: Inventory) -> None:
    request = pb.SetOnlineRequest(firmware_ids=[firmware_id(5)], online=True, wait_for_arrival=True)
    error = await refused(agent.SetOnline(request, timeout=0.2))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: not inventory._waiting)


async def test_a_cancelled_call_starts_no_further_write(agent: Any, kernel: FakeKernel, inventory: Inventory) -> None:
    kernel.add(1)
    kernel.add(2)
    kernel.released.clear()
    call = agent.SetOnline(pb.SetOnlineRequest(firmware_ids=[firmware_id(1), firmware_id(2)], online=True))
    reading = asyncio.ensure_future(call.read())
    await until(kernel.holding.is_set)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    # The server has heard of it once a later call was answered.
    await agent.ListCpus(pb.ListCpusRequest())
    kernel.released.set()
    await until(lambda: 1 in kernel.online)
    kernel.add(3)
    request = pb.SetOnlineRequest(firmware_ids=[firmware_id(3)], online=True)
    assert len([a async for a in agent.SetOnline(request, timeout=DEADLINE)]) == 2
    assert kernel.writes == [(1, True), (3, True)]


async def test_a_cpu_is_brought_online_the_moment_it_arrives(agent: Any, kernel: FakeKernel) -> None:
    request = pb.SetOnlineRequest(firmware_ids=[firmware_id(5)], online=True, wait_for_arrival=True)
    call = agent.SetOnline(request, timeout=DEADLINE)
    reading = asyncio.ensure_future(call.read())
    kernel.add(5)
    assert (await reading).arrived.firmware_id == firmware_id(5)
    assert (await call.read()).result.status == pb.CpuResult.STATUS_DONE
    assert (await call.read()).WhichOneof("answer") == "final"


async def test_a_socket_that_cannot_be_had_is_an_error(tmp_path: Path, inventory: Inventory, sysfs: Sysfs) -> None:
    writer = Writer(sysfs, Acpi(), inventory)
    agent = GuestAgentService(IDENTITY, inventory, writer, "acpi", Environment)
    with pytest.raises(OSError, match="cannot listen"):
        await serve(agent, str(tmp_path / "no/such/directory"))
    gc.collect()
    await writer.close(DEADLINE)


async def test_a_list_has_a_cpu_that_was_brought_online_while_the_list_was_made(
    agent: Any, sysfs: Sysfs, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host ejects the CPU next, by that list."""
    number = await let_go(agent, kernel)
    read, reads = sysfs.settled_online, []

    def second_look_finds_it_online(asked: int) -> bool:
        reads.append(asked)
        if len(reads) == 2:  # the first one is before the list is made
            kernel.write(str(kernel.cpu_dir / f"cpu{number}/online"), b"1")
        return read(asked)

    monkeypatch.setattr(sysfs, "settled_online", second_look_finds_it_online)
    answer = await agent.ListCpus(pb.ListCpusRequest(request_id="l"))
    assert len(reads) >= 2
    assert {cpu.number: cpu.online for cpu in answer.snapshot.cpus}[number]


async def test_a_list_waits_once_for_a_cpu_whose_switching_does_not_end(
    agent: Any, sysfs: Sysfs, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await let_go(agent, kernel)
    monkeypatch.setattr("vcpu_guest.cpus.writer.SETTLE", 0.05)
    end, reads = threading.Event(), []

    def held(asked: int) -> bool:
        reads.append(asked)
        return end.wait(DEADLINE)

    monkeypatch.setattr(sysfs, "settled_online", held)
    monkeypatch.setattr(Writer, "stays_offline", None)  # it has nothing to add
    try:
        answer = await agent.ListCpus(pb.ListCpusRequest(request_id="l"))
    finally:
        end.set()
    assert reads[:2] == [number]
    assert {cpu.number: cpu.HasField("switching_seconds") for cpu in answer.snapshot.cpus}[number]


async def let_go(agent: Any, kernel: FakeKernel) -> int:
    """Have the agent take a CPU offline for its ejection."""
    number = kernel.add(3)
    ask = pb.SetOnlineRequest(request_id="r", firmware_ids=[firmware_id(3)], online=False, for_eject=True)
    async for _ in agent.SetOnline(ask):
        pass
    return number
