# SPDX-License-Identifier: Apache-2.0
"""Where something in the guest brings CPUs online again, a CPU is let go of just after its turn."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from kit.fakes.sysfs import FakeKernel, firmware_id
from vcpu_guest import logs
from vcpu_guest.core.model import CpuResult, CpuStatus
from vcpu_guest.core.request import Request
from vcpu_guest.cpus.inventory import Inventory
from vcpu_guest.cpus.onliners import LOOKS, MEMORY, Onliners, unsettled
from vcpu_guest.cpus.writer import Writer
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.acpi import Acpi


class Guest:
    def __init__(self, root: Path) -> None:
        self.kernel = FakeKernel(root, boot=(0, 1, 2))
        self.sysfs = Sysfs(root, self.kernel.write)
        self.inventory = Inventory(self.sysfs, Acpi())
        self.inventory.scan()
        self.onliners = Onliners(self.sysfs.incarnation, 30.0)
        self.writer = Writer(self.sysfs, Acpi(), self.inventory, onliners=self.onliners)

    async def ask(self, *slots: int, online: bool = False) -> list[CpuResult]:
        request = Request(tuple(map(firmware_id, slots)), online=online, wait=False, for_eject=not online)
        return [answer async for answer in self.writer.run(request) if isinstance(answer, CpuResult)]

    def somebody_onlines(self, number: int) -> None:
        self.kernel.write(f"{self.kernel.cpu_dir}/cpu{number}/online", b"1")


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path / "sys")


async def test_a_guest_in_which_nobody_meddles_waits_for_nothing(guest: Guest) -> None:
    def waited(number: int, is_online: object) -> bool:
        raise AssertionError(f"it waits for somebody who is to bring cpu{number} online")

    guest.onliners.await_turn = waited  # type: ignore[method-assign]
    for _ in range(2):
        assert [answer.status for answer in await guest.ask(1)] == [CpuStatus.DONE]
        await guest.ask(1, online=True)
    assert not guest.onliners.about


async def test_where_somebody_was_seen_to_meddle_a_cpu_is_let_go_of_just_after_his_next_turn(guest: Guest) -> None:
    await guest.ask(1)
    guest.somebody_onlines(1)
    before = len(guest.kernel.writes)
    waits = threading.Event()
    await_turn = guest.onliners.await_turn

    def awaited(number: int, is_online: Callable[[], bool]) -> bool:
        waits.set()
        return await_turn(number, is_online)

    guest.onliners.await_turn = awaited  # type: ignore[method-assign]

    def turn() -> None:
        assert waits.wait(20)
        guest.somebody_onlines(1)

    meddler = threading.Thread(target=turn)
    meddler.start()
    (answer,) = await guest.ask(1)
    meddler.join()
    assert guest.onliners.about
    assert guest.kernel.writes[before:] == [(1, False), (1, True), (1, False)]
    assert (answer.status, answer.observed is not None and answer.observed.online) == (CpuStatus.DONE, False)


async def test_a_cpu_that_somebody_is_just_bringing_up_is_not_said_to_be_offline(guest: Guest) -> None:
    """The kernel's list shows it only towards the end of that; its own file waits for the end (F2)."""
    read = guest.sysfs.settled_online

    def settled(number: int) -> bool:
        guest.sysfs.settled_online = read  # type: ignore[method-assign]
        guest.somebody_onlines(number)
        return read(number)

    guest.sysfs.settled_online = settled  # type: ignore[method-assign]
    (answer,) = await guest.ask(1)
    assert guest.kernel.writes == [(1, False), (1, True), (1, False)]
    assert (answer.status, guest.kernel.online) == (CpuStatus.DONE, {0, 2})
    assert guest.onliners.about


async def test_what_his_turn_has_brought_up_is_taken_offline_again_all_of_it(guest: Guest) -> None:
    """Else the others would have to wait for a turn of their own each, and come back with every one of them."""
    await guest.ask(1)
    guest.somebody_onlines(1)

    def await_turn(number: int, is_online: object) -> bool:
        del is_online
        for each in (1, 2):
            guest.somebody_onlines(each)
        return True

    guest.onliners.await_turn = await_turn  # type: ignore[method-assign]
    answers = await guest.ask(1, 2)
    assert [answer.status for answer in answers] == [CpuStatus.DONE, CpuStatus.DONE]
    assert guest.kernel.online == {0}


async def test_of_several_cpus_his_turn_is_awaited_with_the_last_alone(guest: Guest) -> None:
    waited: list[int] = []

    def await_turn(number: int, is_online: object) -> bool:
        del is_online
        waited.append(number)
        return False

    guest.onliners.await_turn = await_turn  # type: ignore[method-assign]
    await guest.ask(1)
    guest.somebody_onlines(1)
    await guest.ask(1, 2)
    assert waited == [2]


