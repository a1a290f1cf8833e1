# SPDX-License-Identifier: Apache-2.0
"""CPUs plugged while the guest still boots, before there is an agent."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from kit.e2e.machine import Machine
from kit.e2e.operation import run
from kit.e2e.races import outlived

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(600)]


def plug(machine: Machine, slot: int) -> None:
    """A plug behind vcpuctl's back, under the id that it would use itself."""
    entry = machine.vm.qmp.execute("query-hotpluggable-cpus")[-1 - slot]
    machine.vm.qmp.execute("device_add", driver=entry["type"], id=f"vcpu-{slot}", **entry["props"])


def test_plugs_during_the_boot_are_taken_over_when_the_agent_is_up(machines: Callable[..., Machine]) -> None:
    outlived(machines, plugs_during_the_boot)


def plugs_during_the_boot(machine: Machine) -> None:
    """The test, on one VM."""
    # A reset loses what the guest has not written to its disk.
    machine.vm.shell("sync", timeout=60)
    since = time.monotonic()
    machine.vm.qmp.execute("system_reset")
    plug(machine, 2)  # before the firmware has run
    machine.vm.wait_kernel(r"Linux version", 60, since=since)
    plug(machine, 5)  # before the kernel looks for CPUs, or just then
    booting = run(machine, "--timeout", "2", "scale", "4", within=60)
    assert booting.status == 5, booting.stdout + booting.stderr
    assert booting.outcome in {"guest-booting", "agent-absent"}
    machine.vm.wait_kernel(r"virtio_blk|vda", 60, since=since)
    plug(machine, 1)  # the kernel is up, udev and the agent are not
    assert machine.device_dels() == 0

    machine.vm.wait_shell(120)
    machine.vm.shell("until systemctl is-active --quiet vcpud; do busybox usleep 100000; done", timeout=120)
    ended = run(machine, "scale", "4", within=60)
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
    assert set(machine.filled()) == machine.online() == {0, 1, 2, 5}
    listed = machine.vcpuctl.map()
    assert [slot for slot in listed if listed[slot]["state"] == "online"] == [0, 1, 2, 5]

    ended = run(machine, "scale", "1", within=60)
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
    assert set(machine.filled()) == machine.online() == {0}
