# SPDX-License-Identifier: Apache-2.0
"""QEMU, or vcpuctl itself, ends in the middle of an operation; and two vcpuctl at once."""

from __future__ import annotations

import os
import signal

import pytest
from kit.e2e.machine import Machine
from kit.e2e.operation import ARRIVED, PID, Operation, run, when

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.mark.parametrize(("start", "goal"), [("1", "4"), ("5", "1")], ids=["plug", "unplug"])
def test_a_qemu_that_is_killed_in_the_middle_is_said_long_before_the_time_is_over(
    machine: Machine, start: str, goal: str
) -> None:
    words = ("scale", goal)
    assert run(machine, "scale", start, within=60).status == 0
    with Operation(machine, "--timeout", "3600", *words) as operation:
        if goal == "1":
            operation.told("device_del", 4)  # with three more under way, which the guest ejects one after another
        else:
            operation.booting(1)
        os.kill(machine.vm.pid, signal.SIGKILL)
        ended = operation.ends(within=60)
    assert ended.status == 5, ended.stdout + ended.stderr
    assert ended.outcome == "unknown"
    assert ended.json["reason"]["code"] == "qemu-gone"
    again = run(machine, *words, within=60)
    assert (again.status, again.outcome) == (5, "qemu-gone")


def test_ctrl_c_in_the_middle_says_what_is_unknown_and_the_next_run_ends_right(machine: Machine) -> None:
    with Operation(machine, "--timeout", "3600", "scale", "5") as operation:
        operation.booting(1)
        operation.interrupt()
        ended = operation.ends(within=60)
    assert (ended.status, ended.outcome) == (4, "unknown")
    reasons = {slot["reason"]["code"] for slot in ended.slots.values() if slot["outcome"] == "unknown"}
    assert reasons == {"interrupted"}
    assert set(ended.slots) == {1, 2, 3, 4}

    assert run(machine, "scale", "5", within=60).status == 0
    assert set(machine.filled()) == machine.online() == {0, 1, 2, 3, 4}


def test_a_vcpuctl_killed_in_the_middle_of_a_plug_leaves_nothing_that_the_next_run_does_not_finish(
    machine: Machine,
) -> None:
    with Operation(machine, "scale", "5") as operation:
        operation.told("device_add", 1)
        operation.kill()
    with Operation(machine, "scale", "5") as operation:
        operation.booting(2)
        operation.kill()
    assert run(machine, "scale", "5", within=60).status == 0
    assert set(machine.filled()) == machine.online() == {0, 1, 2, 3, 4}
    assert machine.device_dels() == 0


def test_a_vcpuctl_killed_in_the_middle_of_an_unplug_leaves_nothing_that_the_next_run_does_not_finish(
    machine: Machine,
) -> None:
    assert run(machine, "scale", "5", within=60).status == 0
    with Operation(machine, "scale", "1") as operation:
        operation.offline(4)
        operation.kill()
    with Operation(machine, "scale", "1") as operation:
        operation.told("device_del", 3)
        operation.kill()
    assert run(machine, "scale", "1", within=60).status == 0
    assert set(machine.filled()) == machine.online() == {0}


def test_two_at_once_exclude_each_other_and_the_second_is_told_who_is_at_work(machine: Machine) -> None:
    when(machine, ARRIVED, "kill -STOP $pid")
    with Operation(machine, "scale", "5") as first:
        first.told("device_add", 2)
        machine.vm.shell(f"until grep -q '^State:.T' /proc/{PID}/status; do busybox usleep 10000; done")
        second = run(machine, "plug", within=60)
        assert (second.status, second.outcome) == (3, "vm-busy")
        assert str(first.process.pid) in second.json["error"]["text"]
        assert "scale 5" in second.json["error"]["text"]
        assert run(machine, "list", within=60).status == 0, "who only looks is answered meanwhile"
        assert first.process.poll() is None
        machine.vm.shell(f"kill -CONT {PID}")
        assert first.ends(within=60).status == 0
    assert set(machine.filled()) == machine.online() == {0, 1, 2, 3, 4}
