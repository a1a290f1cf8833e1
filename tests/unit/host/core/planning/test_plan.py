# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.sim.effort import growth
from kit.sim.plans import codes, planned, steps
from kit.sim.views import INFO, guest, host, identities, slot, vm
from vcpu_host import documents
from vcpu_host.core.guest import GuestCpu
from vcpu_host.core.model import SlotState, freeze_props
from vcpu_host.core.planning.plan import Operation, Request, StepKind
from vcpu_host.core.planning.planner import needs_guest, plan
from vcpu_host.core.planning.selectors import SelectorError
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.view import join

_MAX = Reason("no-hotplug", Origin.QEMU, "this machine cannot")


# --- plug -------------------------------------------------------------------------------------------------------------


def test_plug_takes_the_lowest_empty_slots() -> None:
    assert steps(planned(vm(6, {0, 2}), "plug", 2)) == [("plug", 1), ("plug", 3)]


def test_plug_finishes_what_an_earlier_run_left_before_it_fills_more() -> None:
    view = vm(6, {0}, {3})
    assert steps(planned(view, "plug", 1)) == [("online", 3)]
    assert steps(planned(view, "plug", 2)) == [("online", 3), ("plug", 1)]


def test_plug_does_not_take_a_cpu_that_somebody_else_keeps_offline() -> None:
    view = host(3, slots=(slot(0, boot=True), slot(1, boot=True), slot(2, filled=False)))
    shown = join(view, guest(view, {0}, {1}))
    assert steps(planned(shown, "plug", 1)) == [("plug", 2)]


def test_plug_of_more_than_there_is_room_for_is_refused_with_what_there_is() -> None:
    decided = planned(vm(3, {0}), "plug", 3)
    assert codes(decided) == ["not-enough"]
    assert "only 2 are left" in decided.refusals[0].reason.text
    assert "none is left" in planned(vm(1, {0}), "plug", 1).refusals[0].reason.text
    assert "only 1 is left" in planned(vm(2, {0}), "plug", 2).refusals[0].reason.text


def test_a_plugged_slot_gets_the_id_that_any_run_would_give_it_and_its_props_unchanged() -> None:
    props = {"socket-id": 0, "novel-id": 7, "flag": True}
    view = host(2, slots=(slot(0, boot=True), slot(1, filled=False, props=props)))
    (step,) = planned(join(view, guest(view, {0})), "plug", 1).steps
    assert step.device_id == "vcpu-1"
    assert dict(step.slot.props) == props
    assert step.firmware_ids == identities(view, 1)


@pytest.mark.parametrize("selector", ["1", "core-id=2"])
def test_plug_fills_the_slot_that_was_named(selector: str) -> None:
    assert steps(planned(vm(3, {0}, threads=2), "plug", None, selector)) == [("plug", 1)]


def test_plug_of_a_slot_that_is_online_already_changes_nothing() -> None:
    decided = planned(vm(3, {0, 2}), "plug", None, "vcpu-2")
    assert steps(decided) == []
    assert [view.index for view in decided.already] == [2]


def test_plug_of_a_slot_left_offline_brings_it_online() -> None:
    assert steps(planned(vm(3, {0}, {2}), "plug", None, "2")) == [("online", 2)]


def test_plug_of_a_slot_that_a_stranger_holds_is_refused() -> None:
    view = host(3, slots=(slot(0, boot=True), slot(1, device_id="theirs"), slot(2, filled=False)))
    decided = planned(join(view, guest(view, {0, 1})), "plug", None, "0", "1", "2")
    assert codes(decided) == ["slot-occupied", "slot-occupied"]
    assert [refusal.slot for refusal in decided.refusals] == [0, 1]
    assert "'theirs'" in decided.refusals[1].reason.text


# --- unplug -----------------------------------------------------------------------------------------------------------


def test_unplug_takes_the_highest_removable_slots() -> None:
    assert steps(planned(vm(6, {0, 1, 4}), "unplug", 2)) == [("unplug", 4), ("unplug", 1)]


def test_unplug_gives_up_first_what_nothing_runs_on() -> None:
    assert steps(planned(vm(6, {0, 3, 4}, {1, 2}), "unplug", 3)) == [("unplug", 2), ("unplug", 1), ("unplug", 4)]


