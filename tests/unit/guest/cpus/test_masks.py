# SPDX-License-Identifier: Apache-2.0
"""What became of threads whose last CPU went, on a fake kernel with the quirks of real ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.fakes.programs import FakePrograms, tasks_of, units_of
from kit.fakes.sysfs import FakeKernel
from vcpu_guest.core.workload import Fate
from vcpu_guest.cpus.masks import MOST_REMEMBERED, Masks
from vcpu_guest.cpus.workload import Budget, Looker
from vcpu_guest.kernel.sysfs import Sysfs

NEW, OLD = "6.12.118+deb13-cloud-amd64", "6.1.0-56-cloud-amd64"


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[FakeKernel]:
    """Four CPUs, all of them online."""
    kernel = FakeKernel(tmp_path / "sys", boot=(0, 1, 2, 3))
    yield kernel
    kernel.close()


def masks(folder: Path, *, keep: bool = False, release: str = NEW) -> Masks:
    looker = Looker(Sysfs(folder / "sys"), release, tasks_of(folder), units_of(folder))
    return Masks(looker, keep=keep, budget=lambda: Budget(3600.0))


def switch(kernel: FakeKernel, *numbers: int, online: bool) -> None:
    for number in numbers:
        kernel.write(f"{kernel.cpu_dir}/cpu{number}/online", b"1" if online else b"0")


def told(masks: Masks) -> dict[int, Fate]:
    return {each.threads.some[0].pid: each.fate for each in masks.fates()}


def test_awake_threads_are_told_as_broken_and_sleeping_ones_as_asleep(tmp_path: Path, kernel: FakeKernel) -> None:
    programs, known = FakePrograms(tmp_path), masks(tmp_path)
    awake, asleep = programs.task(10, "3", awake=True), programs.task(11, "3")
    programs.task(12, "2-3", awake=True)
    programs.task(13, awake=True)
    known.before(frozenset({3}))
    switch(kernel, 3, online=False)
    assert (awake.mask, asleep.mask) == ("0-15", "3")
    assert told(known) == {10: Fate.WIDENED, 11: Fate.ASLEEP}
    switch(kernel, 3, online=True)
    assert told(known) == {10: Fate.WIDENED}


def test_a_thread_that_wakes_up_later_is_told_as_broken_then(tmp_path: Path, kernel: FakeKernel) -> None:
    programs, known = FakePrograms(tmp_path), masks(tmp_path)
    task = programs.task(11, "3")
    known.before(frozenset({3}))
    switch(kernel, 3, online=False)
    task.wake()
    switch(kernel, 2, online=False)
    assert told(known) == {11: Fate.WIDENED}


def test_who_got_another_mask_by_somebody_else_or_has_ended_is_not_told(tmp_path: Path, kernel: FakeKernel) -> None:
    programs, known = FakePrograms(tmp_path), masks(tmp_path)
    programs.task(10, "3", awake=True)
    programs.task(11, "3").wake()
    known.before(frozenset({3}))
    switch(kernel, 3, online=False)
    tasks_of(tmp_path).pin(10, frozenset({1}))
    for name in ("stat", "status", "cgroup"):
        (programs.proc / "11/task/11" / name).unlink()
    assert told(known) == {}


def test_another_thread_with_the_id_of_one_that_has_ended_is_not_taken_for_it(
    tmp_path: Path, kernel: FakeKernel
) -> None:
    programs, known = FakePrograms(tmp_path), masks(tmp_path, keep=True)
    task = programs.task(10, "3", awake=True)
    known.before(frozenset({3}))
    switch(kernel, 3, online=False)
    task.end()
    later = programs.task(10, started=200)
    switch(kernel, 3, online=True)
    known.put_back()
    assert later.mask == "0-15"
    assert told(known) == {}


def test_nothing_is_put_back_unless_it_is_wanted(tmp_path: Path, kernel: FakeKernel) -> None:
    programs, known = FakePrograms(tmp_path), masks(tmp_path)
    task = programs.task(10, "3", awake=True)
    known.before(frozenset({3}))
    switch(kernel, 3, online=False)
    switch(kernel, 3, online=True)
    known.put_back()
    assert task.mask == "0-15"


def test_masks_are_put_back_when_their_cpus_are_there_again(tmp_path: Path, kernel: FakeKernel) -> None:
    programs, known = FakePrograms(tmp_path), masks(tmp_path, keep=True)
    task = programs.task(10, "2-3", awake=True)
    known.before(frozenset({2, 3}))
    switch(kernel, 2, 3, online=False)
    known.put_back()
    assert task.mask == "0-15"
    switch(kernel, 2, online=True)
    known.put_back()
    assert task.mask == "2-3"
    switch(kernel, 3, online=True)
    assert told(known) == {10: Fate.PUT_BACK}
    assert told(known) == {}


def test_a_kernel_that_does_not_let_masks_be_set_is_complained_of_and_nothing_breaks(
    tmp_path: Path, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, known = FakePrograms(tmp_path), masks(tmp_path, keep=True)
    task = programs.task(10, "3", awake=True)

    def denied(tid: int, mask: frozenset[int]) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(known._tasks, "pin", denied)
    known.before(frozenset({3}))
    switch(kernel, 3, online=False)
    switch(kernel, 3, online=True)
    known.put_back()
    assert task.mask == "0-15"
    assert told(known) == {10: Fate.WIDENED}


def test_on_a_kernel_that_forgets_masks_those_in_child_cpusets_are_remembered_at_any_change(
    tmp_path: Path, kernel: FakeKernel
) -> None:
    programs = FakePrograms(tmp_path, forgets=True)
    programs.cgroup("/system.slice/x.service")
    task = programs.task(10, "1", cgroup="/system.slice/x.service")
    known = masks(tmp_path, keep=True, release=OLD)
    number = kernel.add(7)
    known.before(frozenset())
    switch(kernel, number, online=True)
    assert task.mask == "0-4"
    assert told(known) == {10: Fate.WIDENED}
    known.put_back()
    assert task.mask == "1"
    newer = masks(tmp_path, release=NEW)
    newer.before(frozenset())
    assert newer.fates() == ()


def test_only_so_many_threads_are_remembered_and_the_rest_is_told_as_unseen(
    tmp_path: Path, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vcpu_guest.cpus import masks as module

    monkeypatch.setattr(module, "MOST_REMEMBERED", 3)
    programs, known = FakePrograms(tmp_path), masks(tmp_path)
    for pid in range(10, 15):
        programs.task(pid, "3")
    known.before(frozenset({3}))
    assert "more than 3" in known.unseen[0]
    assert "2 are not watched" in known.unseen[0]
    switch(kernel, 3, online=False)
    (broken,) = known.fates()
    assert broken.threads.count == 3


def test_what_remembering_costs_does_not_grow_with_how_many_are_known_already(
    tmp_path: Path, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakePrograms(tmp_path).task(7, "3")
    known = masks(tmp_path)
    read: list[int] = []

    def started(pid: int, tid: int) -> int:
        read.append(tid)
        return 100

    monkeypatch.setattr(known._tasks, "started", started)
    monkeypatch.setattr(known._tasks, "threads", lambda: ((7, tid) for tid in range(7, 5007)))
    monkeypatch.setattr(known._tasks, "affinity", lambda tid: {3})
    monkeypatch.setattr(known._tasks, "allowed", lambda pid, tid: frozenset({3}))
    known.before(frozenset({3}))
    assert "904 are not watched" in known.unseen[0]
    assert len(read) == MOST_REMEMBERED
    read.clear()
    known.before(frozenset({3}))
    assert len(read) <= 2 * MOST_REMEMBERED


def test_threads_that_have_ended_make_room_for_others(
    tmp_path: Path, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vcpu_guest.cpus import masks as module

    monkeypatch.setattr(module, "MOST_REMEMBERED", 2)
    programs, known = FakePrograms(tmp_path), masks(tmp_path)
    first = [programs.task(pid, "3", awake=True) for pid in (10, 11)]
    known.before(frozenset({3}))
    for task in first:
        task.end()
    for pid in (12, 13):
        programs.task(pid, "3", awake=True)
    known.before(frozenset({3}))
    assert known.unseen == ()
    switch(kernel, 3, online=False)
    assert [each.threads.count for each in known.fates()] == [2]


def test_making_room_ends_with_the_time_that_a_look_has(
    tmp_path: Path, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vcpu_guest.cpus import masks as module

    monkeypatch.setattr(module, "MOST_REMEMBERED", 2)
    programs, known = FakePrograms(tmp_path), masks(tmp_path)
    for pid in (10, 11):
        programs.task(pid, "3")
    known.before(frozenset({3}))
    programs.task(12, "3")
    looked: list[int] = []
    real = known._tasks.started

    def started(pid: int, tid: int) -> int | None:
        looked.append(tid)
        return real(pid, tid)

    monkeypatch.setattr(known._tasks, "started", started)
    ticks = iter((0.0, 0.0))  # when it begins, and when the first thread is met
    known._budget = lambda: Budget(1.0, lambda: next(ticks, 9.0))
    known.before(frozenset({3}))
    assert looked.count(12) == 0
    assert len(looked) <= 2


# --- whose doing a wide mask is ---------------------------------------------------------------------------------------


def widen(folder: Path, tid: int) -> None:
    """The program gives itself all CPUs."""
    tasks_of(folder).pin(tid, frozenset(range(16)))


def test_a_mask_that_came_through_is_the_programs_own_again_though_no_host_asks(
    tmp_path: Path, kernel: FakeKernel
) -> None:
    programs, known = FakePrograms(tmp_path), masks(tmp_path, keep=True)
    task = programs.task(10, "3")
    known.before(frozenset({3}))
    switch(kernel, 3, online=False)
    known.put_back()
    known.before(frozenset())
    switch(kernel, 3, online=True)
    known.put_back()
    assert task.mask == "3"
    widen(tmp_path, 10)
    known.before(frozenset())
    known.put_back()
    assert task.mask == "0-15"
    assert told(known) == {}


@pytest.mark.parametrize("asked", [False, True])
def test_a_mask_that_was_put_back_is_the_programs_own_again_while_some_of_its_cpus_are_away(
    tmp_path: Path, kernel: FakeKernel, *, asked: bool
) -> None:
    programs, known = FakePrograms(tmp_path), masks(tmp_path, keep=True)
    task = programs.task(10, "2-3", awake=True)
    known.before(frozenset({2, 3}))
    switch(kernel, 2, 3, online=False)
    known.put_back()
    known.before(frozenset())
    switch(kernel, 2, online=True)
    known.put_back()
    assert task.mask == "2-3"
    if asked:
        assert told(known) == {10: Fate.PUT_BACK}
    widen(tmp_path, 10)
    known.before(frozenset())
    switch(kernel, 3, online=True)
    known.put_back()
    assert task.mask == "0-15"
    assert told(known) == {}


def test_a_mask_that_loses_its_last_cpu_anew_is_put_back_anew(tmp_path: Path, kernel: FakeKernel) -> None:
    programs, known = FakePrograms(tmp_path), masks(tmp_path, keep=True)
    task = programs.task(10, "2-3", awake=True)
    known.before(frozenset({2, 3}))
    switch(kernel, 2, 3, online=False)
    for _ in range(2):
        known.before(frozenset())
        switch(kernel, 2, online=True)
        known.put_back()
        assert task.mask == "2-3"
        known.before(frozenset({2}))
        switch(kernel, 2, online=False)
        known.put_back()
        assert task.mask == "0-15"
    assert told(known) == {10: Fate.WIDENED}


def test_a_program_that_chose_another_mask_meanwhile_may_widen_that(tmp_path: Path, kernel: FakeKernel) -> None:
    programs, known = FakePrograms(tmp_path), masks(tmp_path, keep=True)
    task = programs.task(10, "3", awake=True)
    known.before(frozenset({3}))
    switch(kernel, 3, online=False)
    tasks_of(tmp_path).pin(10, frozenset({1}))
    known.before(frozenset({2}))
    widen(tmp_path, 10)
    switch(kernel, 3, online=True)
    known.put_back()
    assert task.mask == "0-15"


def test_a_program_that_pins_itself_to_the_only_cpu_left_is_not_taken_for_widened(
    tmp_path: Path, kernel: FakeKernel
) -> None:
    programs, known = FakePrograms(tmp_path), masks(tmp_path, keep=True)
    chose, lost = programs.task(10, "3"), programs.task(11, "2", awake=True)
    known.before(frozenset({1, 2, 3}))
    switch(kernel, 1, 2, 3, online=False)
    tasks_of(tmp_path).pin(10, frozenset({0}))
    assert told(known) == {11: Fate.WIDENED}
    switch(kernel, 2, 3, online=True)
    known.put_back()
    assert (chose.mask, lost.mask) == ("0", "2")


def test_where_partitions_have_taken_cpus_from_the_root_a_widened_mask_lacks_them(
    tmp_path: Path, kernel: FakeKernel
) -> None:
    programs, known = FakePrograms(tmp_path), masks(tmp_path)
    programs.cgroup("/rt", cpus="2", partition="isolated")
    programs.task(10, "3")
    known.before(frozenset({3}))
    switch(kernel, 3, online=False)
    tasks_of(tmp_path).pin(10, frozenset({0, 1}))  # as Linux 6.1 does
    assert told(known) == {10: Fate.WIDENED}


def test_while_another_change_is_under_way_nobody_that_it_has_met_is_forgotten(
    tmp_path: Path, kernel: FakeKernel
) -> None:
    programs, known = FakePrograms(tmp_path), masks(tmp_path, keep=True)
    task = programs.task(10, "3", awake=True)
    known.before(frozenset({3}))
    known.before(frozenset({2}), alone=False)
    known.put_back(settled=False)  # the other one has ended first
    assert known.fates(settled=False) == ()
    switch(kernel, 3, online=False)
    switch(kernel, 3, online=True)
    known.put_back()
    assert task.mask == "3"


def test_what_the_kernel_forgets_again_and_again_is_put_back_again_and_again(
    tmp_path: Path, kernel: FakeKernel
) -> None:
    programs = FakePrograms(tmp_path, forgets=True)
    programs.cgroup("/system.slice/x.service")
    task = programs.task(10, "1", cgroup="/system.slice/x.service")
    known = masks(tmp_path, keep=True, release=OLD)
    for online in (False, True, False, True):
        known.before(frozenset() if online else frozenset({3}))
        switch(kernel, 3, online=online)
        assert task.mask == ("0-3" if online else "0-2")
        known.put_back(settled=False)
        assert task.mask == "1"
    known.put_back()
    widen(tmp_path, 10)
    known.before(frozenset())
    known.put_back(settled=False)
    assert task.mask == "0-15"


def test_a_kernel_that_forgets_a_little_later_has_it_put_back_by_the_look_after_the_change(
    tmp_path: Path, kernel: FakeKernel
) -> None:
    programs = FakePrograms(tmp_path)  # what is forgotten is forgotten below
    programs.cgroup("/system.slice/x.service")
    task = programs.task(10, "1", cgroup="/system.slice/x.service")
    known = masks(tmp_path, keep=True, release=OLD)
    assert known.wiped_late
    known.before(frozenset({3}))
    switch(kernel, 3, online=False)
    known.put_back(settled=False)
    tasks_of(tmp_path).pin(10, frozenset({0, 1, 2}))
    known.put_back()
    assert task.mask == "1"
