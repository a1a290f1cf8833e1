# SPDX-License-Identifier: Apache-2.0
"""``scale N`` states a goal: from wherever the VM stands, N vCPUs are online at the end."""

from __future__ import annotations

from typing import Any

import pytest
from kit.e2e.machine import Machine
from kit.ended import Ended

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def scaled(machine: Machine, goal: int) -> Ended:
    """``scale goal``, which must be done, and then be so by every account; the second time nothing is left to do."""
    ended = machine.vcpuctl("scale", str(goal))
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
    assert len(machine.online()) == goal
    assert machine.online() == set(machine.filled())
    adds, dels = len(machine.sent("device_add")), len(machine.sent("device_del"))
    again = machine.vcpuctl("scale", str(goal))
    assert (again.status, again.outcome, again.json["slots"]) == (0, "done", [])
    assert (len(machine.sent("device_add")), len(machine.sent("device_del"))) == (adds, dels)
    return ended


def changed(ended: Ended) -> dict[int, Any]:
    """Phases by slot."""
    return {slot["slot"]: sorted(slot["phases"]) for slot in ended.json["slots"]}


def test_up_down_and_the_same(machine: Machine) -> None:
    before = machine.state()
    assert sorted(changed(scaled(machine, 4))) == [1, 2, 3]
    assert sorted(changed(scaled(machine, 2))) == [2, 3]
    assert sorted(changed(scaled(machine, 3))) == [2]
    assert changed(scaled(machine, 3)) == {}
    scaled(machine, 1)
    assert machine.state() == before


def test_what_was_switched_off_by_hand_comes_back_or_goes_first(machine: Machine) -> None:
    before = machine.state()
    scaled(machine, 4)
    machine.vm.shell(f"echo 0 > {machine.switch(2)}")
    assert machine.vcpuctl.map()[2]["state"] == "offline"
    # nothing is plugged for it: the CPU is there
    assert changed(scaled(machine, 4)) == {2: ["online"]}
    machine.vm.shell(f"echo 0 > {machine.switch(2)}")
    # nothing runs on it, so it goes, and not the highest one
    gone = scaled(machine, 3)
    assert list(changed(gone)) == [2]
    assert machine.online() == {0, 1, 3}
    scaled(machine, 1)
    assert machine.state() == before


def test_what_others_plugged_counts_is_finished_and_can_go(machine: Machine) -> None:
    before = machine.state()
    machine.raw_add(3, "foreign-1")  # nobody brings it online
    slot = machine.vcpuctl.map()[3]
    assert (slot["state"], slot["id"], slot["removable"]) == ("offline", "foreign-1", True)
    adds = len(machine.sent("device_add"))
    assert machine.online() == {0}

    occupied = machine.vcpuctl("plug", "--slot", "3")
    assert (occupied.status, occupied.outcome) == (3, "refused")
    assert occupied.json["reason"]["code"] == "slot-occupied"
    assert "foreign-1" in occupied.json["reason"]["text"]

    assert changed(scaled(machine, 2)) == {3: ["online"]}
    assert len(machine.sent("device_add")) == adds
    assert machine.online() == {0, 3}
    # our own id for the slot is taken by a CPU elsewhere: that is known beforehand, and nothing is sent
    machine.raw_add(5, "vcpu-1")
    machine.vm.shell(f"echo 1 > {machine.switch(5)}", timeout=30)
    now = machine.state()
    clash = machine.vcpuctl("plug", "--slot", "1")
    assert (clash.status, clash.outcome) == (3, "refused"), clash.stdout
    assert clash.slots[1]["reason"]["code"] == "id-taken"
    assert machine.state() == now

    assert sorted(changed(scaled(machine, 1))) == [3, 5]
    assert machine.state() == before
