# SPDX-License-Identifier: Apache-2.0
"""What the journal says of CPUs that came and went, and for whom."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from kit.fakes.sysfs import FakeKernel, firmware_id
from kit.until import DEADLINE, until
from vcpu_guest import logs
from vcpu_guest.core.model import Cpu, CpuEvent, CpuResult, CpuStatus, Reason
from vcpu_guest.core.request import Request
from vcpu_guest.cpus import history as module
from vcpu_guest.cpus.history import History
from vcpu_guest.cpus.inventory import Inventory
from vcpu_guest.cpus.writer import Writer
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.acpi import Acpi


@pytest.fixture(autouse=True)
def _this_tests_stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    logs.configure("info", "text")
    yield
    logs.configure("info", "text")


@pytest.fixture
async def writer(kernel: FakeKernel, sysfs: Sysfs) -> AsyncIterator[Writer]:
    inventory = Inventory(sysfs, Acpi())
    loop = asyncio.get_running_loop()
    kernel.listen(lambda action, number: loop.call_soon_threadsafe(inventory.on_event, CpuEvent(action, number)))
    kernel.online.add(kernel.add(1))
    kernel._lists()
    inventory.scan()
    writer = Writer(sysfs, Acpi(), inventory)
    yield writer
    assert await writer.close(DEADLINE)
    inventory.close()


async def run(writer: Writer, slot: int, *, online: bool, request_id: str, **more: Any) -> None:
    goal = Request((firmware_id(slot),), online, more.pop("wait", False), request_id, **more)
    async with asyncio.timeout(DEADLINE):
        async for _ in writer.run(goal):
            pass
    await until(lambda: not writer.inventory.history._in_hand)


def said(writer: Writer, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines, now."""
    writer.inventory.history.close()
    return [line.removeprefix("info: ") for line in capsys.readouterr().err.splitlines()]


async def test_what_is_there_at_the_start_is_no_news(writer: Writer, capsys: pytest.CaptureFixture[str]) -> None:
    writer.inventory.scan()
    assert said(writer, capsys) == []


