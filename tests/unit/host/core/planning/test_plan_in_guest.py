# SPDX-License-Identifier: Apache-2.0
"""Planning ``scale --in-guest``: CPUs go on- and offline, none comes or goes."""

from __future__ import annotations

from kit.sim.plans import codes, steps
from kit.sim.views import guest, host, identities, vm
from vcpu_host.core.guest import GuestCpu, GuestView
from vcpu_host.core.planning.plan import Operation, Plan, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.view import VmView, join

_NAMES = [identities(host(3), index)[0] for index in range(3)]
_NEVER = Reason("no-hotplug", Origin.QEMU, "this machine cannot")


def _in_guest(shown: VmView, goal: int) -> Plan:
    return plan(shown, Request(Operation.SCALE, goal, in_guest=True))


def test_scale_in_the_guest_switches_the_lowest_on_and_the_highest_off_and_plugs_nothing() -> None:
    shown = vm(8, {0, 1, 4}, {2, 3})
    assert steps(_in_guest(shown, 5)) == [("online", 2), ("online", 3)]
    assert steps(_in_guest(shown, 4)) == [("online", 2)]
    assert steps(_in_guest(shown, 3)) == []
    assert steps(_in_guest(shown, 1)) == [("offline", 4), ("offline", 1)]
    assert codes(_in_guest(shown, 6)) == ["over-max"]


def test_scale_in_the_guest_works_on_a_machine_without_hotplug() -> None:
    view = host(4, {0, 1, 2, 3}, no_hotplug=_NEVER)
    shown = join(view, guest(view, {0, 1, 2, 3}))
    assert [s.state for s in shown.slots] == ["online"] * 4
    assert steps(_in_guest(shown, 2)) == [("offline", 3), ("offline", 2)]


def test_scale_in_the_guest_leaves_a_cpu_that_the_guest_cannot_let_go() -> None:
    view = host(3, {0, 1, 2})
    why = Reason("cpu0", Origin.GUEST, "the boot CPU")
    held = {name: GuestCpu(index, name, online=True, cannot_offline=why) for index, name in enumerate(_NAMES[:1])}
    shown = join(view, guest(view, {0, 1, 2}, cpus=held))
    assert steps(_in_guest(shown, 1)) == [("offline", 2), ("offline", 1)]
    both = {name: GuestCpu(index, name, online=True, cannot_offline=why) for index, name in enumerate(_NAMES)}
    assert codes(_in_guest(join(view, guest(view, {0, 1, 2}, cpus=both)), 1)) == ["not-enough"]


def test_scale_in_the_guest_counts_vcpus_where_slots_hold_several() -> None:
    shown = vm(4, {0, 1}, {2}, threads=2)
    assert steps(_in_guest(shown, 6)) == [("online", 2)]
    assert steps(_in_guest(shown, 2)) == [("offline", 1)]
    assert codes(_in_guest(shown, 3)) == ["granularity"]


def _cores(*online: tuple[bool, bool], parked: frozenset[str] = frozenset()) -> VmView:
    """Cores of two threads, all plugged, with these threads online."""
    view = host(len(online), set(range(len(online))), threads=2)
    cpus = []
    for index, threads in enumerate(online):
        for thread, is_online in enumerate(threads):
            name = identities(view, index)[thread]
            why = Reason("smt-off", Origin.GUEST, "idle") if name in parked else None
            cpus.append(GuestCpu(index * 2 + thread, name, is_online, cannot_online=why))
    return join(view, GuestView(1, "b", "i", tuple(cpus)))


def test_a_core_of_which_half_is_online_does_not_stand_in_the_way_of_a_whole_one() -> None:
    shown = _cores((True, True), (True, False), (False, False))
    assert steps(_in_guest(shown, 5)) == [("online", 2)]
    assert steps(_in_guest(shown, 4)) == [("online", 1)]
    assert steps(_in_guest(shown, 6)) == [("online", 1), ("online", 2)]
    assert steps(_in_guest(_cores((True, True), (True, True), (True, False)), 3)) == [("offline", 1)]


def test_threads_that_the_smt_mode_leaves_idle_are_no_gain() -> None:
    view = host(3, {0, 1, 2}, threads=2)
    idle = frozenset(identities(view, index)[1] for index in range(3))
    shown = _cores((True, False), (False, False), (False, False), parked=idle)
    assert steps(_in_guest(shown, 2)) == [("online", 1)]
    assert steps(_in_guest(shown, 3)) == [("online", 1), ("online", 2)]
    assert codes(_in_guest(shown, 4)) == ["not-enough"]
