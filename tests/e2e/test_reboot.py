# SPDX-License-Identifier: Apache-2.0
"""The guest restarts in the middle of an operation: what it said before is void, and the goal still stands."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from lab import Vm

from e2e.conftest import Machine
from e2e.operation import Operation, run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

#: Seconds for an operation with a whole boot of an emulated guest in its middle.
REBOOTED = 200.0


def reset(vm: Vm) -> None:
    """The machine's reset button."""
    vm.qmp.execute("system_reset")


def reboot(vm: Vm) -> None:
    """The guest's own: its kernel stops the other CPUs before it restarts (kernel_restart, migrate_to_reboot_cpu)."""
    # The answer may be lost with the machine.
    vm.shell("(busybox usleep 1000; reboot -ff) >/dev/null 2>&1 </dev/null &")


@pytest.mark.parametrize("restart", [reboot, pytest.param(reset, marks=pytest.mark.slow)])
def test_a_restart_in_the_middle_of_a_plug_ends_with_the_cpus_online(
    machine: Machine, restart: Callable[[Vm], None]
) -> None:
    machine.vm.shell("sync", timeout=60)  # a reset loses what is not on the disk
    with Operation(machine, "--timeout", str(REBOOTED), "scale", "4") as operation:
        operation.booting(1)
        restart(machine.vm)
        ended = operation.ends(within=REBOOTED + 10)
    assert (ended.status, ended.outcome()) == (0, "done"), ended.stdout + ended.stderr
    assert set(machine.filled()) == {0, 1, 2, 3}
    machine.vm.wait_shell(60)
    assert machine.online() == {0, 1, 2, 3}
    assert run(machine, "scale", "4", within=30).status == 0


def test_a_restart_in_the_middle_of_an_unplug_asks_the_new_guest_first(machine: Machine) -> None:
    assert run(machine, "scale", "4", within=60).status == 0
    machine.vm.shell("sync", timeout=60)
    with Operation(machine, "--timeout", str(REBOOTED), "scale", "1") as operation:
        operation.offline(3)
        reboot(machine.vm)
        ended = operation.ends(within=REBOOTED + 10)
    assert (ended.status, ended.outcome()) == (0, "done"), ended.stdout + ended.stderr
    assert set(machine.filled()) == {0}
    machine.vm.wait_shell(60)
    assert machine.online() == {0}
    assert run(machine, "scale", "1", within=30).status == 0
