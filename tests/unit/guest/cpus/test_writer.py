# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from kit.fakes.sysfs import FakeKernel, firmware_id
from kit.until import DEADLINE, until
from vcpu_guest.core.model import Arrived, CpuResult, CpuStatus
from vcpu_guest.core.request import Request
from vcpu_guest.cpus import writer as writer_module
from vcpu_guest.cpus.inventory import Inventory
from vcpu_guest.cpus.writer import Writer
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.acpi import Acpi
from vcpu_guest.platforms.x86 import X86


@pytest.fixture
async def writer(sysfs: Sysfs, inventory: Inventory, kernel: FakeKernel) -> AsyncIterator[Any]:
    writer = Writer(sysfs, Acpi(), inventory)
    yield writer
    kernel.released.set()
    assert await writer.close(DEADLINE)


def request(slots: list[int], *, online: bool = True, wait: bool = False) -> Any:
    return Request(tuple(firmware_id(slot) for slot in slots), online, wait)


async def answers(writer: Writer, wanted: Request) -> list[Any]:
    async with asyncio.timeout(DEADLINE):
        return [answer async for answer in writer.run(wanted)]


async def test_cpus_are_taken_in_the_order_given_and_read_back(writer: Writer, kernel: FakeKernel) -> None:
    for slot in (1, 2, 3):
        kernel.add(slot)
    results = await answers(writer, request([3, 1, 2]))
    assert [(r.firmware_id, r.status) for r in results] == [(firmware_id(s), CpuStatus.DONE) for s in (3, 1, 2)]
    assert kernel.writes == [(3, True), (1, True), (2, True)]
    assert all(r.observed.online and r.observed.firmware_id == r.firmware_id for r in results)


async def test_what_is_so_already_is_not_written(writer: Writer, kernel: FakeKernel) -> None:
    kernel.add(1)
    await answers(writer, request([1]))
    kernel.writes.clear()
    results = await answers(writer, request([1]))
    assert [r.status for r in results] == [CpuStatus.ALREADY]
    assert kernel.writes == []


@pytest.mark.parametrize("online", [True, False])
async def test_what_is_so_already_wakes_no_thread(
    writer: Writer, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, online: bool
) -> None:
    kernel.add(1)
    if online:
        await answers(writer, request([1]))
        await until(lambda: not writer._pending)
    monkeypatch.setattr(writer, "submit", None)
    (result,) = await answers(writer, request([1], online=online))
    assert (result.status, result.observed.number, result.observed.online) == (CpuStatus.ALREADY, 1, online)
    arrived, again = await answers(writer, request([1], wait=True)) if online else (None, result)
    assert online == isinstance(arrived, Arrived)
    assert again.status is CpuStatus.ALREADY


async def test_what_is_so_already_is_looked_at_after_the_writes_that_are_under_way(
    writer: Writer, kernel: FakeKernel
) -> None:
    kernel.online.add(kernel.add(1))
    kernel._lists()
    kernel.released.clear()
    going = asyncio.create_task(answers(writer, request([1], online=False)))
    await until(kernel.holding.is_set)
    back = asyncio.create_task(answers(writer, request([1])))
    await until(lambda: writer._executor._work_queue.qsize() == 1)
    kernel.released.set()
    assert [(await one)[0].status for one in (going, back)] == [CpuStatus.DONE, CpuStatus.DONE]
    assert 1 in kernel.online


async def test_the_loop_looks_itself_only_when_it_has_heard_of_all_that_the_thread_did(
    writer: Writer, kernel: FakeKernel
) -> None:
    kernel.add(1)
    first = asyncio.create_task(answers(writer, request([1])))
    await asyncio.sleep(0)
    while writer._pending:  # the loop hears of nothing meanwhile
        pass
    assert 1 in kernel.online
    assert writer.as_wanted(request([1])) == {}
    assert [one.status for one in await first] == [CpuStatus.DONE]
    assert writer.as_wanted(request([1])) == {firmware_id(1): 1}


async def test_a_request_of_many_cpus_that_are_so_already_is_left_to_the_thread(
    writer: Writer, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "FEW", 2)
    for slot in (1, 2, 3):
        kernel.add(slot)
    names = request([1, 2, 3], online=False)
    assert writer.as_wanted(names) == {}
    assert [one.status for one in await answers(writer, names)] == [CpuStatus.ALREADY] * 3
    assert writer.as_wanted(request([1, 2], online=False)) == {firmware_id(1): 1, firmware_id(2): 2}


async def test_a_cpu_that_is_to_be_ejected_is_always_looked_at_by_the_writers_thread(
    writer: Writer, kernel: FakeKernel
) -> None:
    kernel.add(1)
    wanted = replace(request([1], online=False), for_eject=True)
    (result,) = await answers(writer, wanted)
    assert result.status is CpuStatus.ALREADY
    assert writer.onliners.going() == (1,)
    await until(lambda: not writer._pending)
    assert (await answers(writer, request([1], online=False)))[0].status is CpuStatus.ALREADY
    assert writer.onliners.going() == ()  # the host does not want it ejected any more


