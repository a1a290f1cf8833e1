# SPDX-License-Identifier: Apache-2.0
"""A VM that goes back to a snapshot has CPUs that its guest has never heard of, or is not a whole VM any more."""

from __future__ import annotations

from typing import Any

import pytest
from kit.e2e.machine import Machine
from kit.ended import Ended

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def in_time(machine: Machine, *words: str) -> Ended:
    """A command that ends long before the operation's own time, which would be longer than the test's."""
    return machine.vcpuctl("--timeout", "3600", *words)


def scaled(machine: Machine, goal: int) -> None:
    """Said once, it is done, by the lab's own eyes."""
    ended = in_time(machine, "scale", str(goal))
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
    assert machine.online() == set(machine.filled()) == set(range(goal))
    assert set(machine.slots_in_guest()) == set(range(goal))


def reverted(machine: Machine) -> None:
    """A VM with four vCPUs, gone back to when it had two: QEMU still has four."""
    scaled(machine, 2)
    machine.vm.savevm("two")
    scaled(machine, 4)
    assert machine.vm.loadvm("two") == ""
    assert (machine.online(), set(machine.filled())) == ({0, 1}, {0, 1, 2, 3})


@pytest.mark.parametrize("goal", [4, 2, 6])
def test_after_a_revert_to_fewer_cpus_one_scale_converges(machine: Machine, goal: int) -> None:
    reverted(machine)
    scaled(machine, goal)
    added = len(machine.sent("device_add"))
    scaled(machine, goal)
    assert len(machine.sent("device_add")) == added


def test_after_a_revert_the_same_plug_and_the_unplug_of_what_the_guest_does_not_know_are_done(
    machine: Machine,
) -> None:
    reverted(machine)
    gone = in_time(machine, "unplug", "--slot", "3")
    assert (gone.status, gone.outcome) == (0, "done"), gone.stdout
    again = in_time(machine, "plug", "--slot", "2", "3")
    assert (again.status, again.outcome) == (0, "done"), again.stdout
    assert machine.online() == set(machine.filled()) == {0, 1, 2, 3}


def test_what_the_guest_has_never_heard_of_is_not_told_as_on_its_way(machine: Machine) -> None:
    reverted(machine)
    listed = machine.vcpuctl.map()
    assert [listed[slot]["state"] for slot in (1, 2, 3)] == ["online", "plugged", "plugged"]
    assert machine.vcpuctl("list").json["vm"]["online_vcpus"] == 2
    doctor = machine.vcpuctl("doctor").json["findings"]
    found = [finding for finding in doctor if finding["code"] == "slots-plugged"]
    assert found, doctor
    assert "2, 3" in found[0]["text"]


def test_a_vm_that_could_not_go_back_is_left_alone_and_its_user_told_what_to_do(
    machine: Machine,
) -> None:
    scaled(machine, 4)
    machine.vm.savevm("four")
    scaled(machine, 2)
    before = machine.filled()
    # QEMU has no CPUs 2 and 3 to load the snapshot's into, and has the rest of it by now
    assert "cpu_common" in machine.vm.loadvm("four")
    assert machine.vm.qmp.execute("query-status") == {"status": "restore-vm", "running": False}
    told = len(machine.sent("device_add")) + len(machine.sent("device_del"))
    for words in (("scale", "4"), ("plug",), ("unplug",), ("scale", "1")):
        ended = in_time(machine, *words)
        assert (ended.status, ended.outcome) == (3, "refused"), ended.stdout
        reason = reason_of(ended)
        assert "restore-vm" in reason["text"], reason
        assert "loadvm" in reason["hint"], reason
        # what runs on from there is half of one time and half of another
        assert "let it run" not in reason["hint"], reason
    assert machine.filled() == before
    assert len(machine.sent("device_add")) + len(machine.sent("device_del")) == told
    assert machine.vm.qmp.execute("query-status")["status"] == "restore-vm"

    # as the hint says: the slots that the snapshot has, and then it once more
    for slot in (2, 3):
        entry = machine.vm.qmp.execute("query-hotpluggable-cpus")[-1 - slot]
        machine.vm.qmp.execute("device_add", driver=entry["type"], id=f"vcpu-{slot}", **entry["props"])
    assert machine.vm.loadvm("four") == ""
    machine.vm.qmp.execute("cont")
    scaled(machine, 4)


def reason_of(ended: Ended) -> dict[str, Any]:
    """The reason of a refusal, of the whole or of its slots."""
    document = ended.json
    reason = document.get("reason") or document.get("error") or document["slots"][0]["reason"]
    assert isinstance(reason, dict)
    return reason


def test_the_labs_own_revert_is_one(machine: Machine) -> None:
    """What the others stand on: files and CPUs are as they were, and a snapshot that is not there is said."""
    machine.vm.savevm("before")
    machine.vm.shell("echo changed >/run/mark")
    assert machine.vm.loadvm("before") == ""
    assert machine.vm.shell("[ -e /run/mark ] || echo as it was").strip() == "as it was"
    assert "never" in machine.vm.loadvm("never")