async def test_a_cpu_that_a_host_has_plugged_and_unplugged_is_told_with_the_requests(
    writer: Writer, kernel: FakeKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    asking = asyncio.create_task(run(writer, 5, online=True, wait=True, request_id="a-1"))
    await until(lambda: writer.inventory.has_listeners)
    kernel.add(5)
    await asking
    assert said(writer, capsys) == [
        f"CPUs came cpus=2 firmware_ids={firmware_id(5)} by='request a-1'",
        "CPUs online cpus=2 by='request a-1'",
    ]
    await run(writer, 5, online=False, for_eject=True, request_id="a-2")
    kernel.remove(2)
    await until(lambda: writer.inventory.find(firmware_id(5)) is None)
    assert said(writer, capsys) == [
        "CPUs offline cpus=2 by='request a-2'",
        f"CPUs gone cpus=2 firmware_ids={firmware_id(5)} by='request a-2'",
    ]


async def test_what_nobody_asked_the_agent_for_is_by_others(
    writer: Writer, kernel: FakeKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    inventory = writer.inventory
    with inventory.changes():
        number = kernel.add(5)
        await until(lambda: inventory.find(firmware_id(5)) == number)
        for value in (b"1", b"0"):
            kernel.write(f"{kernel.cpu_dir}/cpu{number}/online", value)
            await until(lambda value=value: inventory._known[number].online == (value == b"1"))  # type: ignore[misc]
        kernel.remove(number)
        await until(lambda: inventory.find(firmware_id(5)) is None)
    name = firmware_id(5)
    assert said(writer, capsys) == [
        f"CPUs came cpus=2 firmware_ids={name} by=others",
        "CPUs online cpus=2 by=others",
        "CPUs offline cpus=2 by=others",
        f"CPUs gone cpus=2 firmware_ids={name} by=others",
    ]


async def test_one_that_another_brings_back_is_told_though_it_was_this_agent_that_took_it_offline(
    writer: Writer, kernel: FakeKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        await run(writer, 1, online=False, request_id="a-3")
        kernel.write(f"{kernel.cpu_dir}/cpu1/online", b"1")
        writer.inventory.scan()
    assert said(writer, capsys) == [
        "CPUs offline cpus=1 times=3 by='request a-3'",
        "CPUs online cpus=1 times=3 by=others",
    ]
    await run(writer, 1, online=False, for_eject=True, request_id="a-3")
    kernel.write(f"{kernel.cpu_dir}/cpu1/online", b"1")
    writer.inventory.scan()
    kernel.remove(1)
    await until(lambda: writer.inventory.find(firmware_id(1)) is None)
    assert said(writer, capsys)[-1].endswith("by=others"), "it was online again: no request let it go"


async def test_a_request_that_found_it_so_did_nothing(
    writer: Writer, kernel: FakeKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    await run(writer, 1, online=True, request_id="a-4")
    assert said(writer, capsys) == []


async def test_a_refusal_is_told_with_its_code(
    writer: Writer, kernel: FakeKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel.refuse(1, errno.ENOSPC, online=False)
    await run(writer, 1, online=False, request_id="a-5")
    assert said(writer, capsys) == ["CPUs stay online cpus=1 by='request a-5' why=irq-vectors"]


async def test_a_directory_that_did_not_go_after_all_is_no_news(
    writer: Writer, kernel: FakeKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    history = writer.inventory.history
    history.went(1, 77)
    history.came(1, 77, online=True)
    assert said(writer, capsys) == []
    history.went(1, 77)
    history.came(1, 78, online=False)
    assert [line.split(" cpus")[0] for line in said(writer, capsys)] == ["CPUs gone", "CPUs came"]


async def test_who_wins_while_a_request_has_a_cpu_in_hand_turns_out_at_its_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    history = History()
    history.begin()
    goal = Request(("acpi:a",), online=True, wait=False, request_id="r")
    for status, by in ((CpuStatus.DONE, "'request r'"), (CpuStatus.ALREADY, "others")):
        history.begun(3, goal)
        history.switched(3, online=True)
        history.ended(3, goal, CpuResult("acpi:a", status, None, Cpu(3, "acpi:a", online=True)))
        history.close()
        assert capsys.readouterr().err == f"info: CPUs online cpus=3 by={by}\n"
    history.begun(3, goal)
    history.ended(3, goal, None)
    history.switched(3, online=False)
    history.close()
    assert capsys.readouterr().err == "info: CPUs offline cpus=3 by=others\n"


async def test_changes_that_do_not_stop_make_ever_fewer_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loop, now, due = asyncio.get_running_loop(), 1000.0, []

    def call_later(delay: float, callback: Any) -> Any:
        due.append((now + delay, callback))
        return asyncio.TimerHandle(now + delay, callback, (), loop)

    monkeypatch.setattr(loop, "call_later", call_later)
    monkeypatch.setattr(loop, "time", lambda: now)
    history = History()
    history.begin()
    for _ in range(36_000):  # an hour of a change each 0.1 s
        history.switched(3, online=bool(_ % 2))
        now += 0.1
        if due and due[0][0] <= now:
            due.pop(0)[1]()
    lines = capsys.readouterr().err.splitlines()
    assert 2 * 50 < len(lines) < 2 * 80, "two kinds, one a minute, and a few at the beginning"
    due.pop(0)[1]()
    now += 300.0
    history.switched(3, online=True)
    assert due[0][0] == pytest.approx(now + module.GATHER), "after a rest a change is told at once"


async def test_there_is_a_bound_on_lines_and_on_what_a_request_may_call_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    history = History()
    history.begin()
    for request in range(100):
        goal = Request(("acpi:a",), online=False, wait=False, request_id=f"{request}" + "\x1b[2J" * 30)
        history.begun(3, goal)
        reason = Reason("last-cpu", "t")
        history.ended(3, goal, CpuResult("acpi:a", CpuStatus.REFUSED, reason, Cpu(3, "acpi:a", online=True)))
    history.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 17
    assert lines[-1] == "info: more changes of CPUs than are listed lines=84"
    assert all(line.isprintable() and len(line) < 200 for line in lines)


async def test_at_the_warning_level_nothing_is_said(writer: Writer, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", "text")
    await run(writer, 1, online=False, request_id="a-6")
    assert said(writer, capsys) == []