async def test_a_cpu_that_is_not_there_is_absent_at_once(writer: Writer, kernel: FakeKernel) -> None:
    results = await answers(writer, request([7]))
    assert [(r.status, r.observed) for r in results] == [(CpuStatus.ABSENT, None)]
    assert kernel.writes == []


async def test_a_refusal_has_errno_and_reason_and_the_next_cpu_is_still_taken(
    writer: Writer, kernel: FakeKernel
) -> None:
    for slot in (1, 2):
        kernel.online.add(kernel.add(slot))
    kernel._lists()
    kernel.refuse(1, errno.ENOSPC, online=False)
    refused, done = await answers(writer, request([1, 2], online=False))
    assert (refused.status, refused.reason.code, refused.reason.errno) == (
        CpuStatus.REFUSED,
        "irq-vectors",
        errno.ENOSPC,
    )
    assert refused.observed.online
    assert done.status is CpuStatus.DONE
    assert not done.observed.online


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
async def test_a_file_that_may_not_be_opened_is_not_told_as_the_kernels_refusal(
    writer: Writer, kernel: FakeKernel, code: int
) -> None:
    kernel.add(1)
    kernel.deny(code)
    (result,) = await answers(writer, request([1]))
    assert (result.status, result.reason.code, result.reason.errno) == (CpuStatus.REFUSED, "agent-no-rights", code)
    assert not result.observed.online
    assert kernel.writes == []


async def test_eperm_of_the_write_itself_is_smt_only_if_the_kernel_says_so(writer: Writer, kernel: FakeKernel) -> None:
    kernel.add(1)
    kernel.refuse(1, errno.EPERM, online=True)
    for control, reason in (("on", "online-forbidden"), ("off", "smt-off")):
        kernel.set_list("smt/control", control)
        (result,) = await answers(writer, request([1]))
        assert result.reason.code == reason


async def test_a_possible_cpu_that_is_invalid_is_explained_by_the_platform(
    sysfs: Sysfs, inventory: Inventory, kernel: FakeKernel
) -> None:
    kernel.add(1)
    kernel.refuse(1, errno.EINVAL, online=True)
    for platform, reason in ((X86(), "apic-id"), (Acpi(), "kernel-error")):
        writer = Writer(sysfs, platform, inventory)
        (result,) = await answers(writer, request([1]))
        assert result.reason.code == reason
        assert await writer.close(DEADLINE)


async def test_cpu0_is_refused_as_such(writer: Writer, kernel: FakeKernel) -> None:
    kernel.online.add(kernel.add(1))
    kernel._lists()
    (result,) = await answers(writer, request([0], online=False))
    assert (result.status, result.reason.code) == (CpuStatus.REFUSED, "cpu0")


async def test_isolation_is_read_when_the_kernel_says_busy(writer: Writer, kernel: FakeKernel) -> None:
    kernel.online.update(kernel.add(slot) for slot in (1, 2))
    kernel._lists()
    kernel.set_list("isolated", "0,2")
    kernel.refuse(1, errno.EBUSY, online=False)
    (result,) = await answers(writer, request([1], online=False))
    assert result.reason.code == "last-housekeeping"


async def test_a_rule_that_was_quicker_is_no_failure(writer: Writer, kernel: FakeKernel, sysfs: Sysfs) -> None:
    number = kernel.add(1)

    def rule_first(path: Any, data: bytes) -> None:
        kernel.online.add(number)
        kernel._lists()
        raise OSError(errno.EBUSY, "busy")

    sysfs._write = rule_first
    (result,) = await answers(writer, request([1]))
    assert result.status is CpuStatus.ALREADY


async def test_a_write_that_was_taken_and_undone_is_told(writer: Writer, kernel: FakeKernel, sysfs: Sysfs) -> None:
    kernel.add(1)
    sysfs._write = lambda path, data: None
    (result,) = await answers(writer, request([1]))
    assert (result.status, result.reason.code, result.observed.online) == (CpuStatus.REFUSED, "reverted", False)


async def test_a_number_with_a_new_owner_is_never_written(
    writer: Writer, kernel: FakeKernel, inventory: Inventory
) -> None:
    number = kernel.add(5)
    await until(lambda: inventory.find(firmware_id(5)) == number)
    kernel.mute()
    kernel.remove(number)
    kernel.add(9, number)
    (result,) = await answers(writer, request([5]))
    assert (result.status, result.reason.code) == (CpuStatus.ABSENT, "vanished")
    assert kernel.writes == []


async def test_cpus_are_brought_online_as_they_arrive_in_whatever_order(writer: Writer, kernel: FakeKernel) -> None:
    run = asyncio.create_task(answers(writer, request([1, 2, 3], wait=True)))
    for slot in (3, 1, 2):
        kernel.add(slot)
        await until(lambda: len(kernel.online) == 1 + len(kernel.writes) == len(kernel.slots))
    found = await run
    arrived = [a.cpu.firmware_id for a in found if isinstance(a, Arrived)]
    done = [(a.firmware_id, a.status) for a in found if isinstance(a, CpuResult)]
    assert arrived == [firmware_id(s) for s in (3, 1, 2)]
    assert done == [(firmware_id(s), CpuStatus.DONE) for s in (3, 1, 2)]
    for slot in (1, 2, 3):
        names = [(type(a), a.cpu.firmware_id if isinstance(a, Arrived) else a.firmware_id) for a in found]
        assert names.index((Arrived, firmware_id(slot))) < names.index((CpuResult, firmware_id(slot)))


