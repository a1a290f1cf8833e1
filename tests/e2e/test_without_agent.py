# SPDX-License-Identifier: Apache-2.0
"""--without-agent on a real guest whose agent is not there."""

from __future__ import annotations

import pytest
from kit.e2e.machine import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_without_an_agent_qemu_is_resized_and_nothing_is_said_of_the_guest(machine: Machine) -> None:
    machine.vm.shell("systemctl stop vcpud", timeout=60)
    before = machine.state()
    assert machine.vcpuctl("--timeout", "2", "plug").status == 5
    assert machine.state() == before
    plugged = machine.vcpuctl("plug", "--without-agent", "--slot", "3")
    assert (plugged.status, plugged.outcome) == (0, "done"), plugged.stdout
    assert plugged.slots[3]["reason"]["code"] == "not-verified"
    assert set(machine.filled()) == {0, 3}
    assert machine.slots_in_guest()[3]["online"] is False
    machine.vm.shell(f"echo 1 > {machine.switch(3)}; echo 0 > {machine.switch(3)}", 30)
    gone = machine.vcpuctl("unplug", "--without-agent", "--slot", "3")
    assert (gone.status, gone.slots[3]["reason"]["code"]) == (0, "not-verified"), gone.stdout
    assert machine.state() == before