def test_unplug_leaves_what_the_guest_cannot_let_go() -> None:
    view = host(3, {0, 1, 2})
    (two,) = identities(view, 2)
    cpu = GuestCpu(2, two, True, cannot_offline=Reason("nohz-full", Origin.GUEST, "keeps time"))
    shown = join(view, guest(view, {0, 1, 2}, cpus={two: cpu}))
    assert steps(planned(shown, "unplug", 1)) == [("unplug", 1)]
    assert codes(planned(shown, "unplug", 2)) == ["not-enough"]
    assert codes(planned(shown, "unplug", None, "2")) == ["nohz-full"]


def test_unplug_of_slot_0_is_refused_before_anything_is_tried() -> None:
    decided = planned(vm(3, {0, 1}), "unplug", None, "0", "1")
    assert codes(decided) == ["boot-cpu"]
    assert decided.refusals[0].slot == 0


def test_unplug_of_an_empty_slot_changes_nothing() -> None:
    decided = planned(vm(3, {0}), "unplug", None, "2")
    assert steps(decided) == []
    assert [view.index for view in decided.already] == [2]


def test_unplug_by_name_goes_from_the_top() -> None:
    assert steps(planned(vm(4, {0, 1, 2, 3}), "unplug", None, "1", "3")) == [("unplug", 3), ("unplug", 1)]


def test_a_boot_cpu_is_unplugged_without_an_id_of_ours() -> None:
    (step,) = planned(vm(3, {0, 1}, boot={0, 1}), "unplug", None, "1").steps
    assert step.device_id == ""
    assert step.slot.path == "/machine/unattached/device[4]"


# --- scale ------------------------------------------------------------------------------------------------------------


def test_scale_to_what_there_is_changes_nothing() -> None:
    decided = planned(vm(4, {0, 1}), "scale", 2)
    assert steps(decided) == []
    assert [view.index for view in decided.already] == [0, 1]


def test_scale_up_and_down_go_like_plug_and_unplug() -> None:
    assert steps(planned(vm(6, {0, 2}), "scale", 4)) == [("plug", 1), ("plug", 3)]
    assert steps(planned(vm(6, {0, 1, 2}), "scale", 1)) == [("unplug", 2), ("unplug", 1)]


def test_scale_mends_leftovers_on_the_way() -> None:
    view = vm(6, {0, 1}, {3})
    assert steps(planned(view, "scale", 3)) == [("online", 3)]
    assert steps(planned(view, "scale", 4)) == [("online", 3), ("plug", 2)]
    assert steps(planned(view, "scale", 2)) == [("unplug", 3)]
    assert steps(planned(vm(6, {0}, {2, 3}), "scale", 2)) == [("online", 2), ("unplug", 3)]


def test_scale_beyond_maxcpus_is_refused() -> None:
    assert codes(planned(vm(4, {0}), "scale", 5)) == ["over-max"]
    assert steps(planned(vm(4, {0}), "scale", 4)) == [("plug", 1), ("plug", 2), ("plug", 3)]


def test_scale_below_what_must_stay_is_refused_with_who_must_stay_and_why() -> None:
    view = host(3, {0, 1, 2})
    (one,) = identities(view, 1)
    cpu = GuestCpu(1, one, True, cannot_offline=Reason("housekeeping", Origin.GUEST, "the last housekeeping CPU"))
    decided = planned(join(view, guest(view, {0, 1, 2}, cpus={one: cpu})), "scale", 1)
    assert codes(decided) == ["under-min"]
    assert "below 2 vCPUs" in decided.refusals[0].reason.text
    assert "slot 1: the last housekeeping CPU" in decided.refusals[0].reason.text


@given(st.integers(1, 8), st.integers(1, 12), st.data())
def test_scale_ends_at_its_goal_or_refuses(threads: int, goal: int, data: st.DataObject) -> None:
    """Whatever there is at first: the steps add up to the goal, all that stays is online, no slot is named twice."""
    total = data.draw(st.integers(1, 8))
    plugged = {0} | data.draw(st.sets(st.integers(0, total - 1)))
    online = {0} | data.draw(st.sets(st.sampled_from(sorted(plugged))))
    view = vm(total, online, plugged - online, threads=2 if threads > 4 else 1)
    unit = view.host.slots[0].vcpus
    decided = planned(view, "scale", goal)
    if decided.refusals:
        assert goal > total * unit or goal % unit
        return
    after = set(plugged)
    touched = [step.slot.index for step in decided.steps]
    assert len(touched) == len(set(touched))
    for step in decided.steps:
        if step.kind is StepKind.PLUG:
            after.add(step.slot.index)
        elif step.kind is StepKind.UNPLUG:
            after.remove(step.slot.index)
        else:
            assert view.slots[step.slot.index].state is SlotState.OFFLINE
    assert len(after) * unit == goal
    lit = online | {step.slot.index for step in decided.steps if step.kind is not StepKind.UNPLUG}
    assert after <= lit


