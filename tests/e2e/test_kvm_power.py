# SPDX-License-Identifier: Apache-2.0
"""POWER under KVM, in a host that QEMU emulates: cores that come out of order, and so get other numbers than their own.

Since 9.1 QEMU numbers the vCPUs of a pseries machine under KVM as they come (docs/adr/0012-how-cpus-are-named.md). Who
is who is seen here without ``props`` of ``query-cpus-fast`` and without the product: by the descriptors that KVM has
given to QEMU's process, by the names of its threads, and by the guest's device tree. The emulated nesting hangs after a
few removals, mostly after one or two, so there is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from kit.e2e import papr
from kit.e2e.machine import Machine
from kit.e2e.platforms import KVM_CORES

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(7200)]

#: Seconds for the host's shell, on a busy machine.
WITHIN = 120.0


def kvm_vcpus(machine: Machine) -> set[int]:
    """The numbers of the vCPUs that KVM has made for QEMU's process, parked ones too."""
    assert machine.vcpuctl.host is not None
    said = machine.vcpuctl.host.vm.shell(f"readlink /proc/{machine.vm.pid}/fd/* || :", WITHIN)
    return {int(number) for number in re.findall(r"^anon_inode:kvm-vcpu:(\d+)$", said, re.MULTILINE)}


def vcpu_threads(machine: Machine) -> dict[int, int]:
    """The threads of QEMU's process that run vCPUs: by the vCPU's number, the thread's id."""
    assert machine.vcpuctl.host is not None
    script = f"cd /proc/{machine.vm.pid}/task && for id in *; do echo $id $(cat $id/comm); done"
    said = machine.vcpuctl.host.vm.shell(script, WITHIN)
    return {int(number): int(tid) for tid, number in re.findall(r"^(\d+) CPU (\d+)/KVM$", said, re.MULTILINE)}


def assert_map(machine: Machine, number_of: dict[int, int]) -> None:
    """Who is who, by slot: what list says is what KVM, QEMU's threads, QEMU's slots and the guest say."""
    assert papr.cores(machine.vm) == {number: slot for slot, number in number_of.items()}
    assert set(machine.filled()) == set(number_of)
    guest = {int(cpu["path"]): (name, cpu["online"]) for name, cpu in machine.vm.guest_cpus().items()}
    threads = vcpu_threads(machine)
    listed = machine.vcpuctl.map()
    assert {slot for slot, shown in listed.items() if shown["state"] != "empty"} == set(number_of)
    for slot, number in number_of.items():
        (thread,) = listed[slot]["threads"]
        assert listed[slot]["state"] == "online", listed[slot]
        assert (f"cpu{thread['guest_cpu']}", thread["online"]) == guest[number], (slot, number, guest)
        assert thread["host_tid"] == threads[number], (slot, number, threads)


def test_cores_that_come_in_any_order_are_told_apart_and_the_right_one_goes(machines: Callable[..., Machine]) -> None:
    machine = machines(kvm=True, qemu="11.1", guest="debian12-ppc64el", **KVM_CORES)
    assert_map(machine, {0: 0})
    number_of = {0: 0}
    for number, slot in enumerate((3, 1, 2), 1):
        ended = machine.vcpuctl("plug", "--slot", str(slot))
        assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
        number_of[slot] = number
        assert kvm_vcpus(machine) == set(number_of.values())
        assert_map(machine, number_of)
    # as the lab's own eyes see it: this QEMU names another core
    wrong = {
        cpu["qom-path"].split("/")[3]: cpu["props"]["core-id"] for cpu in machine.vm.qmp.execute("query-cpus-fast")
    }
    assert (wrong["vcpu-3"], wrong["vcpu-1"], wrong["vcpu-2"]) == (1, 2, 3)

    ended = machine.vcpuctl("unplug", "--slot", "3")
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
    del number_of[3]
    assert [sent["id"] for sent in machine.sent("device_del")] == ["vcpu-3"]
    # parked: KVM's vCPU stays, its thread has ended
    assert kvm_vcpus(machine) == {0, 1, 2, 3}
    assert_map(machine, number_of)
