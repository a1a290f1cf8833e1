# SPDX-License-Identifier: Apache-2.0
"""Under KVM: the built vcpuctl in a host that QEMU emulates, against a VM under KVM in it that has the built agent.

See ``kit.lab.nested``. What is shown holds for the KVM code of Linux and QEMU; it says nothing of times.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import pytest
from kit.e2e import footprint
from kit.e2e.machine import Machine
from kit.e2e.platforms import CELLS, KVM, Cell
from kit.e2e.trial import tried
from kit.lab.qemu import SUITES
from vcpu_host.core.descriptors import PER_VCPU, RESERVE

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(7200)]

#: Seconds for a command of vcpuctl in the emulated host, on a busy machine.
WITHIN = 180.0
#: Descriptors of the kind kvm-vcpu-stats that QEMU leaves open at each unplug, by its version.
LEFT_AT_EACH_UNPLUG = {"10.0": 1, "11.1": 1}


def _cells() -> list[object]:
    return [pytest.param(cell, id=cell.name) for cell in CELLS if cell.kvm]


@pytest.fixture
def kvm(machines: Callable[..., Machine]) -> Callable[..., Machine]:
    """Makes VMs under KVM."""
    return partial(machines, kvm=True, **KVM)


@pytest.mark.parametrize("cell", _cells())
def test_every_command_under_kvm(cell: Cell, machines: Callable[..., Machine]) -> None:
    machine = machines(kvm=True, qemu=cell.qemu, guest=cell.guest, **cell.changes)
    assert machine.vm.qmp.execute("query-kvm") == {"enabled": True, "present": True}
    tried(cell, "trial", None, machine)


#: What has to be there before a check that has a VM of its own.
BEFORE = {"unplug": ("plug",)}


@pytest.mark.parametrize(
    ("cell", "check"),
    [pytest.param(cell, check, id=f"{cell.name}-{check}") for cell in CELLS if cell.kvm for check in cell.apart],
)
def test_what_takes_a_vm_of_its_own_under_kvm(cell: Cell, check: str, machines: Callable[..., Machine]) -> None:
    machine = machines(kvm=True, qemu=cell.qemu, guest=cell.guest, **cell.changes)
    tried(cell, check, (*BEFORE.get(check, ()), check), machine)


def _received(machine: Machine, command: str) -> int:
    """How many such commands are in the record."""
    return [said["execute"] for _, said in machine.vm.qmp_commands()].count(command)


def test_one_scale_mends_what_a_vcpuctl_that_was_killed_has_left(kvm: Callable[..., Machine]) -> None:
    machine = kvm()
    for words, command, goal in (
        (("scale", "4"), "device_add", 3),
        (("scale", "1"), "device_del", 2),
        (("scale", "4"), "device_add", 4),
        (("scale", "1"), "device_del", 1),
    ):
        machine.vm.catch_up()
        before = _received(machine, command)
        running = machine.vcpuctl.begin(*words)
        begun = partial(_received, machine, command)
        assert machine.vm.record.wait(lambda begun=begun, before=before: begun() > before, WITHIN)  # type: ignore[misc]
        assert running.poll() is None, f"{words}: it has ended before it could be killed"
        running.kill()
        running.wait()
        ended = machine.vcpuctl("scale", str(goal))
        assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
        assert set(machine.filled()) == machine.online()
        assert len(machine.online()) == len(machine.slots_in_guest()) == goal
        assert [slot for slot, shown in machine.vcpuctl.map().items() if shown["pending"] is not None] == []


def test_a_newest_guest_from_which_kvm_is_hidden_is_told_as_such_at_once(kvm: Callable[..., Machine]) -> None:
    machine = kvm(guest="debian13-amd64", qemu="11.1", cpu="host,kvm=off")
    assert machine.vm.shell("cat /sys/devices/system/cpu/possible").strip() == "0"
    before = machine.state()
    for words in (("plug",), ("plug", "--slot", "5"), ("scale", "2")):
        ended = machine.vcpuctl(*words)
        assert (ended.status, ended.outcome) == (3, "refused"), ended.stdout + ended.stderr
        assert "KVM is hidden from it (kvm=off)" in ended.json["reason"]["text"], ended.stdout
        assert "-cpu without kvm=off" in ended.json["reason"]["hint"]
        assert machine.state() == before
    assert machine.sent("device_add") == []
    found = machine.vcpuctl("doctor").json["findings"]
    assert any("KVM is hidden from it (kvm=off)" in each["text"] and each["level"] != "ok" for each in found), found


def _limited(machine: Machine, left: int) -> int:
    """Leave QEMU so many descriptors; its new limit."""
    assert machine.vcpuctl.host is not None
    limit = len(machine.vcpuctl.host.vm.shell(f"ls /proc/{machine.vm.pid}/fd", WITHIN).split()) + left
    machine.vcpuctl.host.vm.shell(f"prlimit --pid {machine.vm.pid} --nofile={limit}:", WITHIN)
    return limit


def test_qemus_descriptors_are_counted_and_a_plug_is_refused_early_until_what_is_advised_is_done(
    kvm: Callable[..., Machine],
) -> None:
    machine = kvm()
    before = machine.vcpuctl("list").json["vm"]["descriptors"]
    assert machine.vcpuctl("plug", "--slot", "3").outcome == "done"
    after = machine.vcpuctl("list").json["vm"]["descriptors"]
    assert after["open"] - before["open"] == PER_VCPU, (before, after)
    assert before["vcpus_left"] - after["vcpus_left"] == 1, (before, after)

    limit = _limited(machine, RESERVE + 1)
    listed = machine.vcpuctl("list").json["vm"]["descriptors"]
    assert (listed["limit"], listed["vcpus_left"]) == (limit, 0)
    (found,) = (each for each in machine.vcpuctl("doctor").json["findings"] if each["code"] == "few-descriptors")
    assert found["level"] == "problem", found
    state = machine.state()
    refused = machine.vcpuctl("plug")
    assert (refused.status, refused.outcome) == (3, "refused"), refused.stdout
    assert refused.json["reason"]["code"] == "few-descriptors", refused.stdout
    assert machine.state() == state
    assert len(machine.sent("device_add")) == 1
    # what shrinks takes none
    assert machine.vcpuctl("unplug", "--slot", "3").outcome == "done"

    advised = re.search(r"prlimit --pid \d+ --nofile=\d+:\d+", refused.json["reason"]["hint"])
    assert advised is not None, refused.stdout
    assert machine.vcpuctl.host is not None
    machine.vcpuctl.host.vm.shell(advised[0], WITHIN)
    assert machine.vcpuctl("plug").outcome == "done"


@pytest.mark.parametrize("qemu", list(SUITES))
def test_nothing_of_a_cpu_is_left_in_qemu_but_what_is_known(qemu: str, kvm: Callable[..., Machine]) -> None:
    machine = kvm(qemu=qemu, debs=None)
    seen = footprint.rounds(machine)
    footprint.keep(machine, seen)
    first, middle, last = (seen[number] for number in footprint.LOOKS)
    # those of the block layer come and go, those of vCPUs would stay
    assert last["threads"] - first["threads"] < footprint.LOOKS[1], (first, last)
    # parked for the next plug of the same slot
    assert last["descriptors: kvm-vcpu"] - first["descriptors: kvm-vcpu"] == len(footprint.SLOTS)
    left = {what: last[what] - middle[what] for what in last if what.startswith("descriptors: ")}
    each = LEFT_AT_EACH_UNPLUG.get(qemu, 0)
    assert {what: more for what, more in left.items() if more} == (
        {"descriptors: kvm-vcpu-stats": each * (footprint.LOOKS[2] - footprint.LOOKS[1])} if each else {}
    )