# --- the guest's side alone -------------------------------------------------------------------------------------------


def test_online_and_offline_touch_the_guest_alone() -> None:
    view = vm(4, {0, 1}, {2})
    assert steps(planned(view, "online", None, "2")) == [("online", 2)]
    assert steps(planned(view, "offline", None, "1")) == [("offline", 1)]


def test_online_and_offline_of_what_is_so_already_change_nothing() -> None:
    view = vm(4, {0, 1}, {2})
    assert steps(planned(view, "online", None, "1")) == []
    assert steps(planned(view, "offline", None, "2")) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_a_cpu_that_the_guest_does_not_show_is_not_called_offline(threads: int) -> None:
    view = host(4, {0, 1}, threads=threads)
    arriving = guest(view, {0}, {1})
    for shown in range(threads):
        seen = arriving._replace(cpus=arriving.cpus[: threads + shown])
        decided = planned(join(view, seen), "offline", None, "1")
        assert codes(decided) == ["guest-unaware"]
        assert decided.already == ()
    assert steps(planned(join(view, arriving), "offline", None, "1")) == []


@pytest.mark.parametrize("operation", ["online", "offline"])
def test_an_empty_slot_is_neither_brought_online_nor_taken_offline(operation: str) -> None:
    decided = planned(vm(4, {0}), operation, None, "1")
    assert codes(decided) == ["slot-empty"]


def test_offline_of_a_cpu_that_cannot_go_is_refused_in_the_guests_words() -> None:
    view = host(1)
    (zero,) = identities(view, 0)
    stuck = GuestCpu(0, zero, True, cannot_offline=Reason("boot-cpu", Origin.GUEST, "cpu0 stays"))
    decided = planned(join(view, guest(view, {0}, cpus={zero: stuck})), "offline", None, "0")
    assert codes(decided) == ["boot-cpu"]
    assert decided.refusals[0].reason.who is Origin.GUEST


@pytest.mark.parametrize("operation", ["online", "offline"])
def test_the_guests_side_needs_slots_and_takes_no_count(operation: str) -> None:
    with pytest.raises(SelectorError):
        planned(vm(2, {0}), operation)
    with pytest.raises(ValueError, match="takes no number of vCPUs"):
        planned(vm(2, {0}), operation, 1)


# --- granularity ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "count"), [("plug", 1), ("plug", 3), ("unplug", 1), ("unplug", 3), ("scale", 3), ("scale", 5)]
)
def test_a_count_that_two_thread_slots_cannot_make_is_refused(operation: str, count: int) -> None:
    decided = planned(vm(5, {0, 1, 2}, threads=2), operation, count)
    assert codes(decided) == ["granularity"]
    assert "2 vCPUs at a time" in decided.refusals[0].reason.text
    assert decided.refusals[0].reason.hint == "ask for a multiple of 2"


def test_counts_are_vcpus_not_slots() -> None:
    view = vm(4, {0}, threads=2)
    assert steps(planned(view, "plug", 4)) == [("plug", 1), ("plug", 2)]
    assert planned(view, "plug", 4).vcpus == 4
    assert steps(planned(view, "scale", 8)) == [("plug", 1), ("plug", 2), ("plug", 3)]