async def test_a_cpu_that_comes_anew_with_an_old_number_is_no_meddling(guest: Guest) -> None:
    await guest.ask(1)
    guest.kernel.remove(1)
    guest.kernel.add(1, 1)
    guest.somebody_onlines(1)
    guest.inventory.scan()
    await guest.ask(2)
    assert not guest.onliners.about


async def test_what_the_host_itself_wants_back_is_no_meddling(guest: Guest) -> None:
    await guest.ask(1)
    await guest.ask(1, online=True)
    await guest.ask(2)
    assert not guest.onliners.about


def test_it_is_remembered_for_a_while_only() -> None:
    now = [0.0]
    onliners = Onliners(lambda number: number, 0.0, lambda: now[0])
    onliners.let_go(1)
    onliners.looked((0, 1))
    assert onliners.about
    now[0] = MEMORY + 1
    assert not onliners.about


def test_one_that_acts_every_second_does_not_fill_the_journal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text")
    now = [0.0]
    onliners = Onliners(lambda number: number, 0.0, lambda: now[0])
    for _ in range(1000):
        now[0] += 1.0
        onliners.let_go(1)
        onliners.looked((0, 1))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "warning: somebody has brought a CPU online that is to be ejected cpu=1"
    assert [line.partition("times=")[2] for line in lines[1:]] == ["10", "100", "1000"]


def test_a_look_during_which_a_cpu_was_brought_up_is_made_again_from_the_first_cpu_on() -> None:
    """Else CPU 1 could have been brought up while the look waited for CPU 2."""
    now, reads = [0.0], []

    def read(number: int) -> None:
        reads.append(number)
        now[0] += 0.05 if len(reads) == 2 else 0.0

    assert unsettled((1, 2), read, lambda: now[0]) == ()
    assert reads == [1, 2, 1, 2]


def test_cpus_that_never_come_to_rest_are_said_to_be_moving() -> None:
    now, reads = [0.0], []

    def read(number: int) -> None:
        reads.append(number)
        now[0] += 0.05

    assert unsettled((1, 2), read, lambda: now[0]) == (1, 2)
    assert reads == [1, 2] * LOOKS


async def settle(guest: Guest) -> dict[str, float]:
    settling = guest.writer.settling()
    assert settling is not None
    return await settling


async def test_a_list_waits_for_whoever_is_bringing_up_a_cpu_that_is_to_be_ejected(guest: Guest) -> None:
    assert guest.writer.settling() is None
    await guest.ask(1)
    read = guest.sysfs.settled_online

    def settled(number: int) -> bool:
        guest.sysfs.settled_online = read  # type: ignore[method-assign]
        guest.somebody_onlines(number)
        return read(number)

    guest.sysfs.settled_online = settled  # type: ignore[method-assign]
    assert await settle(guest) == {}
    assert guest.inventory.snapshot().cpus[1].online


async def test_a_cpu_whose_switching_does_not_end_is_said_to_be_in_hand(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    await guest.ask(1)
    monkeypatch.setattr("vcpu_guest.cpus.writer.SETTLE", 0.05)
    end = threading.Event()
    guest.sysfs.settled_online = lambda number: end.wait(20)  # type: ignore[method-assign]
    try:
        found = await settle(guest)
    finally:
        end.set()
    assert found.keys() == {firmware_id(1)}
    assert found[firmware_id(1)] >= 0.05


async def test_nobody_waits_for_a_cpu_that_has_gone(guest: Guest) -> None:
    await guest.ask(1)
    guest.kernel.remove(1)
    guest.sysfs.settled_online = None  # type: ignore[method-assign, assignment]
    assert guest.writer.settling() is None


async def test_what_a_host_that_has_gone_wanted_ejected_is_not_taken_offline_for_the_next_one(guest: Guest) -> None:
    """Nobody has asked the agent for it in this session: the guest's administrator may want the CPU."""
    await guest.ask(1)
    guest.somebody_onlines(1)
    await guest.ask(1)  # here the agent sees that somebody meddles
    guest.writer.forget_ejections()

    def await_turn(number: int, is_online: object) -> bool:
        del is_online
        for each in (1, number):
            guest.somebody_onlines(each)
        return True

    guest.onliners.await_turn = await_turn  # type: ignore[method-assign]
    await guest.ask(2)
    assert guest.kernel.online == {0, 1}


async def test_a_stream_that_ends_after_the_writer_ends_in_order(guest: Guest) -> None:
    await guest.ask(1)
    assert await guest.writer.close(20)
    guest.writer.forget_ejections()
