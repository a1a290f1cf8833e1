# SPDX-License-Identifier: Apache-2.0
"""vcpuctl is killed at every one of its step boundaries: the next command knows, and ends right."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.component.cli import SOON, done, filled, online, run, until
from kit.component.crashing import MANY, killed
from kit.fakes.qemu import FakeVm
from vcpu_host.core.identity import VmIdentity
from vcpu_host.local import directory as runtime
from vcpu_host.local import names, processes


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="ve", dir="/tmp") as name:
        yield Path(name)


def record(vm: FakeVm) -> Path:
    """Where what is pending on this VM lies."""
    threads = vm.steer.call("query-cpus-fast")
    first = min(threads, key=lambda thread: int(thread["cpu-index"]))
    process = processes.process_id(first["thread-id"])
    assert process is not None
    return runtime.directory() / f"{names.of_vm(VmIdentity(process))}.pending"


def pending(vm: FakeVm) -> dict[int, str]:
    """Slot to operation, as list shows what is pending."""
    ended = run(vm, "list")
    return {slot: shown["pending"]["operation"] for slot, shown in ended.slots.items() if shown["pending"] is not None}


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("start", "words", "goals"),
    [("1", ("plug", "-n", "2"), ("3", "1")), ("3", ("unplug", "-n", "2"), ("1", "3"))],
    ids=["plug", "unplug"],
)
def test_whatever_instant_it_is_killed_at_the_next_scale_converges(
    folder: Path, start: str, words: tuple[str, ...], goals: tuple[str, str]
) -> None:
    with FakeVm(folder) as vm:
        stands_at = "1"
        for boundary in range(MANY):
            if stands_at != start:
                done(vm, set(range(int(start))), "scale", start)
            if not killed(vm.qmp, boundary, *words, within=SOON):
                break
            # as it was meant, and the contrary: what is under way must not be taken for what is wanted
            goal = stands_at = goals[boundary % 2]
            done(vm, set(range(int(goal))), "scale", goal)
            assert not record(vm).exists(), f"at boundary {boundary}"
        assert 12 < boundary < MANY - 1, "the boundaries are not what this test takes them for"


def test_a_removal_that_outlives_its_vcpuctl_is_shown_until_the_guest_ejects_the_cpu(folder: Path) -> None:
    with FakeVm(folder) as vm:
        done(vm, {0, 1, 2}, "scale", "3")
        rule = vm.steer.rule("guest:eject", "hold")
        ended = run(vm, "--timeout", "10", "unplug")
        assert (ended.status, ended.code(2)) == (4, "removal-pending"), ended.stdout
        assert pending(vm) == {2: "unplug"}
        assert run(vm, "list").slots[2]["state"] == "unplugging"
        ended = run(vm, "--timeout", "10", "plug", "--slot", "2")
        assert (ended.status, ended.outcome) == (3, "refused"), ended.stdout
        assert ended.code(2) == "removal-pending"
        vm.steer.release(rule)
        until(lambda: filled(vm) == {0, 1})
        assert pending(vm) == {}
        assert not record(vm).exists()
        done(vm, {0, 1, 2}, "plug", "--slot", "2")


def test_a_cpu_that_never_came_is_shown_as_pending_until_it_is_online(folder: Path) -> None:
    with FakeVm(folder) as vm:
        rule = vm.steer.rule("guest:insert", "hold")
        ended = run(vm, "--timeout", "10", "plug")
        assert (ended.status, ended.code(1)) == (4, "arrival-pending"), ended.stdout
        assert pending(vm) == {1: "plug"}
        vm.steer.release(rule)
        until(lambda: 1 in vm.guest_cpus())
        done(vm, {0, 1}, "plug")
        assert pending(vm) == {}


def test_another_at_work_on_the_same_qemu_by_another_of_its_monitors_is_met(folder: Path) -> None:
    with FakeVm(folder) as vm:
        place = record(vm).with_suffix(".lock")
        with place.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            ended = run(vm, "plug")
        assert (ended.status, ended.outcome) == (3, "vm-busy"), ended.stdout
        assert filled(vm) == {0}
        done(vm, {0, 1}, "plug")


def test_what_cannot_be_recorded_is_not_asked_of_qemu_and_an_unplug_brings_the_cpu_back(folder: Path) -> None:
    with FakeVm(folder) as vm:
        done(vm, {0, 1}, "plug")
        before = len(vm.steer.commands("device_add"))
        place = record(vm).with_suffix(".new")
        place.mkdir()
        try:
            ended = run(vm, "plug")
            assert (ended.status, ended.code(2)) == (3, "no-record"), ended.stdout
            ended = run(vm, "unplug")
            assert (ended.status, ended.outcome, ended.code(1)) == (1, "failed", "no-record"), ended.stdout
        finally:
            place.rmdir()
        assert (online(vm), filled(vm)) == ({0, 1}, {0, 1})
        assert len(vm.steer.commands("device_add")) == before
        assert vm.steer.commands("device_del") == []


def test_a_record_of_a_qemu_that_is_no_more_is_nobodys(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    with FakeVm(folder / "a") as vm:
        place = record(vm)
        vm.steer.rule("guest:insert", "hold")
        assert run(vm, "--timeout", "10", "plug").status == 4
        assert place.exists()
    with FakeVm(folder / "b") as vm:
        assert pending(vm) == {}
        assert not place.exists()
