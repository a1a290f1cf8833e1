# SPDX-License-Identifier: Apache-2.0
"""A guest whose own udev rule brings CPUs online: whoever is first, done is done, and nobody fights."""

from __future__ import annotations

import pytest
from kit.e2e.machine import Machine
from kit.e2e.operation import run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

#: As Debian's and SUSE's documents give it.
RULE = b'SUBSYSTEM=="cpu", ACTION=="add", TEST=="online", ATTR{online}!="1", ATTR{online}="1"\n'


def test_a_rule_that_brings_cpus_online_first_is_no_failure_either_way(machine: Machine) -> None:
    machine.vm.put(RULE, "/etc/udev/rules.d/80-hotplug-cpu.rules")
    machine.vm.shell("udevadm control --reload")
    for goal in (4, 1, 3, 1):
        ended = run(machine, "scale", str(goal), within=60)
        assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
        assert set(machine.filled()) == machine.online() == set(range(goal))
    # A CPU that is taken offline and stays plugged stays offline: the rule acts on "add" alone.
    assert run(machine, "plug", within=60).status == 0
    assert run(machine, "offline", "1", within=60).status == 0
    machine.vm.shell("udevadm settle")
    assert machine.online() == {0}


def test_a_cpu_that_the_rule_brings_up_without_the_agents_doing_is_found_online(machine: Machine) -> None:
    machine.vm.put(RULE, "/etc/udev/rules.d/80-hotplug-cpu.rules")
    machine.vm.shell("udevadm control --reload")
    slot = machine.vm.qmp.execute("query-hotpluggable-cpus")[-1 - 2]
    machine.vm.qmp.execute("device_add", driver=slot["type"], id="vcpu-2", **slot["props"])
    machine.vm.wait_kernel(r"Booting Node \d+ Processor \d+ APIC 0x2\b", 30)
    machine.vm.shell(f'until [ "$(cat {machine.switch(2)})" = 1 ]; do busybox usleep 20000; done', 30)
    ended = run(machine, "plug", "--slot", "2", within=30)
    assert (ended.status, ended.outcome) == (0, "done")
    assert ended.slots[2]["reason"]["code"] == "already"
    assert machine.vcpuctl.map()[2]["state"] == "online"
