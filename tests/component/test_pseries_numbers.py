# SPDX-License-Identifier: Apache-2.0
"""A pseries QEMU that numbers cores as they come, the real vcpuctl and the real vcpud: who is who, out of order too."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.component.cli import done, run
from kit.fakes.qemu import FakeVm

_KVM = ("--machine", "pseries", "--accel", "kvm", "--version", "11.1.3", "--maxcpus", "4")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="vp", dir="/tmp") as name:
        yield Path(name)


def _numbers(vm: FakeVm) -> dict[int, int]:
    """By slot, the number that list gives for the guest's CPU."""
    slots: dict[int, Any] = run(vm, "list").slots
    return {slot: cpu["guest_cpu"] for slot, shown in slots.items() for cpu in shown["threads"] if cpu["online"]}


def _right(vm: FakeVm) -> dict[int, int]:
    """The same, as the guest's kernel knows it."""
    cpus = vm.steer.call("x-fake-kernel")["cpus"]
    return {cpu["slot"]: int(number) for number, cpu in cpus.items() if cpu["online"]}


def test_cores_that_come_out_of_order_are_each_the_right_one_and_the_right_one_goes(folder: Path) -> None:
    with FakeVm(folder, *_KVM) as vm:
        there = {0}
        for slot in (3, 1, 2):
            there.add(slot)
            done(vm, there, "plug", "--slot", str(slot))
            assert _numbers(vm) == _right(vm)
        assert _right(vm) == {0: 0, 3: 1, 1: 2, 2: 3}
        done(vm, {0, 1, 2}, "unplug", "--slot", "3")
        assert _numbers(vm) == _right(vm) == {0: 0, 1: 2, 2: 3}
        done(vm, {0, 2}, "unplug", "--slot", "cpu2")


def test_a_core_alone_far_from_the_first_is_found_and_gets_its_number_back_when_it_is_the_last(folder: Path) -> None:
    with FakeVm(folder, *_KVM) as vm:
        done(vm, {0, 3}, "plug", "--slot", "3")
        assert _numbers(vm) == _right(vm) == {0: 0, 3: 1}
        done(vm, {0}, "unplug", "--slot", "3")
        done(vm, {0, 2}, "plug", "--slot", "2")
        assert _numbers(vm) == _right(vm) == {0: 0, 2: 1}


def test_a_plug_that_would_end_qemu_is_refused_for_want_of_numbers(folder: Path) -> None:
    with FakeVm(folder, *_KVM) as vm:
        done(vm, {0, 1, 2, 3}, "scale", "4")
        done(vm, {0, 2, 3}, "unplug", "--slot", "1")
        ended = run(vm, "plug", "--slot", "1")
        assert (ended.status, ended.json["reason"]["code"]) == (3, "plug-numbers"), ended.stdout
        assert _numbers(vm) == {0: 0, 2: 2, 3: 3}


@pytest.mark.parametrize(
    ("accel", "version"), [("tcg", "11.1.3"), ("kvm", "9.0.4")], ids=["without KVM", "a QEMU before 9.1"]
)
def test_where_numbers_follow_from_the_slot_all_is_as_ever(folder: Path, accel: str, version: str) -> None:
    words = ("--machine", "pseries", "--accel", accel, "--version", version, "--maxcpus", "4")
    with FakeVm(folder, *words) as vm:
        done(vm, {0, 3}, "plug", "--slot", "3")
        done(vm, {0, 1, 3}, "plug", "--slot", "1")
        assert _numbers(vm) == _right(vm)
        done(vm, {0, 1}, "unplug", "--slot", "3")
        done(vm, {0, 1, 3}, "plug", "--slot", "3")


def test_a_removal_that_the_guest_refuses_is_told_with_its_reason_and_the_core_stays(folder: Path) -> None:
    with FakeVm(folder, *_KVM) as vm:
        done(vm, {0, 3}, "plug", "--slot", "3")
        vm.steer.rule("guest:eject", "refuse")
        ended = run(vm, "unplug", "--slot", "3")
        assert ended.outcome != "done", ended.stdout
        assert ended.slots[3]["reason"]["who"] == "guest", ended.stdout
        done(vm, {0}, "unplug", "--slot", "3")


def test_the_fake_ends_where_the_real_one_does_once_a_number_is_no_cores(folder: Path) -> None:
    with FakeVm(folder, *_KVM) as vm:
        done(vm, {0, 1, 2, 3}, "scale", "4")
        done(vm, {0, 2, 3}, "unplug", "--slot", "1")
        vm.steer.call("device_add", driver="host-spapr-cpu-core", id="x", **{"core-id": 1})
        with pytest.raises((EOFError, ConnectionError)):
            vm.steer.call("query-cpus-fast")
        assert vm.process.wait(10) != 0
