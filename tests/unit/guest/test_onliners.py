# SPDX-License-Identifier: Apache-2.0
"""Where something in the guest brings CPUs online again, a CPU is let go of just after its turn."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.sysfs import FakeKernel, firmware_id
from vcpu_guest.core.model import Goal, Result, Status
from vcpu_guest.onliners import MEMORY, Onliners
from vcpu_guest.platforms.acpi import Acpi
from vcpu_guest.switch import Switch
from vcpu_guest.sysfs import Sysfs
from vcpu_guest.watcher import Watcher


class Guest:
    def __init__(self, root: Path) -> None:
        self.kernel = FakeKernel(root, boot=(0, 1, 2))
        self.sysfs = Sysfs(root, self.kernel.write)
        self.watcher = Watcher(self.sysfs, Acpi())
        self.watcher.scan()
        self.onliners = Onliners(self.sysfs.incarnation, 30.0)
        self.switch = Switch(self.sysfs, Acpi(), self.watcher, onliners=self.onliners)

    async def ask(self, *slots: int, online: bool = False) -> list[Result]:
        goal = Goal(tuple(map(firmware_id, slots)), online=online, wait=False, for_eject=not online)
        return [answer async for answer in self.switch.run(goal) if isinstance(answer, Result)]

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
        assert [answer.status for answer in await guest.ask(1)] == [Status.DONE]
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
    assert (answer.status, answer.observed is not None and answer.observed.online) == (Status.DONE, False)


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
    assert (answer.status, guest.kernel.online) == (Status.DONE, {0, 2})
    assert guest.onliners.about


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
    guest.watcher.scan()
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
