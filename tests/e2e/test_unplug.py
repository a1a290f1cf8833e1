# SPDX-License-Identifier: Apache-2.0
"""Unplugging on a real guest, and the guest's side alone (offline, online)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kit.e2e.machine import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

TWO_AT_START = "2,maxcpus=16,sockets=2,cores=4,threads=2"


def offline_before_removal(machine: Machine, number: int, target: str) -> bool:
    """Whether the kernel said that its cpu``number`` is offline before QEMU was told to remove ``target``."""
    offline, _ = machine.vm.wait_kernel(rf"CPU {number} is now offline")
    dels = [when for when, said in machine.vm.qmp_commands() if said.get("arguments") == {"id": target}]
    return len(dels) == 1 and offline < dels[0]


def test_slots_are_given_up_by_count_id_index_and_props_the_guest_first(machine: Machine) -> None:
    before = machine.state()
    assert machine.vcpuctl("plug", "-n", "5").status == 0
    last = machine.vcpuctl("unplug")
    assert (last.status, last.outcome, sorted(last.slots)) == (0, "done", [5])
    part = last.slots[5]
    assert (part["id"], part["guest_cpus"], part["reason"]) == ("vcpu-5", [5], None)
    assert set(part["phases"]) == {"offline", "device_del"}
    assert offline_before_removal(machine, 5, "vcpu-5")
    assert machine.online() == {0, 1, 2, 3, 4}
    assert sorted(machine.filled()) == [0, 1, 2, 3, 4]

    some = machine.vcpuctl("unplug", "--slot", "vcpu-1", "4", "socket-id=0,core-id=1,thread-id=0")
    assert (some.status, sorted(some.slots)) == (0, [1, 2, 4]), some.stdout
    assert machine.online() == {0, 3}
    for number, target in ((1, "vcpu-1"), (4, "vcpu-4"), (2, "vcpu-2")):
        assert offline_before_removal(machine, number, target)

    dels, now = machine.device_dels(), machine.state()
    again = machine.vcpuctl("unplug", "--slot", "4", "1")
    assert (again.status, again.outcome) == (0, "done")
    assert {slot["reason"]["code"] for slot in again.json["slots"]} == {"already"}
    assert (machine.device_dels(), machine.state()) == (dels, now)

    assert machine.vcpuctl("unplug").status == 0
    assert machine.state() == before


def test_a_cpu_is_taken_offline_and_brought_back_without_being_unplugged(machine: Machine) -> None:
    before = machine.state()
    assert machine.vcpuctl("plug", "-n", "2").status == 0
    filled = machine.filled()
    for word, there in (("offline", {0, 1}), ("online", {0, 1, 2})):
        for outcome in (None, "already"):  # the second time changes nothing
            ended = machine.vcpuctl(word, "2")
            assert (ended.status, ended.outcome, list(ended.slots)) == (0, "done", [2]), ended.stdout
            reason = ended.slots[2]["reason"]
            assert (reason and reason["code"]) == outcome
            assert machine.online() == there
            assert machine.filled() == filled
        assert machine.vcpuctl.map()[2]["state"] == word
    assert machine.device_dels() == 0

    for words, code, who in (
        (("offline", "9"), "slot-empty", "vcpuctl"),
        (("online", "vcpu-1", "9"), "slot-empty", "vcpuctl"),
        (("offline", "1", "0"), "cpu0", "agent"),
    ):
        now = machine.state()
        refused = machine.vcpuctl(*words)
        assert (refused.status, refused.outcome) == (3, "refused"), refused.stdout
        reason = refused.json["reason"]
        assert reason["code"] == code, reason
        assert reason["who"] in (who, "guest")
        assert reason["text"]
        assert machine.state() == now

    assert machine.vcpuctl("offline", "1", "2").status == 0
    assert machine.online() == {0}
    # offline already: nothing is left to be asked of the kernel, and the removal still is the guest's to confirm
    assert machine.vcpuctl("unplug", "--slot", "1", "2").status == 0
    assert machine.state() == before


def test_a_cpu_of_the_start_is_unplugged_by_its_path_and_can_come_back(machines: Callable[..., Machine]) -> None:
    machine = machines(smp=TWO_AT_START)
    slots = machine.vcpuctl.map()
    assert (slots[1]["state"], slots[1]["id"], slots[1]["removable"]) == ("online", None, True)
    path = machine.filled()[1]
    assert "unattached" in path

    occupied = machine.vcpuctl("plug", "--slot", "1")
    assert (occupied.status, occupied.json["reason"]["code"]) == (3, "slot-occupied")
    ended = machine.vcpuctl("unplug", "--slot", "1")
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout
    assert sorted(machine.filled()) == [0]
    assert machine.online() == {0}
    assert offline_before_removal(machine, 1, path)

    back = machine.vcpuctl("scale", "2")
    assert (back.status, list(back.slots)) == (0, [1]), back.stdout
    assert machine.online() == {0, 1}
    assert machine.filled()[1] == "/machine/peripheral/vcpu-1"
    assert machine.vcpuctl("scale", "2").json["slots"] == []
    assert machine.vcpuctl("scale", "1").status == 0
    assert machine.online() == {0}