# --- odd requests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, -1])
def test_a_count_below_one_is_a_callers_mistake(count: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        planned(vm(2, {0}), "plug", count)


def test_a_huge_count_is_refused_at_once() -> None:
    for operation in ("plug", "unplug", "scale"):
        assert planned(vm(4, {0}), operation, 10**9).refusals


def test_sockets_of_several_levels_go_the_same_way() -> None:
    slots = tuple(
        slot(
            i,
            filled=i == 0,
            boot=i == 0,
            props={"node-id": i // 4, "socket-id": i // 4, "die-id": i // 2 % 2, "core-id": i % 2},
        )
        for i in range(8)
    )
    view = host(8, slots=slots)
    shown = join(view, guest(view, {0}))
    assert steps(planned(shown, "plug", None, "socket-id=1,die-id=1")) == [("plug", 6), ("plug", 7)]


# --- as a document ----------------------------------------------------------------------------------------------------


def test_a_plan_is_json() -> None:
    decided = planned(vm(4, {0, 3}, {2}, threads=2), "scale", 8)
    document = json.loads(json.dumps(documents.of_plan(decided)))
    assert document["operation"] == "scale"
    assert document["requested"] == {"count": 8, "slots": []}
    assert [(s["step"], s["slot"], s["vcpus"]) for s in document["steps"]] == [("online", 2, 2), ("plug", 1, 2)]
    assert document["already"] == [0, 3]
    assert document["steps"][1]["firmware_ids"] == ["drc:1.0", "drc:1.1"]
    assert all(s["why"] and s["on_failure"] for s in document["steps"])


def test_a_refusal_is_json_with_all_of_its_reason() -> None:
    document = json.loads(json.dumps(documents.of_plan(planned(vm(2, {0, 1}), "unplug", None, "0"))))
    assert document["steps"] == []
    assert document["refusals"][0]["slot"] == 0
    assert set(document["refusals"][0]["reason"]) == {"code", "who", "text", "hint", "errno"}


def test_a_plan_for_eight_times_the_slots_takes_about_eight_times_as_long() -> None:
    def prepare(total: int) -> Callable[[], object]:
        view = vm(total, set(range(0, total, 3)))
        return lambda: planned(view, "scale", total - total // 40)

    assert growth(prepare, 512, 4096) < 24, "what grows with the square would be 64"


@pytest.mark.parametrize(
    ("operation", "count", "selectors", "filled", "boot", "needed"),
    [
        ("plug", None, ("2", "1"), (0,), (0,), False),
        ("plug", None, ("2", "1"), (0, 2), (0,), True),
        ("plug", 2, (), (0, 1), (0, 1), False),
        ("plug", 2, (), (0, 1), (0,), True),
        ("scale", 2, (), (0,), (0,), True),
        ("unplug", None, ("1",), (0, 1), (0,), True),
    ],
)
def test_the_guest_is_needed_unless_only_empty_slots_are_plugged(
    operation: str,
    count: int | None,
    selectors: tuple[str, ...],
    filled: tuple[int, ...],
    boot: tuple[int, ...],
    needed: bool,
) -> None:
    view = host(4, filled, boot=boot)
    request = Request(Operation(operation), count, selectors)
    assert needs_guest(view, request) is needed
    unseen = plan(join(view, None, agent=INFO), request)
    assert bool(unseen.refusals) is needed
    nobody = plan(join(view, None, agent_trouble=Reason("agent-absent", Origin.AGENT, "nobody")), request)
    assert [refusal.reason.code for refusal in nobody.refusals] == ["agent-absent"]


def test_what_is_planned_without_the_guest_is_what_is_planned_with_it() -> None:
    view = host(4)
    request = Request(Operation.PLUG, 2)
    assert plan(join(view, None, agent=INFO), request) == plan(join(view, guest(view, {0}), agent=INFO), request)


@pytest.mark.parametrize(("operation", "count"), [("unplug", 1), ("scale", 1), ("scale", 2)])
def test_less_where_nothing_can_be_unplugged_is_refused_as_the_machine_says(operation: str, count: int) -> None:
    slots = tuple(replace(slot(i), props=freeze_props({"core-id": i})) for i in range(3))
    view = host(3, slots=slots)._replace(arch="s390x", machine="s390-ccw-virtio-10.0")
    decided = planned(join(view, guest(view, {0, 1, 2})), operation, count)
    assert codes(decided) == ["no-unplug"]
    assert "vcpuctl offline" in decided.refusals[0].reason.hint


def test_less_on_a_type_that_unplugs_nothing_offers_what_can_be_done_with_the_cpu_that_would_go() -> None:
    view = host(3, slots=tuple(slot(i, boot=not i) for i in range(3)))._replace(machine="pc-i440fx-2.6")
    decided = planned(join(view, guest(view, {0, 1, 2})), "scale", 2)
    assert codes(decided) == ["no-unplug"]
    assert "vcpuctl offline 2" in decided.refusals[0].reason.hint  # and not what is said of the boot CPU


@pytest.mark.parametrize(("atomic", "words"), [(False, "stays"), (True, "goes back, too")])
def test_a_plan_of_many_steps_says_what_a_failure_leaves_of_the_others(atomic: bool, words: str) -> None:
    decided = plan(vm(4, {0}), Request(Operation.PLUG, 2, atomic=atomic))
    said = {decided.on_failure(each) for each in decided.steps}
    assert said == {f"the slot is unplugged again; what else was done {words}"}
    alone = plan(vm(4, {0}), Request(Operation.PLUG, 1, atomic=atomic))
    assert alone.on_failure(*alone.steps) == "the slot is unplugged again"
