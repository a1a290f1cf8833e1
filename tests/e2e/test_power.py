# SPDX-License-Identifier: Apache-2.0
"""What only POWER guests have: SMT modes, hotplug events that the kernel leaves to user space, and a QEMU that dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from kit.e2e.machine import Machine
from kit.e2e.operation import Operation
from kit.lab import Vm

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]

CORES: dict[str, Any] = {
    "guest": "debian12-ppc64el",
    "machine": "pseries,x-vof=on",
    "smp": "2,maxcpus=16,sockets=1,cores=8,threads=2",
}
LEGACY = {**CORES, "qemu": "11.1", "machine": "pseries,x-vof=on,modern-hotplug-events=off"}
CPUS = "/sys/devices/system/cpu"


def present(vm: Vm) -> str:
    return vm.shell(f"cat {CPUS}/present").strip()


def add_core(machine: Machine, slot: int) -> None:
    """A device_add behind the product's back; on POWER nothing acknowledges it."""
    entry = machine.vm.qmp.execute("query-hotpluggable-cpus")[-1 - slot]
    machine.vm.qmp.execute("device_add", driver=entry["type"], id=f"vcpu-{slot}", **entry["props"])


def comes(vm: Vm, seconds: int) -> bool:
    """Whether a second core gets known to the guest's kernel in that time."""
    until = f'until [ "$(cat {CPUS}/present)" != 0-1 ]; do busybox usleep 100000; done'
    return vm.shell(f"timeout {seconds} sh -c '{until}' && echo yes || echo no", seconds + 30).strip() == "yes"


def test_with_smt_off_a_core_is_done_with_its_idle_thread_named(machines: Callable[..., Machine]) -> None:
    machine = machines(**{**CORES, "guest": "debian12-ppc64el-backports", "qemu": "11.1"})
    machine.vm.shell(f"echo off >{CPUS}/smt/control")
    assert machine.vm.shell(f"cat {CPUS}/online").strip() == "0"

    ended = machine.vcpuctl("plug", "--slot", "3")
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout
    (part,) = ended.json["slots"]
    assert part["reason"]["code"] == "smt-off", part
    assert "cpu3" in part["reason"]["text"]
    assert machine.vm.shell(f"cat {CPUS}/online").strip() == "0,2"
    slot = machine.vcpuctl.map()[3]
    assert [(t["guest_cpu"], t["online"]) for t in slot["threads"]] == [(2, True), (3, False)]
    assert slot["state"] == "online"
    assert machine.vcpuctl("plug", "--slot", "3").outcome == "done"

    machine.vm.shell(f"echo on >{CPUS}/smt/control")
    assert machine.vm.shell(f"cat {CPUS}/online").strip() == "0-3"
    assert machine.vcpuctl("unplug", "--slot", "3").outcome == "done"
    assert present(machine.vm) == "0-1"


def test_legacy_events_come_to_nothing_without_the_agent_and_are_made_good_when_it_starts(
    machines: Callable[..., Machine],
) -> None:
    machine = machines(**LEGACY)
    vm = machine.vm
    vm.shell("systemctl stop vcpud", 60)
    assert machine.vcpuctl("--timeout", "2", "plug", "--slot", "2").status == 5
    add_core(machine, 2)
    assert not comes(vm, 5)
    vm.shell("systemctl start vcpud", 120)
    assert comes(vm, 30)
    ended = machine.vcpuctl("plug", "--slot", "2")
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout
    assert [t["online"] for t in machine.vcpuctl.map()[2]["threads"]] == [True, True]

    # And on the way down: asked for while no agent runs, done when it does.
    vm.shell("systemctl stop vcpud", 60)
    vm.qmp.execute("device_del", id="vcpu-2")
    assert vm.shell(f"cat {CPUS}/online").strip() == "0-3"
    vm.shell("systemctl start vcpud", 120)
    vm.qmp.wait_event("DEVICE_DELETED", 30.0, device="vcpu-2")
    assert present(vm) == "0-1"
    assert set(machine.filled()) == {0}


def test_a_lost_record_is_made_good_by_the_request_that_waits_for_its_core(machines: Callable[..., Machine]) -> None:
    machine = machines(**LEGACY)
    vm = machine.vm
    vm.shell("systemctl stop vcpud", 60)
    add_core(machine, 2)
    # whoever reads a record has it alone
    vm.shell("timeout 20 dd if=/proc/powerpc/rtas/error_log of=/run/record bs=4096 count=1", 40)
    vm.shell("systemctl start vcpud", 120)
    assert not comes(vm, 3)
    ended = machine.vcpuctl("plug", "--slot", "2")
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout
    assert present(vm) == "0-3"


def test_where_rtas_errd_runs_the_agent_leaves_the_records_to_it_and_says_so(machines: Callable[..., Machine]) -> None:
    machine = machines(**LEGACY)
    vm = machine.vm
    # nothing but its name: what it would do is not ours to test
    vm.shell("cp /bin/sleep /run/rtas_errd; (/run/rtas_errd 1000 >/dev/null 2>&1 </dev/null & echo $! >/run/errd.pid)")
    vm.shell("systemctl restart vcpud", 120)
    findings = machine.vcpuctl("doctor").json["findings"]
    assert any("udev+rtas_errd" in finding["text"] for finding in findings), findings
    ended = machine.vcpuctl("--timeout", "5", "plug", "--slot", "2")
    assert (ended.status, ended.outcome) == (4, "unknown"), ended.stdout
    assert present(vm) == "0-1"
    vm.shell("kill $(cat /run/errd.pid); systemctl restart vcpud", 120)
    ended = machine.vcpuctl("plug", "--slot", "2")
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout


def test_a_qemu_that_dies_in_the_middle_of_an_unplug_is_said_long_before_the_time_is_over(
    machines: Callable[..., Machine],
) -> None:
    machine = machines(**LEGACY)  # where letting go of a core takes the agent a while
    assert machine.vcpuctl("plug", "--slot", "3", "5").outcome == "done"
    with Operation(machine, "--timeout", "3600", "unplug", "--slot", "3", "5") as operation:
        operation.told("device_del", 5)
        os.kill(machine.vm.pid, signal.SIGKILL)
        ended = operation.ends(within=60)
    assert (ended.status, ended.outcome) == (5, "unknown"), ended.stdout
    assert ended.json["reason"]["code"] == "qemu-gone"
    again = machine.vcpuctl("list")
    assert (again.status, again.outcome) == (5, "qemu-gone")
