# SPDX-License-Identifier: Apache-2.0
"""The guest restarts in the middle of an operation: what it said before is void, and the goal still stands."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from kit.e2e.machine import Machine
from kit.e2e.operation import Operation, run, when
from kit.e2e.races import outlived
from kit.lab import Vm

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(600)]

#: Seconds for an operation with a whole boot of an emulated guest in its middle.
REBOOTED = 200.0


CPUS = "/sys/devices/system/cpu"
#: vCPUs to go up to, and down from: so many take seconds, while the guest's kernel, which finishes the one that it is
#: at before it restarts, needs about one.
UP, DOWN = 8, 16


def reset(vm: Vm) -> None:
    """The machine's reset button."""
    vm.qmp.execute("system_reset")


def reboot(vm: Vm) -> None:
    """The guest's own: its kernel stops the other CPUs before it restarts (kernel_restart, migrate_to_reboot_cpu)."""
    # The answer may be lost with the machine.
    vm.shell("(busybox usleep 1000; reboot -ff) >/dev/null 2>&1 </dev/null &")


def has_restarted(machine: Machine) -> bool:
    """Whether the guest has restarted by now: asked as soon as an operation has ended, it was in its middle."""
    return any(event.name == "RESET" for event in machine.vm.qmp.events())


@pytest.mark.slow
@pytest.mark.parametrize("restart", [reboot, reset])
def test_a_restart_in_the_middle_of_a_plug_ends_with_the_cpus_online(
    machines: Callable[..., Machine], restart: Callable[[Vm], None]
) -> None:
    outlived(machines, partial(restart_in_a_plug, restart=restart))


def restart_in_a_plug(machine: Machine, restart: Callable[[Vm], None]) -> None:
    """The test, on one VM."""
    machine.vm.shell("sync", timeout=60)  # a reset loses what is not on the disk
    with Operation(machine, "--timeout", str(REBOOTED), "scale", str(UP)) as operation:
        operation.booting(1)
        restart(machine.vm)
        ended = operation.ends(within=REBOOTED + 10)
    assert has_restarted(machine)
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
    assert set(machine.filled()) == set(range(UP))
    machine.vm.wait_shell(60)
    assert machine.online() == set(range(UP))
    assert run(machine, "scale", str(UP), within=30).status == 0


@pytest.mark.slow
def test_a_restart_in_the_middle_of_an_unplug_asks_the_new_guest_first(machines: Callable[..., Machine]) -> None:
    outlived(machines, restart_in_an_unplug)


def restart_in_an_unplug(machine: Machine) -> None:
    """The test, on one VM."""
    assert run(machine, "scale", str(DOWN), within=60).status == 0
    machine.vm.shell("sync", timeout=60)
    when(machine, f"read -r online <{CPUS}/online && [ $online = 0-{DOWN - 2} ]", "reboot -ff")
    with Operation(machine, "--timeout", str(REBOOTED), "scale", "1") as operation:
        ended = operation.ends(within=REBOOTED + 10)
    assert has_restarted(machine)
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
    assert set(machine.filled()) == {0}
    machine.vm.wait_shell(60)
    assert machine.online() == {0}
    assert run(machine, "scale", "1", within=30).status == 0
