# SPDX-License-Identifier: Apache-2.0
"""POWER guests with legacy events: the agent does what the kernel leaves to user space, once, and only that."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kit.fakes.papr import FakePapr, record
from kit.until import DEADLINE, until
from vcpu_guest import logs
from vcpu_guest import machine as machine_module
from vcpu_guest.core.model import CpuEvent, CpuResult, CpuStatus
from vcpu_guest.core.request import Request
from vcpu_guest.cpus import writer as writer_module
from vcpu_guest.cpus.inventory import Inventory
from vcpu_guest.cpus.writer import Writer
from vcpu_guest.kernel import procfs
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.pseries import Pseries
from vcpu_guest.platforms.rtas import ErrdHotplug, RtasHotplug

#: The fake's records say that they were made at 20:47:18 on 2026-11-22.
BEFORE, AFTER = datetime(2026, 11, 22, 20, 47, 17, tzinfo=UTC), datetime(2026, 11, 22, 20, 47, 19, tzinfo=UTC)


@pytest.fixture
def papr(tmp_path: Path) -> Iterator[FakePapr]:
    papr = FakePapr(tmp_path / "sys")
    yield papr
    papr.close()


class Agent:
    """The agent's parts on it."""

    def __init__(self, papr: FakePapr, *, log: bool = True, booted: datetime = BEFORE) -> None:
        self.errd = False
        sysfs = Sysfs(papr.root, papr.write)
        platform = Pseries(sysfs)
        paths = [papr.log_path] if log else ["/nowhere/error_log"]
        self.hotplug = RtasHotplug(sysfs, platform, lambda: self.errd, paths, papr.write, lambda _: booted)
        self.inventory = Inventory(sysfs, platform)
        loop = asyncio.get_running_loop()
        papr.tell = lambda action, number: loop.call_soon_threadsafe(self.inventory.on_event, CpuEvent(action, number))
        self.inventory.scan()
        self.writer = Writer(sysfs, platform, self.inventory, self.hotplug)

    def known(self) -> set[str]:
        return {cpu.firmware_id for cpu in self.inventory.snapshot().cpus}


@pytest.fixture
async def agent(papr: FakePapr) -> AsyncIterator[Agent]:
    agent = Agent(papr)
    yield agent
    assert await agent.writer.close(DEADLINE)


def _broken() -> Iterator[bytes]:
    yield record(1, 0x10000004)
    raise OSError(errno.EIO, "no log")


def ids(*servers: int) -> set[str]:
    return {f"papr:{server}" for server in servers}


async def test_a_plugged_core_is_taken_in_with_all_its_threads(papr: FakePapr, agent: Agent) -> None:
    papr.plug(4)
    await until(lambda: agent.known() == ids(0, 1, 4, 5))
    assert papr.orders == ["cpu add index 0x10000004"]
    assert papr.online == {0, 1, 2, 3}


async def test_a_core_that_is_to_go_is_let_go(papr: FakePapr, agent: Agent) -> None:
    papr.plug(4)
    await until(lambda: agent.known() == ids(0, 1, 4, 5))
    papr.unplug(4)
    await until(lambda: agent.known() == ids(0, 1))
    assert papr.orders[-1] == "cpu remove index 0x10000004"


async def test_cores_that_are_numbered_as_they_come_are_told_apart_by_their_connectors(tmp_path: Path) -> None:
    papr = FakePapr(tmp_path / "sys", threads=1, arrivals=True)
    try:
        agent = Agent(papr)
        papr.plug(3)  # whose thread has the number 1
        await until(lambda: agent.known() == ids(0, 1))
        papr.plug(1)
        await until(lambda: agent.known() == ids(0, 1, 2))
        papr.unplug(3)
        await until(lambda: agent.known() == ids(0, 2))
        assert [order.split()[-1] for order in papr.orders] == ["0x10000003", "0x10000001", "0x10000003"]
        assert await agent.writer.close(DEADLINE)
    finally:
        papr.close()


async def test_what_came_while_no_agent_was_running_is_made_good(papr: FakePapr) -> None:
    papr.plug(2)
    papr.plug(6)
    agent = Agent(papr)
    await until(lambda: agent.known() == ids(0, 1, 2, 3, 6, 7))
    assert await agent.writer.close(DEADLINE)


