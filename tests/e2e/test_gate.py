# SPDX-License-Identifier: Apache-2.0
"""The eject gate on a real guest: its kernel ejects what the agent has agreed to, and nothing else."""

from __future__ import annotations

import pytest
from kit.e2e.machine import Machine
from kit.e2e.operation import PID

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SWITCH = "/sys/firmware/acpi/hotplug/processor/enabled"


def wait_closed(machine: Machine) -> None:
    machine.vm.shell(f'until read -r now <{SWITCH} && [ "$now" = 0 ]; do busybox usleep 10000; done', timeout=20)


def test_with_the_gate_a_cpu_is_ejected_with_the_agents_word_alone(machine: Machine) -> None:
    assert machine.vm.shell(f"cat {SWITCH}").strip() == "1"  # without the option nobody touches it
    before = machine.state()
    machine.vm.put(b"eject_gate = true\n", "/etc/vcpud/vcpud.conf")
    machine.vm.shell("systemctl restart vcpud", timeout=120)
    assert machine.vm.shell(f"cat {SWITCH}").strip() == "0"
    assert machine.vcpuctl("plug", "--slot", "1").status == 0
    assert machine.vcpuctl("list").json["agent"]["eject_gate"] == "closed"
    findings = {finding["code"]: finding["level"] for finding in machine.vcpuctl("doctor").json["findings"]}
    assert findings["eject-gate"] == "ok"
    assert "eject-disabled" not in findings

    now = machine.state()
    machine.vm.qmp.execute("device_del", id="vcpu-1")
    machine.vm.qmp.wait_event("ACPI_DEVICE_OST", slot="1", source=3, status=128, timeout=30.0)
    assert machine.state() == now

    ended = machine.vcpuctl("unplug", "--slot", "1")
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout
    wait_closed(machine)
    assert machine.state() == before

    # An agent that is killed leaves it closed, also if it was open just then and no other agent comes.
    folder = "/run/systemd/system/vcpud.service.d"
    setting = "[Service]\\nRestart=no\\n"
    machine.vm.shell(f"mkdir -p {folder}; printf '{setting}' >{folder}/t.conf; systemctl daemon-reload", timeout=60)
    machine.vm.shell(f"echo 1 >{SWITCH}; kill -KILL {PID}", timeout=20)
    machine.vm.shell("until systemctl is-failed vcpud; do busybox usleep 50000; done", timeout=60)
    assert machine.vm.shell(f"cat {SWITCH}").strip() == "0"