async def test_a_cpu_that_is_there_already_counts_as_arrived(writer: Writer, kernel: FakeKernel) -> None:
    kernel.add(1)
    found = await answers(writer, request([1], wait=True))
    assert [type(a) for a in found] == [Arrived, CpuResult]


async def test_an_arrival_is_told_while_another_cpu_is_being_switched(writer: Writer, kernel: FakeKernel) -> None:
    kernel.released.clear()
    stream = writer.run(request([1, 2], wait=True))
    kernel.add(1)
    assert isinstance(await anext(stream), Arrived)
    await until(kernel.holding.is_set)
    kernel.add(2)
    async with asyncio.timeout(DEADLINE):
        second = await anext(stream)
    assert isinstance(second, Arrived)
    assert second.cpu.firmware_id == firmware_id(2)
    kernel.released.set()
    await stream.aclose()


async def test_who_asks_while_a_write_is_in_the_kernel_is_answered_from_what_takes_no_lock(
    writer: Writer, kernel: FakeKernel, inventory: Inventory
) -> None:
    kernel.released.clear()
    stream = writer.run(request([1, 2, 3], wait=True))
    kernel.add(1)
    assert isinstance(await anext(stream), Arrived)
    await until(kernel.holding.is_set)
    # What the kernel makes wait: a reader of that CPU's own file.
    blocked = asyncio.create_task(asyncio.to_thread((kernel.cpu_dir / "cpu1/online").read_text))
    kernel.add(2)
    async with asyncio.timeout(DEADLINE):
        assert isinstance(await anext(stream), Arrived)
    kernel.mute()
    kernel.add(9)
    assert [cpu.firmware_id for cpu in inventory.snapshot().cpus] == [firmware_id(slot) for slot in (0, 1, 2, 9)]
    assert inventory.look_at(1) is not None
    in_hand = writer.in_hand()
    assert in_hand.keys() == {firmware_id(1), firmware_id(2)}
    assert in_hand[firmware_id(2)] == 0.0 < in_hand[firmware_id(1)]
    assert not blocked.done(), "the fake does not wait as the kernel does"
    kernel.released.set()
    await blocked
    assert isinstance(await anext(stream), CpuResult)
    await stream.aclose()
    await until(lambda: not writer.in_hand())


async def test_an_arrival_whose_event_was_lost_is_found(
    writer: Writer, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RESCAN", 0.01)
    run = asyncio.create_task(answers(writer, request([1], wait=True)))
    await until(lambda: bool(writer.inventory._waiting))
    kernel.mute()
    kernel.add(1)
    assert [type(a) for a in await run] == [Arrived, CpuResult]


async def test_a_request_that_ends_early_starts_no_further_write(writer: Writer, kernel: FakeKernel) -> None:
    for slot in (1, 2):
        kernel.add(slot)
    kernel.released.clear()
    run = asyncio.create_task(answers(writer, request([1, 2])))
    await until(kernel.holding.is_set)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    kernel.released.set()
    await until(lambda: 1 in kernel.online)
    # The writer takes what is queued in turn, so whatever the request had left would come before this.
    kernel.add(3)
    await answers(writer, request([3]))
    assert kernel.writes == [(1, True), (3, True)]
    assert not writer.inventory._waiting


async def test_two_requests_never_write_at_the_same_time(writer: Writer, kernel: FakeKernel) -> None:
    for slot in (1, 2):
        kernel.add(slot)
    kernel.released.clear()
    first = asyncio.create_task(answers(writer, request([1])))
    await until(kernel.holding.is_set)
    second = asyncio.create_task(answers(writer, request([2])))
    await until(lambda: writer._executor._work_queue.qsize() == 1)
    assert kernel.writes == [(1, True)]
    kernel.released.set()
    await asyncio.gather(first, second)
    assert kernel.writes == [(1, True), (2, True)]


async def test_the_loop_lives_while_a_write_is_in_the_kernel(
    writer: Writer, kernel: FakeKernel, inventory: Inventory
) -> None:
    kernel.add(1)
    kernel.released.clear()
    run = asyncio.create_task(answers(writer, request([1])))
    await until(kernel.holding.is_set)
    assert len(inventory.snapshot().cpus) == 2
    kernel.released.set()
    assert [r.status for r in await run] == [CpuStatus.DONE]


async def test_the_end_waits_for_the_write_that_runs_but_not_for_ever(
    sysfs: Sysfs, inventory: Inventory, kernel: FakeKernel
) -> None:
    writer = Writer(sysfs, Acpi(), inventory)
    kernel.add(1)
    kernel.released.clear()
    run = asyncio.create_task(answers(writer, request([1])))
    await until(kernel.holding.is_set)
    assert not await writer.close(0.01)
    kernel.released.set()
    assert await writer.close(DEADLINE)
    await run
    assert 1 in kernel.online
