# SPDX-License-Identifier: Apache-2.0
"""A CPU that was taken offline for its ejection stays so, whoever else wants it online."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from fakes.link_ends import until
from fakes.sysfs import FIRST_STEP, NO_STEP, FakeKernel, firmware_id
from vcpu_guest.core.model import Goal, Status
from vcpu_guest.latch import OnlineLatch
from vcpu_guest.platforms.acpi import Acpi
from vcpu_guest.switch import Switch
from vcpu_guest.sysfs import Sysfs
from vcpu_guest.watcher import Watcher


class Guest:
    def __init__(self, root: Path, *, used: bool = True) -> None:
        self.kernel = FakeKernel(root, boot=(0, 1, 2))
        self.sysfs = Sysfs(root, self.kernel.write)
        self.latch = OnlineLatch(self.sysfs, used=used)
        self.watcher = Watcher(self.sysfs, Acpi(), came=self.latch.release)
        self.watcher.scan()
        self.switch = Switch(self.sysfs, Acpi(), self.watcher, latch=self.latch)

    async def offline(self, *slots: int, for_eject: bool = True) -> list[Status]:
        goal = Goal(tuple(map(firmware_id, slots)), online=False, wait=False, for_eject=for_eject)
        return [answer.status async for answer in self.switch.run(goal) if hasattr(answer, "status")]

    def somebody_onlines(self, number: int) -> int:
        """The errno that an attempt of somebody else gets."""
        try:
            self.kernel.write(f"{self.kernel.cpu_dir}/cpu{number}/online", b"1")
        except OSError as error:
            return error.errno or 0
        return 0


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path / "sys")


async def test_nobody_brings_a_cpu_back_that_is_about_to_be_ejected(guest: Guest) -> None:
    assert await guest.offline(1) == [Status.DONE]
    assert guest.somebody_onlines(1) == errno.EAGAIN
    guest.latch.renew()
    assert guest.somebody_onlines(1) == errno.EAGAIN
    assert 1 not in guest.kernel.online


async def test_somebody_who_tries_again_and_again_finds_it_held_again(guest: Guest) -> None:
    assert await guest.offline(1) == [Status.DONE]
    for _ in range(3):
        assert guest.somebody_onlines(1) == errno.EAGAIN
        await until(lambda: guest.kernel.fails[1] == FIRST_STEP)


async def test_a_cpu_that_is_only_taken_offline_can_be_brought_back_by_anybody(guest: Guest) -> None:
    assert await guest.offline(1, for_eject=False) == [Status.DONE]
    assert guest.somebody_onlines(1) == 0


async def test_the_agent_itself_brings_back_what_it_held(guest: Guest) -> None:
    await guest.offline(1)
    goal = Goal((firmware_id(1),), online=True, wait=False)
    assert [answer.status async for answer in guest.switch.run(goal) if hasattr(answer, "status")] == [Status.DONE]


async def test_what_was_held_when_it_was_ejected_comes_online_when_it_is_plugged_again(guest: Guest) -> None:
    await guest.offline(1)
    guest.kernel.remove(1)
    guest.watcher.scan()
    assert guest.kernel.fails[1] == FIRST_STEP, "the kernel keeps it by the number"
    guest.kernel.add(1, 1)
    guest.watcher.scan()
    assert guest.kernel.fails[1] == NO_STEP
    assert guest.somebody_onlines(1) == 0


async def test_an_agent_that_begins_lets_go_of_what_one_before_it_held(guest: Guest, tmp_path: Path) -> None:
    await guest.offline(1, 2)
    guest.latch._held.clear()  # it was killed
    latch = OnlineLatch(guest.sysfs)
    Watcher(guest.sysfs, Acpi(), came=latch.release).scan()
    assert (guest.somebody_onlines(1), guest.somebody_onlines(2)) == (0, 0)


async def test_when_nobody_is_about_to_eject_anything_everything_is_let_go(guest: Guest) -> None:
    await guest.offline(1, 2)
    guest.latch.release_all()
    assert (guest.somebody_onlines(1), guest.somebody_onlines(2)) == (0, 0)


async def test_a_cpu_that_comes_back_before_it_is_held_is_not_said_to_be_offline(guest: Guest) -> None:
    hold = guest.latch.hold

    def too_late(number: int) -> None:
        guest.somebody_onlines(number)
        hold(number)

    guest.latch.hold = too_late  # type: ignore[method-assign]
    assert await guest.offline(1) == [Status.REFUSED]
    assert guest.kernel.fails.get(1, NO_STEP) == NO_STEP


async def test_nothing_is_held_where_a_udev_rule_would_meet_it_first(guest: Guest) -> None:
    guest.latch.allowed = False
    await guest.offline(1)
    assert guest.somebody_onlines(1) == 0


@pytest.mark.parametrize("used", [True, False])
async def test_a_kernel_without_such_a_switch_and_one_that_brings_cpus_online_itself_are_left_alone(
    tmp_path: Path, used: bool
) -> None:
    guest = Guest(tmp_path / "sys", used=False)
    if used:
        (guest.kernel.cpu_dir / "hotplug/states").unlink()
        guest.latch = guest.switch.latch = OnlineLatch(guest.sysfs)
    assert await guest.offline(1) == [Status.DONE]
    assert guest.somebody_onlines(1) == 0
