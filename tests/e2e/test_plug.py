# SPDX-License-Identifier: Apache-2.0
"""Plugging on a real guest: what ``vcpuctl`` says came is what the guest's console shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kit.e2e.machine import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

#: What ``list -o json`` holds at least.
VM_FIELDS = {
    *("qemu_version", "machine", "arch", "status"),
    *("possible_vcpus", "plugged_vcpus", "online_vcpus"),
}
AGENT_FIELDS = {"connected", "version", "kernel", "boot_id"}
SLOT_FIELDS = {"slot", "props", "type", "vcpus", "state", "id", "qom_path", "removable", "node", "threads"}
THREAD_FIELDS = {"guest_cpu", "online", "host_tid"}
#: What this version adds to them, on purpose.
MORE = {
    "vm": {"migration", "migrating", "name", "accel", "no_hotplug", "descriptors", "owner"},
    "agent": {"platform", "eject_gate"},
    "slot": {"not_removable", "pending", "filled", "recorded"},
    "thread": {"firmware_id", "guest_node", "parked"},
    "document": {"agent_trouble", "guest_trouble", "record_trouble", "unexplained_guest_cpus"},
}


def check_list(machine: Machine) -> dict[int, dict[str, Any]]:
    """``list -o json`` held against QEMU, the host's /proc and the guest's console; its slots by index."""
    ended = machine.vcpuctl("list")
    assert ended.status == 0, ended.stderr
    document = ended.json
    in_guest, filled = machine.slots_in_guest(), machine.filled()
    possible = machine.vm.qmp.execute("query-hotpluggable-cpus")
    tasks = {int(task.name) for task in Path(f"/proc/{machine.vm.pid}/task").iterdir()}
    tids = {cpu["cpu-index"]: cpu["thread-id"] for cpu in machine.vm.qmp.execute("query-cpus-fast")}

    assert set(document) == {"schema_version", "vm", "agent", "slots"} | MORE["document"]
    assert set(document["vm"]) == VM_FIELDS | MORE["vm"]
    assert set(document["agent"]) == AGENT_FIELDS | MORE["agent"]
    assert document["vm"]["status"] == "running"
    assert document["vm"]["possible_vcpus"] == len(possible)
    assert document["vm"]["plugged_vcpus"] == len(filled)
    assert document["vm"]["online_vcpus"] == sum(cpu["online"] for cpu in in_guest.values())
    assert document["agent"]["boot_id"] == machine.vm.shell("cat /proc/sys/kernel/random/boot_id").strip()
    assert document["agent"]["kernel"] == machine.vm.shell("uname -r").strip()
    assert document["guest_trouble"] is None
    assert document["unexplained_guest_cpus"] == []
    assert [slot["slot"] for slot in document["slots"]] == list(range(len(possible)))
    for slot in document["slots"]:
        index = slot["slot"]
        entry = possible[-1 - index]
        assert set(slot) == SLOT_FIELDS | MORE["slot"]
        assert [slot["props"], slot["type"], slot["vcpus"]] == [entry["props"], entry["type"], entry["vcpus-count"]]
        assert slot["qom_path"] == filled.get(index)
        assert slot["removable"] == (index != 0 and index in filled)
        (thread,) = slot["threads"]
        assert set(thread) == THREAD_FIELDS | MORE["thread"]
        if index in filled:
            cpu = in_guest[index]
            assert slot["state"] == ("online" if cpu["online"] else "offline")
            assert (thread["guest_cpu"], thread["online"]) == (cpu["cpu"], cpu["online"])
            assert thread["host_tid"] == tids[index]
            assert thread["host_tid"] in tasks
        else:
            assert slot["state"] == "empty"
            assert (slot["id"], thread["guest_cpu"], thread["online"], thread["host_tid"]) == (None, None, False, None)
    return {slot["slot"]: slot for slot in document["slots"]}


def test_slots_plugged_out_of_order_are_each_tied_to_the_right_guest_cpu(machine: Machine) -> None:
    before = machine.state()
    for slot in (5, 2, 7):
        ended = machine.vcpuctl("plug", "--slot", str(slot))
        assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
        (part,) = ended.json["slots"]
        assert (part["slot"], part["id"], part["outcome"], part["reason"]) == (slot, f"vcpu-{slot}", "done", None)
        assert set(part["phases"]) == {"device_add", "arrival", "online"}
        assert all(0 <= seconds <= ended.json["elapsed"] for seconds in part["phases"].values())
    slots = check_list(machine)
    assert machine.online() == {0, 2, 5, 7}
    # which number each has, the kernel says: Linux 6.1 counts in the order of plugging, today's by their place
    numbers = {index: slots[index]["threads"][0]["guest_cpu"] for index in (5, 2, 7)}
    assert numbers in ({5: 1, 2: 2, 7: 3}, {5: 5, 2: 2, 7: 7})
    assert {index: slots[index]["id"] for index in (0, 2, 5, 7)} == {0: None, 2: "vcpu-2", 5: "vcpu-5", 7: "vcpu-7"}

    adds, now = len(machine.sent("device_add")), machine.state()
    for selector in ("5", "vcpu-5", "socket-id=0,core-id=2,thread-id=1"):
        again = machine.vcpuctl("plug", "--slot", selector)
        assert (again.status, again.outcome) == (0, "done"), again.stdout
        assert again.slots[5]["reason"]["code"] == "already"
    assert len(machine.sent("device_add")) == adds
    assert machine.state() == now

    assert machine.vcpuctl("scale", "1").status == 0
    assert machine.state() == before


def test_a_count_takes_the_lowest_empty_slots_and_one_is_the_default(machine: Machine) -> None:
    before = machine.state()
    one = machine.vcpuctl("plug")
    assert (one.status, sorted(one.slots)) == (0, [1])
    three = machine.vcpuctl("plug", "-n", "3")
    assert (three.status, sorted(three.slots)) == (0, [2, 3, 4])
    assert {slot["outcome"] for slot in three.json["slots"]} == {"done"}
    assert machine.online() == {0, 1, 2, 3, 4}
    slots = check_list(machine)
    assert {slot["id"] for slot in slots.values() if slot["id"]} == {"vcpu-1", "vcpu-2", "vcpu-3", "vcpu-4"}
    assert machine.vcpuctl("unplug", "-n", "4").status == 0
    assert machine.state() == before


def test_props_name_every_slot_that_has_them_and_reach_qemu_verbatim(machine: Machine) -> None:
    before = machine.state()
    ended = machine.vcpuctl("plug", "--slot", "socket-id=1,core-id=0", "3")
    assert (ended.status, sorted(ended.slots)) == (0, [3, 8, 9]), ended.stdout
    assert machine.online() == {0, 3, 8, 9}
    props = {
        f"vcpu-{i}": entry["props"] for i, entry in enumerate(machine.vm.qmp.execute("query-hotpluggable-cpus")[::-1])
    }
    for add in machine.sent("device_add"):
        assert {name: value for name, value in add.items() if name.endswith("-id")} == props[add["id"]]
    down = machine.vcpuctl("unplug", "--slot", "vcpu-3", "socket-id=1")
    # Most of socket 1's slots are empty already: nothing is to be done for them.
    assert (down.status, sorted(down.slots)) == (0, [3, *range(8, 16)]), down.stdout
    assert machine.state() == before


def test_a_plan_tells_what_the_run_does_and_changes_nothing(machine: Machine) -> None:
    before = machine.state()

    def planned(*words: str) -> list[tuple[str, int]]:
        now = machine.state()
        ended = machine.vcpuctl("plan", *words)
        assert ended.status == 0, ended.stderr
        assert machine.state() == now
        return [(step["step"], step["slot"]) for step in ended.json["steps"]]

    for words in (("plug", "-n", "2"), ("plug", "--slot", "6"), ("scale", "2"), ("unplug", "--slot", "1")):
        steps = planned(*words)
        adds, dels = len(machine.sent("device_add")), len(machine.sent("device_del"))
        ended = machine.vcpuctl(*words)
        assert ended.status == 0, ended.stdout
        assert set(ended.slots) == {slot for _, slot in steps}
        added = [int(add["id"].removeprefix("vcpu-")) for add in machine.sent("device_add")[adds:]]
        assert added == [slot for kind, slot in steps if kind == "plug"]
        # Removals go out as each CPU has been let go.
        gone = {int(gone["id"].removeprefix("vcpu-")) for gone in machine.sent("device_del")[dels:]}
        assert gone == {slot for kind, slot in steps if kind == "unplug"}
    assert machine.state() == before
    assert planned("scale", "1") == []
    assert machine.vcpuctl("plan", "plug", "-n", "16").status == 3
    assert machine.vcpuctl("plan", "unplug", "--slot", "0").status == 3
    assert machine.state() == before


def test_the_table_for_people_says_the_same_as_the_json(machine: Machine) -> None:
    assert machine.vcpuctl("plug", "--slot", "6").status == 0
    table = machine.vcpuctl.wait(machine.vcpuctl.start("list", json_output=False))
    assert table.status == 0
    rows = {line.split()[0]: line.split() for line in table.stdout.splitlines() if re.match(r"\d", line)}
    assert len(rows) == 16
    tid = machine.vcpuctl.map()[6]["threads"][0]["host_tid"]
    number = machine.slots_in_guest()[6]["cpu"]
    assert rows["6"] == ["6", "online", f"cpu{number}", "vcpu-6", "socket=0,core=3,thread=0", "0", str(tid)]
    assert rows["7"][:4] == ["7", "empty", "-", "-"]
    assert "vCPUs: 2 online, 2 plugged, 16 possible" in table.stdout


def test_the_same_on_pc_with_one_core_a_socket(machines: Callable[..., Machine]) -> None:
    machine = machines(machine="pc", smp="1,maxcpus=16,sockets=16,cores=1,threads=1")
    before = machine.state()
    assert machine.vcpuctl("plug", "--slot", "socket-id=9", "2").status == 0
    slots = check_list(machine)
    assert machine.online() == {0, 2, 9}
    assert slots[2]["threads"][0]["guest_cpu"] != slots[9]["threads"][0]["guest_cpu"]
    assert machine.vcpuctl("unplug", "--slot", "2").status == 0
    assert machine.vcpuctl("plug", "--slot", "2").status == 0  # the same slot a second time
    assert machine.online() == {0, 2, 9}
    assert machine.vcpuctl("scale", "1").status == 0
    assert machine.state() == before