async def test_of_many_records_about_a_core_the_last_one_counts(papr: FakePapr) -> None:
    papr.plug(2)
    papr.unplug(2)
    papr.plug(4)
    agent = Agent(papr)
    await until(lambda: agent.known() == ids(0, 1, 4, 5))
    assert papr.orders == ["cpu add index 0x10000004"]
    assert await agent.writer.close(DEADLINE)


@pytest.mark.parametrize(
    "data",
    [
        record(1, 0x10000000),
        record(2, 0x10000006),
        record(1, 0x20000002),
        record(3, 0x10000002),
        record(1, 0x10000002)[:100],
        b"\xff" * 2052,
    ],
    ids=["there", "gone", "no CPU", "no action", "cut", "garbage"],
)
async def test_a_record_that_asks_nothing_of_us_does_no_harm(papr: FakePapr, agent: Agent, data: bytes) -> None:
    papr.log(data)
    papr.plug(4)
    await until(lambda: agent.known() == ids(0, 1, 4, 5))
    assert papr.orders == ["cpu add index 0x10000004"]


async def test_a_core_that_the_kernel_refuses_is_told_and_the_next_one_taken(
    papr: FakePapr, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[dict[str, object]] = []
    monkeypatch.setattr(logs, "warning", lambda _event, **fields: warnings.append(fields))
    papr.log(record(1, 0x10000002))  # which the hypervisor has not plugged
    papr.plug(4)
    await until(lambda: agent.known() == ids(0, 1, 4, 5))
    assert warnings == [{"action": "add", "drc_index": "0x10000002", "errno": "EINVAL"}]
    assert agent.hotplug.alive


async def test_a_request_heals_a_lost_record(papr: FakePapr, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "RESCAN", 0.01)
    papr.plug(4, lost=True)
    request = Request(("papr:4", "papr:5"), online=True, wait=True)
    async with asyncio.timeout(DEADLINE):
        answers = [answer async for answer in agent.writer.run(request)]
    assert {a.firmware_id: a.status for a in answers if isinstance(a, CpuResult)} == dict.fromkeys(
        ("papr:4", "papr:5"), CpuStatus.ALREADY
    )
    assert set(papr.orders) == {"cpu add index 0x10000004"}


async def test_without_a_log_cores_come_when_they_are_waited_for(
    papr: FakePapr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RESCAN", 0.01)
    agent = Agent(papr, log=False)
    assert (agent.hotplug.name, agent.hotplug.alive) == ("dlpar", True)
    papr.plug(4)
    request = Request(("papr:4", "papr:5"), online=True, wait=True)
    async with asyncio.timeout(DEADLINE):
        answers = [answer async for answer in agent.writer.run(request)]
    assert {a.firmware_id for a in answers if isinstance(a, CpuResult)} == ids(4, 5)
    assert await agent.writer.close(DEADLINE)


@pytest.mark.parametrize(
    ("offline", "booted", "left"),
    [(False, AFTER, ids(0, 1, 4, 5)), (True, AFTER, ids(0, 1)), (False, BEFORE, ids(0, 1))],
    ids=["in use", "let go", "of this boot"],
)
async def test_a_removal_that_a_restart_brings_back_is_not_done_to_a_core_in_use(
    papr: FakePapr, offline: bool, booted: datetime, left: set[str]
) -> None:
    papr.plug(4)
    before = Agent(papr)
    await until(lambda: before.known() == ids(0, 1, 4, 5))
    assert await before.writer.close(DEADLINE)
    if offline:
        papr.take_offline(4)
    papr.unplug(4)
    papr.plug(2)  # the record after it shows that the agent has come by
    agent = Agent(papr, booted=booted)
    await until(lambda: agent.known() == left | ids(2, 3))
    assert await agent.writer.close(DEADLINE)


def test_a_number_whose_thread_is_not_known_yet_is_not_taken_for_the_boot_cpu(papr: FakePapr) -> None:
    platform, sysfs = Pseries(Sysfs(papr.root)), Sysfs(papr.root)
    assert sysfs.read_cpu_number(2, "physical_id") == 0
    assert [platform.identity(sysfs, number) for number in (0, 1, 2)] == ["papr:0", "papr:1", ""]


async def test_nothing_is_tried_for_a_name_that_is_no_threads(papr: FakePapr, agent: Agent) -> None:
    agent.hotplug.summon(["acpi:4", "papr:", "papr:x", "papr:-4"])
    papr.plug(6)
    await until(lambda: agent.known() == ids(0, 1, 6, 7))
    assert papr.orders == ["cpu add index 0x10000006"]


async def test_when_rtas_errd_appears_the_records_are_left_to_it(papr: FakePapr, agent: Agent) -> None:
    agent.errd = True
    assert not agent.hotplug.alive
    papr.plug(4)
    async with asyncio.timeout(DEADLINE):
        await agent.hotplug.ended()
    agent.errd = False
    assert not agent.hotplug.alive  # it has let go of the log for good
    assert papr.orders == []


async def test_a_log_that_cannot_be_read_ends_the_agent_rather_than_spinning(
    papr: FakePapr, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent.hotplug, "_records", lambda: iter(_broken()))
    papr.plug(4)
    await until(lambda: not agent.hotplug.alive)
    # what was read before that is not lost
    await until(lambda: papr.orders == ["cpu add index 0x10000004"])


async def test_beside_rtas_errd_nothing_is_done_until_it_ends() -> None:
    running = True
    aside = ErrdHotplug(lambda: running)
    aside.start(lambda work: pytest.fail("it acted"), lambda: None)
    aside.summon(["papr:4"])
    assert (aside.name, aside.alive) == ("rtas_errd", True)
    running = False
    assert not aside.alive
    aside.close()


@pytest.mark.parametrize(("errd", "kind"), [(True, ErrdHotplug), (False, RtasHotplug)])
def test_whether_rtas_errd_runs_decides_who_acts(
    papr: FakePapr, monkeypatch: pytest.MonkeyPatch, errd: bool, kind: type
) -> None:
    monkeypatch.setattr(procfs, "runs", lambda command: errd and command == "rtas_errd")
    sysfs = Sysfs(papr.root)
    made = machine_module.HOTPLUG_HANDLERS[Pseries(sysfs).hotplug](sysfs, Pseries(sysfs))
    assert type(made) is kind
    made.close()


async def test_a_number_that_another_core_got_is_that_cores(papr: FakePapr, agent: Agent) -> None:
    papr.plug(4)
    await until(lambda: agent.known() == ids(0, 1, 4, 5))
    # nothing tells of the one that goes nor of the one that comes
    papr.tell = lambda action, number: None
    papr.write("/sys/kernel/dlpar", b"cpu remove index 0x10000004")
    papr.plugged[6] = 6
    papr.write("/sys/kernel/dlpar", b"cpu add index 0x10000006")
    assert agent.known() == ids(0, 1, 6, 7)
    assert (agent.inventory.find("papr:4"), agent.inventory.find("papr:6")) == (None, 2)


async def test_what_was_done_is_seen_though_no_event_tells_of_it(papr: FakePapr, agent: Agent) -> None:
    papr.tell = lambda action, number: None
    papr.plug(4)
    await until(lambda: agent.inventory.find("papr:4") is not None)


async def test_in_a_watch_a_core_is_missed_though_only_its_going_offline_is_told(papr: FakePapr, agent: Agent) -> None:
    papr.plug(4)
    await until(lambda: [cpu.online for cpu in agent.inventory.snapshot().cpus] == [True] * 4)
    with agent.inventory.changes():
        before = agent.inventory.generation
        papr.take_offline(4)
        await until(lambda: agent.inventory.generation > before)
        papr.detach(4)
        await until(lambda: agent.inventory.find("papr:4") is None)


async def test_a_thread_that_the_smt_mode_leaves_idle_is_refused_as_such_and_not_written(
    papr: FakePapr, agent: Agent
) -> None:
    papr._put("smt/control", "off")
    papr.online.discard(1)
    papr._show()
    request = Request(("papr:1",), online=True, wait=False)
    async with asyncio.timeout(DEADLINE):
        (result,) = [answer async for answer in agent.writer.run(request)]
    assert isinstance(result, CpuResult)
    assert (result.status, result.reason and result.reason.code) == (CpuStatus.REFUSED, "smt-off")
    assert result.observed is not None
    assert result.observed.cannot_online is not None
    assert papr.online == {0}


async def test_a_dlpar_file_that_may_not_be_written_is_known_beforehand(papr: FakePapr, agent: Agent) -> None:
    def tried(code: int) -> tuple[str, ...]:
        def attempt(path: str) -> None:
            if code:
                raise OSError(code, os.strerror(code), path)

        hotplug = agent.hotplug
        hotplug._attempt = attempt
        return hotplug.denials()

    assert [tried(code) for code in (0, errno.ENOENT)] == [(), ()]
    assert tried(errno.EROFS) == ("/sys/kernel/dlpar: EROFS",)
