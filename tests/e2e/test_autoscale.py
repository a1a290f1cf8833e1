# SPDX-License-Identifier: Apache-2.0
"""vCPUs that follow the load of a real guest, while things go wrong around them.

Every test ends with the lab's own check of QEMU's and the guest's records against promise 2 (conftest).
"""

from __future__ import annotations

import pytest
from kit.e2e.autoscaling import Scaling, busy
from kit.e2e.machine import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


def test_a_load_gets_its_vcpus_and_gives_them_back(machine: Machine) -> None:
    with Scaling(machine.vm) as scaling:
        scaling.says("load-fits", "at-minimum", "nobody-waits")
        busy(machine.vm, 4)
        scaling.has(4)
        busy(machine.vm, 0)
        scaling.has(1)
        found = scaling.says("load-fits", "at-minimum", "in-pause")
        assert found["guest"]["pressure"]
        assert found["guest"]["run_queues"]
        moves = [entry for entry in found["history"] if entry["acted"]]
        assert {entry["outcome"] for entry in moves} == {"done"}
        up = [entry for entry in moves if entry["direction"] == "up"]
        assert (up[0]["online"], up[-1]["goal"]) == (1, 4)


def test_the_loop_holds_with_its_reason_and_goes_on_whatever_dies_or_stops(machine: Machine) -> None:
    vm = machine.vm
    with Scaling(vm) as scaling:
        scaling.says("load-fits", "at-minimum", "nobody-waits")
        vm.shell("systemctl stop vcpud", 120.0)
        scaling.says("agent-absent", "agent-lost", "no-agent", "no-answer", "peer-gone")
        busy(vm, 3)
        vm.shell("systemctl start vcpud", 240.0)
        scaling.has(3, 4)  # three compute, and the agent's own start may be on the fourth
        vm.qmp.execute("stop")
        scaling.says("load-stale", "vm-not-running", "agent-slow", "agent-lost", "no-answer", "no-load")
        vm.qmp.execute("cont")
        scaling.says("nobody-waits", "load-fits", "in-pause", "window-fills")
        scaling.dies()
        busy(vm, 4)
        scaling.has(4)
        ended = machine.vcpuctl("scale", "2")
        assert ended.outcome == "done", ended.stdout
        assert scaling.says("operator-holds")["decision"]["goal"] == 2
        scaling.asked("on")
        scaling.has(4)


@pytest.mark.slow
def test_a_guest_that_restarts_is_followed_again(machine: Machine) -> None:
    vm = machine.vm
    with Scaling(vm) as scaling:
        scaling.says("load-fits", "at-minimum", "nobody-waits")
        vm.qmp.execute("system_reset")
        vm.wait_shell(600.0)
        scaling.says("load-fits", "at-minimum", "nobody-waits", "window-fills", "waits-not-busy", "in-pause")
        busy(vm, 2)
        scaling.has(
            2, 3
        )  # two compute; what the boot left to do may have asked for a third, which two keep two thirds busy
