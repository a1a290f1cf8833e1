# SPDX-License-Identifier: Apache-2.0
"""The eject gate on the fake kernel: open only while there is an agreement, closed by every end of one."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from kit.fakes.sysfs import EJECT, FakeKernel, firmware_id
from kit.until import DEADLINE, until
from vcpu_guest.core.model import AgentInfo, Environment
from vcpu_guest.cpus import eject_gate as gate_module
from vcpu_guest.cpus.eject_gate import MARK, EjectGate
from vcpu_guest.cpus.inventory import Inventory
from vcpu_guest.cpus.writer import Writer
from vcpu_guest.errors import ConfigError, StartError
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.acpi import Acpi
from vcpu_guest.rpc.service import GuestAgentService
from vcpu_proto.v1 import agent_pb2 as pb

IDENTITY = AgentInfo("1.2.3", "x86_64", "6.1.0", "b" * 36, "c" * 16, "acpi", "udev")


@pytest.fixture
def sessions() -> list[int]:
    """The link sessions so far; the last one is the present one."""
    return [1]


@pytest.fixture
async def gate(sysfs: Sysfs, inventory: Inventory, tmp_path: Path, sessions: list[int]) -> AsyncIterator[EjectGate]:
    gate = EjectGate(sysfs, inventory, str(tmp_path), lambda: sessions[-1])
    await gate.shut()
    yield gate
    await gate.close()


@pytest.fixture
async def writer(sysfs: Sysfs, inventory: Inventory) -> AsyncIterator[Writer]:
    writer = Writer(sysfs, Acpi(), inventory)
    yield writer
    assert await writer.close(DEADLINE)


def agent_with(gate: EjectGate | None, writer: Writer) -> GuestAgentService:
    return GuestAgentService(IDENTITY, writer.inventory, writer, "acpi", Environment, gate)


async def agreed(
    gate: EjectGate, kernel: FakeKernel, inventory: Inventory, *slots: int, stream: object = None
) -> list[int]:
    """Numbers of CPUs that came, are offline, and that the agent agreed to let go of."""
    numbers = [kernel.add(slot) for slot in slots]
    await until(lambda: all(inventory.find(firmware_id(slot)) is not None for slot in slots))
    for slot in slots:
        await gate.agree(firmware_id(slot), stream)
    assert kernel.ejects == [False, True]
    return numbers


async def closed(kernel: FakeKernel) -> None:
    await until(lambda: kernel.ejects == [False, True, False])


async def test_the_agents_start_closes_it_whoever_had_opened_it(
    gate: EjectGate, kernel: FakeKernel, sysfs: Sysfs, tmp_path: Path
) -> None:
    assert kernel.ejects == [False]
    assert sysfs.eject_enabled() is False
    assert (tmp_path / MARK).exists()


async def test_it_closes_when_the_last_cpu_that_was_agreed_on_has_gone(
    gate: EjectGate, kernel: FakeKernel, inventory: Inventory
) -> None:
    first, second = await agreed(gate, kernel, inventory, 5, 6)
    kernel.remove(first)
    await until(lambda: len(gate._agreed) == 1)
    assert kernel.ejects == [False, True]
    kernel.remove(second)
    await closed(kernel)


async def test_it_closes_when_the_cpu_is_online_again(
    gate: EjectGate, kernel: FakeKernel, inventory: Inventory
) -> None:
    (number,) = await agreed(gate, kernel, inventory, 5)
    kernel.write(str(kernel.cpu_dir / f"cpu{number}/online"), b"1")
    await closed(kernel)


async def test_it_closes_when_the_stream_that_asked_has_ended_and_for_no_other(
    gate: EjectGate, kernel: FakeKernel, inventory: Inventory
) -> None:
    mine, other = object(), object()
    await agreed(gate, kernel, inventory, 5, stream=mine)
    gate.withdraw(other)
    assert gate._agreed
    gate.withdraw(mine)
    await closed(kernel)


async def test_it_closes_when_the_session_that_asked_is_over(
    gate: EjectGate,
    kernel: FakeKernel,
    inventory: Inventory,
    sessions: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate_module, "LOOK", 0.01)
    await agreed(gate, kernel, inventory, 5)
    sessions.append(2)
    await closed(kernel)


async def test_it_closes_when_nothing_comes_of_it(
    gate: EjectGate, kernel: FakeKernel, inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "LOOK", 0.01)
    monkeypatch.setattr(gate_module, "PATIENCE", 0.05)
    await agreed(gate, kernel, inventory, 5)
    await closed(kernel)


async def test_a_removal_whose_event_was_lost_closes_it_too(
    gate: EjectGate, kernel: FakeKernel, inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "LOOK", 0.01)
    (number,) = await agreed(gate, kernel, inventory, 5)
    kernel.mute()
    for timer in inventory._timers.values():  # looks that are still due after the arrival
        timer.cancel()
    kernel.remove(number)
    await closed(kernel)


async def test_the_agents_end_closes_it_and_takes_its_mark_away(
    gate: EjectGate, kernel: FakeKernel, inventory: Inventory, tmp_path: Path
) -> None:
    await agreed(gate, kernel, inventory, 5)
    await gate.close()
    assert kernel.ejects == [False, True, False]
    assert not (tmp_path / MARK).exists()


async def test_a_cpu_that_the_guest_does_not_show_keeps_it_open_for_its_ejection(
    gate: EjectGate, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "LOOK", 0.01)
    looks, look = [0], gate._look

    def counted() -> None:
        looks[0] += 1
        look()

    monkeypatch.setattr(gate, "_look", counted)
    stream = object()
    await gate.agree(firmware_id(9), stream)
    await until(lambda: looks[0] > 3)
    assert kernel.ejects == [False, True]
    gate.withdraw(stream)
    await closed(kernel)


async def test_a_kernel_that_does_not_open_it_costs_the_agreement_and_no_more(
    gate: EjectGate, kernel: FakeKernel, inventory: Inventory
) -> None:
    kernel.add(5)
    await until(lambda: inventory.find(firmware_id(5)) is not None)
    kernel.eject_refusal = errno.EROFS
    await gate.agree(firmware_id(5))
    assert not gate._agreed
    kernel.eject_refusal = 0
    await until(lambda: gate._guard is not None and gate._guard.done())
    assert True not in kernel.ejects


async def test_one_that_does_not_close_at_first_is_closed_later(
    gate: EjectGate, kernel: FakeKernel, inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "LOOK", 0.01)
    (number,) = await agreed(gate, kernel, inventory, 5)
    kernel.eject_refusal = errno.EIO
    kernel.remove(number)
    await until(lambda: not gate._agreed)
    kernel.eject_refusal = 0
    await closed(kernel)


async def test_a_machine_without_the_switch_is_a_mistake_in_the_configuration(
    kernel: FakeKernel, sysfs: Sysfs, inventory: Inventory, tmp_path: Path
) -> None:
    (kernel.root / EJECT).unlink()
    with pytest.raises(ConfigError, match="take eject_gate out"):
        await EjectGate(sysfs, inventory, str(tmp_path), lambda: 1).shut()


async def test_a_switch_that_cannot_be_written_keeps_the_agent_from_starting(
    kernel: FakeKernel, sysfs: Sysfs, inventory: Inventory, tmp_path: Path
) -> None:
    kernel.eject_refusal = errno.EROFS
    with pytest.raises(StartError, match="Read-only file system"):
        await EjectGate(sysfs, inventory, str(tmp_path), lambda: 1).shut()


async def test_a_switch_that_may_no_longer_be_written_is_told_in_hello(
    gate: EjectGate, kernel: FakeKernel, writer: Writer
) -> None:
    agent = agent_with(gate, writer)
    hello = await agent.Hello(pb.HelloRequest(), cast("Any", None))
    assert not hello.environment.HasField("writable")
    kernel.deny(errno.EROFS)
    hello = await agent.Hello(pb.HelloRequest(), cast("Any", None))
    assert not hello.environment.writable
    assert list(hello.environment.unwritable) == [f"{kernel.root / EJECT}: EROFS"]
    kernel.deny(0)


async def test_the_gate_is_open_before_the_host_hears_that_the_cpu_is_offline_and_closed_while_it_is_not(
    gate: EjectGate, kernel: FakeKernel, writer: Writer
) -> None:
    kernel.online.update(kernel.add(slot) for slot in (1, 2))
    kernel._lists()
    writer.inventory.scan()
    kernel.refuse(1, errno.EBUSY, online=False)
    agent = agent_with(gate, writer)
    request = pb.SetOnlineRequest(firmware_ids=[firmware_id(1), firmware_id(2)], for_eject=True)
    answers = agent._set_online(request)
    assert (await anext(answers)).result.status == pb.CpuResult.STATUS_REFUSED
    assert True not in kernel.ejects
    assert (await anext(answers)).result.status == pb.CpuResult.STATUS_DONE
    assert kernel.ejects == [False, True]
    await answers.aclose()


@pytest.mark.parametrize("wanted", [pb.SetOnlineRequest(), pb.SetOnlineRequest(online=True, for_eject=True)])
async def test_a_request_that_is_for_no_ejection_leaves_it_closed(
    gate: EjectGate, kernel: FakeKernel, writer: Writer, wanted: pb.SetOnlineRequest
) -> None:
    kernel.add(1)
    writer.inventory.scan()
    wanted.firmware_ids.append(firmware_id(1))
    assert len([answer async for answer in agent_with(gate, writer)._set_online(wanted)]) == 2
    assert kernel.ejects == [False]


async def test_without_the_option_it_is_never_touched(kernel: FakeKernel, writer: Writer) -> None:
    kernel.add(1)
    writer.inventory.scan()
    request = pb.SetOnlineRequest(firmware_ids=[firmware_id(1)], for_eject=True)
    assert len([answer async for answer in agent_with(None, writer)._set_online(request)]) == 2
    assert kernel.ejects == []
