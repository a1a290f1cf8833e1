# SPDX-License-Identifier: Apache-2.0
"""A VM that is paused: before an operation it is refused, in its middle it is waited for."""

from __future__ import annotations

import time

import pytest
from kit.e2e.machine import Machine
from kit.e2e.operation import Operation, run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_a_paused_vm_is_refused_at_once_and_nothing_is_changed(machine: Machine) -> None:
    machine.vm.qmp.execute("stop")
    for words in (("plug",), ("scale", "4"), ("unplug", "--slot", "0")):
        ended = run(machine, *words, within=60)
        assert (ended.status, ended.outcome) == (3, "refused")
        assert ended.json["reason"]["code"] == "vm-not-running"
    assert run(machine, "list", within=60).status == 0
    assert not any(command["execute"] == "device_add" for _, command in machine.vm.qmp_commands())

    machine.vm.qmp.execute("cont")
    assert run(machine, "plug", within=60).status == 0
    assert set(machine.filled()) == machine.online() == {0, 1}


def test_a_pause_in_the_middle_only_delays(machine: Machine) -> None:
    with Operation(machine, "scale", "4") as operation:
        operation.booting(1)
        machine.vm.qmp.execute("stop")
        operation.stays(3.0)
        machine.vm.qmp.execute("cont")
        ended = operation.ends(within=60)
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
    assert set(machine.filled()) == machine.online() == {0, 1, 2, 3}

    with Operation(machine, "scale", "1") as operation:
        operation.offline(3)
        machine.vm.qmp.execute("stop")
        machine.vm.qmp.execute("cont")
        ended = operation.ends(within=60)
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
    assert set(machine.filled()) == machine.online() == {0}


def test_a_pause_that_does_not_end_is_unknown_at_the_timeout_and_the_next_run_ends_right(machine: Machine) -> None:
    # Long enough that a busy host has stopped the VM before: else it is not the pause that the time was lost in.
    with Operation(machine, "--timeout", "30", "scale", "4") as operation:
        operation.booting(1)
        machine.vm.qmp.execute("stop")
        ended = operation.ends(within=120)
        assert time.monotonic() - operation.began >= 30.0
    assert (ended.status, ended.outcome) == (4, "unknown")
    assert {s["reason"]["code"] for s in ended.slots.values() if s["outcome"] == "unknown"} == {"vm-paused"}

    machine.vm.qmp.execute("cont")
    assert run(machine, "scale", "4", within=60).status == 0
    assert set(machine.filled()) == machine.online() == {0, 1, 2, 3}
