# SPDX-License-Identifier: Apache-2.0
"""Events are hints: whichever come, come twice, late or never, the answer is the same."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.component.cli import Vcpuctl, done, run, stands
from kit.fakes.qemu import FakeVm


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="ve", dir="/tmp") as name:
        yield Path(name)


def deletions(vm: FakeVm) -> list[dict[str, str]]:
    return [event["data"] for event in vm.steer.events if event["event"] == "DEVICE_DELETED"]


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        # As a QEMU under KVM sends them: the child's, then the CPU's own.
        (
            "kvm",
            [
                {"path": "/machine/peripheral/vcpu-1/lapic"},
                {"device": "vcpu-1", "path": "/machine/peripheral/vcpu-1"},
            ],
        ),
        # As every QEMU under TCG does: the child's alone.
        ("tcg", [{"path": "/machine/peripheral/vcpu-1/lapic"}]),
        ("none", []),
    ],
)
def test_an_unplug_is_done_as_soon_as_the_slot_is_empty_whatever_qemu_says_of_it(
    folder: Path, recorded: str, expected: list[dict[str, str]]
) -> None:
    with FakeVm(folder, "--deleted", recorded) as vm:
        done(vm, {0, 1}, "plug")
        done(vm, {0}, "unplug")
        vm.steer.call("query-status")
        assert deletions(vm) == expected


def test_all_events_lost_cost_time_and_nothing_else(folder: Path) -> None:
    with FakeVm(folder, "--deleted", "kvm") as vm:
        for name in ("ACPI_DEVICE_OST", "DEVICE_DELETED", "VSERPORT_CHANGE"):
            vm.steer.rule(f"event:{name}", "drop", times=None)
        vm.steer.call("x-fake-kernel-mute")
        done(vm, {0, 1, 2, 3}, "scale", "4")
        done(vm, {0}, "scale", "1")


def test_every_event_twice_is_as_good_as_once(folder: Path) -> None:
    with FakeVm(folder, "--deleted", "kvm") as vm:
        for name in ("ACPI_DEVICE_OST", "DEVICE_DELETED", "VSERPORT_CHANGE"):
            vm.steer.rule(f"event:{name}", "duplicate", times=None)
        done(vm, {0, 1, 2, 3}, "scale", "4")
        done(vm, {0}, "scale", "1")
        assert len(vm.steer.commands("device_add")) == len(vm.steer.commands("device_del")) == 3


def test_events_about_other_slots_and_of_earlier_operations_move_nothing(folder: Path) -> None:
    with FakeVm(folder) as vm:
        done(vm, {0, 1, 2}, "scale", "3")
        rule = vm.steer.rule("guest:eject", "hold")
        with Vcpuctl(vm, "unplug", "--slot", "2") as command:
            vm.steer.wait(rule)
            vm.steer.call("x-fake-emit", event="DEVICE_DELETED", data={"path": "/machine/peripheral/vcpu-1"})
            vm.steer.call(
                "x-fake-emit",
                event="DEVICE_DELETED",
                data={"device": "vcpu-2", "path": "/machine/peripheral/vcpu-2"},
            )
            for slot, source, status in ((1, 3, 0), (2, 1, 0), (9, 3, 130), (2, 3, 132)):
                info = {"slot": str(slot), "slot-type": "CPU", "source": source, "status": status}
                vm.steer.call("x-fake-emit", event="ACPI_DEVICE_OST", data={"info": info})
            # The slot is full: no word makes it empty.
            assert vm.steer.call("query-status")["status"] == "running"
            assert command.process.poll() is None
            vm.steer.release(rule)
            assert command.ends().outcome == "done"
        stands(vm, {0, 1})


def test_a_late_removal_is_unknown_first_and_found_done_by_the_next_look(folder: Path) -> None:
    with FakeVm(folder) as vm:
        done(vm, {0, 1}, "plug")
        rule = vm.steer.rule("guest:eject", "hold")
        with Vcpuctl(vm, "--timeout", "10", "unplug", "--slot", "1") as command:
            ended = command.ends()
        assert (ended.status, ended.outcome, ended.code(1)) == (4, "unknown", "removal-pending")
        vm.steer.release(rule)
        done(vm, {0}, "unplug", "--slot", "1")


def test_a_guest_that_is_slow_to_take_notice_is_waited_for(folder: Path) -> None:
    with FakeVm(folder) as vm:
        vm.steer.rule("guest:insert", "delay", seconds=2)
        done(vm, {0, 1}, "plug")
        vm.steer.rule("guest:insert", "hold")
        ended = run(vm, "--timeout", "10", "plug", "--slot", "2")
        assert (ended.status, ended.outcome, ended.code(2)) == (4, "unknown", "arrival-pending")
        vm.steer.call("x-fake-clear")
        done(vm, {0, 1, 2}, "plug", "--slot", "2")
