# SPDX-License-Identifier: Apache-2.0
"""pseries under KVM since QEMU 9.1: vCPUs are numbered in the order of plugging, and so are the guest's CPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from kit.sim.step import Step
from kit.sim.views import INFO, host, slot
from vcpu_host.core.diagnosis import diagnose
from vcpu_host.core.finding import Level
from vcpu_host.core.guest import CpuResult, CpuStatus, GuestCpu, GuestView
from vcpu_host.core.model import HostThread, HostView, Slot
from vcpu_host.core.operation import events as ev
from vcpu_host.core.planning.plan import Operation, Plan, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.platforms.pseries import PLATFORM
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.core.view import VmView, join

_AGENT = INFO._replace(platform="pseries")
_REFUSED = Reason("qemu-error", Origin.QEMU, "kvmppc_cpu_realize: vcpu hotplug failed with -12")


def _machine(
    numbers: Mapping[int, int], *, total: int = 4, threads: int = 1, accel: str = "kvm", version: str = "11.1.3"
) -> HostView:
    """Cores by the number of their first vCPU; slot 0 has number 0 and was there at the start."""
    slots = []
    for index in range(total):
        number = {0: 0, **numbers}.get(index)
        each = slot(index, threads=threads, filled=number is not None, boot=index == 0, type_="host-spapr-cpu-core")
        each = replace(each, props={"core-id": index * threads})
        if number is not None:
            own = [thread._replace(cpu_index=number + place) for place, thread in enumerate(each.threads)]
            each = replace(each, threads=tuple(own))
        slots.append(each)
    major, minor, micro = map(int, version.split("."))
    view = host(total, slots=tuple(slots), accel=accel, version=(major, minor, micro))
    return view._replace(arch="ppc64", machine="pseries-11.1", topology={"cpus": threads, "threads": threads})


def _seen(view: HostView, servers: Sequence[int], *, off: Sequence[int] = ()) -> VmView:
    """The map, where the guest shows these interrupt servers, all online but those in ``off``."""
    cpus = tuple(GuestCpu(place, f"papr:{server}", server not in off) for place, server in enumerate(servers))
    return join(view, GuestView(1, "b", "i", cpus), agent=_AGENT)


def _states(view: VmView) -> list[str]:
    return [str(each.state) for each in view.slots]


def _plan(view: VmView, operation: str, *slots: str, count: int | None = None, atomic: bool = False) -> Plan:
    return plan(view, Request(Operation(operation), count, slots, atomic=atomic))


# --- which guest CPU is which slot's ------------------------------------------------------------------------------


def test_cores_plugged_3_1_2_are_told_apart_by_the_numbers_that_they_got() -> None:
    view = _seen(_machine({3: 1, 1: 2, 2: 3}), [0, 1, 2, 3], off=[1])
    assert _states(view) == ["online", "online", "online", "offline"]
    assert [each.firmware_ids for each in view.slots] == [("papr:0",), ("papr:2",), ("papr:3",), ("papr:1",)]
    assert view.unexplained == ()


def test_core_3_alone_is_the_guests_server_1() -> None:
    view = _seen(_machine({3: 1}), [0, 1])
    assert _states(view) == ["online", "empty", "empty", "online"]
    assert view.online_vcpus == 2


def test_the_threads_of_a_core_have_numbers_in_a_row() -> None:
    view = _seen(_machine({2: 2, 1: 4}, threads=2), [0, 1, 2, 3, 4, 5], off=[3])
    assert _states(view) == ["online", "online", "partial", "empty"]


@pytest.mark.parametrize(
    ("accel", "version", "name"),
    [("kvm", "9.1.0", "papr:1"), ("kvm", "10.0.13", "papr:1"), ("kvm", "9.0.4", "papr:3"), ("tcg", "11.1.3", "papr:3")],
)
def test_only_kvm_numbers_by_order_and_only_since_9_1(accel: str, version: str, name: str) -> None:
    view = _machine({3: 3 if name == "papr:3" else 1}, accel=accel, version=version)
    assert PLATFORM.firmware_ids(view, view.slots[3]) == (name,)


def test_a_core_that_shows_another_number_than_its_place_tells_whatever_the_version_is() -> None:
    view = _machine({3: 1}, version="9.0.4")
    assert PLATFORM.firmware_ids(view, view.slots[3]) == ("papr:1",)


def test_a_server_that_no_core_has_just_now_is_no_cpu_that_nobody_can_explain() -> None:
    view = _seen(_machine({3: 1}), [0, 1, 2])
    assert view.unexplained == ()
    assert [cpu.firmware_id for cpu in view.strangers] == ["papr:2"]
    assert _seen(_machine({3: 1}), [0, 1, 9]).unexplained != ()


# --- plugging ---------------------------------------------------------------------------------------------------------


def test_plugs_are_expected_under_the_numbers_that_follow_the_highest_one() -> None:
    decided = _plan(_seen(_machine({3: 1}, total=8), [0, 1]), "plug", count=3)
    assert [(step.slot.index, step.firmware_ids) for step in decided.steps] == [
        (1, ("papr:2",)),
        (2, ("papr:3",)),
        (4, ("papr:4",)),
    ]


def _told(step: Step, request: int, server: int) -> ev.CpuSettled:
    cpu = GuestCpu(server, f"papr:{server}", online=True)
    return ev.CpuSettled("s1", request, CpuResult(cpu.firmware_id, CpuStatus.DONE, None, cpu, 0.1))


def _looked(step: Step, numbers: Mapping[int, int]) -> ev.HostLooked:
    return ev.HostLooked(_machine(numbers), step.now)


def test_a_core_is_up_under_the_number_that_was_expected() -> None:
    step = Step(_seen(_machine({}), [0]), "plug", "3")
    assert [action.firmware_ids for action in step.asked if isinstance(action, ev.DoSetOnline)] == [("papr:1",)]
    step.tell(ev.PlugReturned(3, None), _told(step, 1, 1))
    assert not step.over()
    step.tell(_looked(step, {3: 1}))
    assert (step.slot.slot, step.slot.outcome, step.slot.guest_cpus) == (3, Outcome.DONE, (1,))


def test_a_core_that_got_another_number_is_asked_for_by_that_one_and_not_believed_before() -> None:
    """Another client has plugged a core in between, and the guest brings both online by itself."""
    step = Step(_seen(_machine({}), [0]), "plug", "3")
    step.tell(ev.PlugReturned(3, None), _told(step, 1, 1))
    step.tell(_looked(step, {2: 1, 3: 2}))
    assert not step.over(), "papr:1 is another core's"
    asked = [action for action in step.asked if isinstance(action, ev.DoSetOnline)]
    assert [action.firmware_ids for action in asked] == [("papr:2",)]
    step.tell(_told(step, asked[0].request, 2))
    step.tell(_looked(step, {2: 1, 3: 2}))
    assert (step.slot.outcome, step.slot.guest_cpus) == (Outcome.DONE, (2,))


def test_when_the_first_of_two_plugs_fails_the_second_takes_its_number() -> None:
    step = Step(_seen(_machine({}), [0]), "plug", count=2)
    asked = [action for action in step.asked if isinstance(action, ev.DoSetOnline)]
    assert [action.firmware_ids for action in asked] == [("papr:1", "papr:2")]
    step.tell(ev.PlugReturned(1, _REFUSED))
    assert step.of(ev.DoPlug) == [ev.DoPlug(2)]
    step.tell(ev.PlugReturned(2, None))
    step.tell(_looked(step, {2: 1}))
    (again,) = (action for action in step.asked if isinstance(action, ev.DoSetOnline))
    assert again.firmware_ids == ("papr:1",)
    step.tell(ev.RequestEnded("s1", asked[0].request, None))
    step.tell(_told(step, again.request, 1))
    step.tell(_looked(step, {2: 1}))
    assert step.over()
    assert [each.outcome for each in step.machine.result(step.now).slots] == [Outcome.REFUSED, Outcome.DONE]


# --- numbers that run out ---------------------------------------------------------------------------------------------


def test_a_plug_whose_number_no_core_has_is_refused_since_qemu_ends_of_it() -> None:
    """Slots 1 to 3 came in order, and slot 1 has gone: QEMU would give its next core number 4."""
    view = _seen(_machine({2: 2, 3: 3}), [0, 2, 3])
    decided = _plan(view, "plug", "1")
    assert not decided.steps
    (refusal,) = decided.refusals
    assert (refusal.reason.code, refusal.reason.who) == ("plug-numbers", Origin.VCPUCTL)
    assert "none at most" in refusal.reason.text
    assert "a number above 3 ends QEMU" in refusal.reason.text
    assert "came last" in refusal.reason.hint


def test_of_two_plugs_the_one_that_still_has_a_number_is_had_by_asking_for_one() -> None:
    view = _seen(_machine({3: 1, 2: 2}, total=5), [0, 1, 2])
    assert len(_plan(view, "plug", count=2).steps) == 2
    late = _seen(_machine({3: 3}, total=5), [0, 3])
    assert _plan(late, "plug", count=2).refusals
    assert len(_plan(late, "plug", count=1).steps) == 1


def test_numbers_of_vcpus_on_their_way_out_are_in_use() -> None:
    view = _machine({2: 2})
    going = replace(view.slots[1], leaving=(HostThread(3, 77, "/machine/peripheral/c1/thread[0]"),))
    slots: tuple[Slot, ...] = (view.slots[0], going, *view.slots[2:])
    assert PLATFORM.plug_limit(view._replace(slots=slots)) is not None
    limit = PLATFORM.plug_limit(view._replace(slots=slots))
    assert limit is not None
    assert limit[0] == 0


def test_under_tcg_a_hole_can_be_filled_again() -> None:
    view = _machine({2: 2, 3: 3}, accel="tcg")._replace(topology={})
    assert len(_plan(_seen(view, [0, 2, 3]), "plug", "1").steps) == 1


def test_removals_that_could_not_be_taken_back_are_not_all_or_nothing() -> None:
    view = _seen(_machine({1: 1, 2: 2, 3: 3}), [0, 1, 2, 3])
    (refusal,) = _plan(view, "unplug", count=2, atomic=True).refusals
    assert refusal.reason.code == "plug-numbers"
    assert "taken back" in refusal.reason.text
    assert len(_plan(view, "unplug", count=2).steps) == 2
    assert len(_plan(view, "unplug", count=1, atomic=True).steps) == 1


@pytest.mark.parametrize(("numbers", "level"), [({1: 1, 2: 2}, Level.NOTE), ({2: 2, 3: 3}, Level.WARNING)])
def test_doctor_says_how_many_numbers_are_left_and_warns_when_slots_outnumber_them(
    numbers: Mapping[int, int], level: Level
) -> None:
    view = _seen(_machine(numbers), [0, *numbers.values()])
    (finding,) = (each for each in diagnose(view) if each.code == "plug-numbers")
    assert finding.level is level
    assert ("no more" if level is Level.WARNING else "1 more") in finding.text
