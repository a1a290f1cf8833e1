# SPDX-License-Identifier: Apache-2.0
"""1 -> 16 -> 1 again and again; every round is counted over the guest's console."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kit.e2e.machine import Machine

#: Under TCG a QEMU process can plug only so many vCPUs in its life: 63 here, which are four rounds. All levels that
#: -smp has for a PC are in use: whatever props a slot has must go back to QEMU, known to us or not.
WIDE = "1,maxcpus=64,sockets=2,dies=2,modules=2,cores=4,threads=2"
LEVELS = {"socket-id", "die-id", "module-id", "core-id", "thread-id"}
LAST = "socket-id=1,die-id=1,module-id=1,core-id=3,thread-id=1"
ALL = 16


def one_round(machine: Machine, before: object) -> None:
    """Up and down, each verified from inside; the end equals ``before``."""
    up = machine.vcpuctl("scale", str(ALL))
    assert (up.status, up.outcome) == (0, "done"), up.stdout + up.stderr
    assert machine.online() == set(range(ALL))
    assert sorted(machine.filled()) == list(range(ALL))
    listed = {slot["slot"]: slot for slot in up.json["slots"]}
    in_guest = machine.slots_in_guest()
    assert {slot: [in_guest[slot]["cpu"]] for slot in listed} == {i: part["guest_cpus"] for i, part in listed.items()}
    down = machine.vcpuctl("scale", "1")
    assert (down.status, down.outcome) == (0, "done"), down.stdout + down.stderr
    assert machine.online() == {0}
    assert machine.state() == before  # no leftover id, slot or guest CPU


def rounds(machines: Callable[..., Machine], count: int) -> None:
    done = 0
    while done < count:
        machine = machines(smp=WIDE)
        before = machine.state()
        assert set(machine.vm.qmp.execute("query-hotpluggable-cpus")[0]["props"]) == LEVELS
        while done < count and machine.vm.plugs_left >= ALL - 1:
            one_round(machine, before)
            done += 1
        assert not [line for _, line in machine.vm.kernel_log if "BUG:" in line or "Call Trace" in line]


@pytest.mark.e2e
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_round_from_one_to_sixteen_and_back_leaves_nothing_behind(machines: Callable[..., Machine]) -> None:
    rounds(machines, 1)


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_a_slot_of_five_levels_is_found_by_all_of_them(machines: Callable[..., Machine]) -> None:
    machine = machines(smp=WIDE)
    before = machine.state()
    assert machine.vcpuctl("plug", "--slot", LAST).status == 0
    assert machine.online() == {0, 63}
    assert machine.vcpuctl.map()[63]["threads"][0]["guest_cpu"] == machine.slots_in_guest()[63]["cpu"]
    assert machine.vcpuctl("unplug", "--slot", "socket-id=1,die-id=1,module-id=1").status == 0
    assert machine.state() == before


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_rounds_from_one_to_sixteen_and_back_leave_nothing_behind(machines: Callable[..., Machine]) -> None:
    rounds(machines, 20)
