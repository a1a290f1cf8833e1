# SPDX-License-Identifier: Apache-2.0
"""Plans that know of the guest's programs: which slots they spare, what they tell, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from kit.sim.plans import steps
from kit.sim.views import INFO, guest, host
from vcpu_host.core import codes
from vcpu_host.core.finding import Level
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.planning.placement import Placement
from vcpu_host.core.planning.plan import Operation, Plan, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.planning.programs import candidates, unasked
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.view import VmView, join, with_pending
from vcpu_host.core.workload import cpus
from vcpu_host.core.workload.model import Cpuset, Pinned, Programs, Threads, Who, Workload

_DB = Threads(1, (Who(812, 812, "postgres"),))


def _view(*masks: str, refuses: bool = False, **facts: Any) -> VmView:
    """Four CPUs, cpuN in slot N, with threads that are pinned to these."""
    there = host(8, {0, 1, 2, 3})
    pinned = tuple(Pinned(cpus.parse(mask), _DB) for mask in masks)
    workload = Workload(online=0b1111, pinned=pinned, **facts)
    return join(there, guest(there, {0, 1, 2, 3}), agent=INFO)._replace(programs=Programs(workload, refuses=refuses))


def _plan(view: VmView, operation: str, count: int | None = None, *slots: str, **options: Any) -> Plan:
    return plan(view, Request(Operation(operation), count, slots, **options))


def test_an_amount_takes_slots_first_whose_cpus_nobody_is_pinned_to_alone() -> None:
    decided = _plan(_view("3"), "unplug", 1)
    assert steps(decided) == [("unplug", 2)]
    assert decided.notes == ()
    assert steps(_plan(_view("3"), "scale", 3)) == [("unplug", 2)]
    assert steps(_plan(_view("3"), "scale", 3, in_guest=True)) == [("offline", 2)]


def test_of_a_mask_of_two_cpus_one_may_go() -> None:
    assert steps(_plan(_view("2-3"), "unplug", 2)) == [("unplug", 3), ("unplug", 1)]


def test_what_hurts_goes_last_and_is_told_with_who() -> None:
    decided = _plan(_view("3"), "unplug", 3)
    assert steps(decided) == [("unplug", 2), ("unplug", 1), ("unplug", 3)]
    assert "no other slot is left" in decided.steps[-1].why
    (note,) = decided.notes
    assert (note.code, note.slots) == (codes.PINNED_THREADS, (3,))


@pytest.mark.parametrize("options", [{"strict_placement": True}, {"placement": Placement.PACK}])
def test_a_placement_that_was_asked_for_spares_nobody(options: dict[str, Any]) -> None:
    decided = _plan(_view("3"), "unplug", 1, **options)
    assert steps(decided) == [("unplug", 3)]
    assert [note.code for note in decided.notes] == [codes.PINNED_THREADS]


def test_without_a_look_at_programs_a_plan_is_as_ever() -> None:
    decided = plan(_view("3")._replace(programs=None), Request(Operation.UNPLUG, 1))
    assert steps(decided) == [("unplug", 3)]
    assert decided.notes == ()


def test_what_hurts_is_refused_if_that_is_wanted_and_says_how_to_do_it_all_the_same() -> None:
    decided = _plan(_view("3", refuses=True), "unplug", None, "3")
    (refusal,) = decided.refusals
    assert (refusal.reason.code, refusal.reason.who, refusal.slot) == (codes.PINNED_THREADS, Origin.GUEST, 3)
    assert "--workload warn" in refusal.reason.hint
    assert (decided.steps, decided.recover) == ((), ())
    assert decided.notes
    assert steps(_plan(_view("3", refuses=True), "unplug", 1)) == [("unplug", 2)]


def test_what_could_not_be_looked_at_to_its_end_is_told_and_refused_on_the_way_down_alone() -> None:
    seen = _view(unseen=("threads: 5 were looked at",))
    decided = _plan(seen, "unplug", 1)
    assert [(note.code, note.level) for note in decided.notes] == [(codes.WORKLOAD_UNSEEN, Level.NOTE)]
    refusing = _view(refuses=True, unseen=("cgroups: no",))
    assert [refusal.reason.code for refusal in _plan(refusing, "unplug", 1).refusals] == [codes.WORKLOAD_UNSEEN]
    assert not _plan(refusing, "plug", 1).refusals


@pytest.mark.parametrize("refuses", [False, True])
def test_an_agent_that_cannot_look_is_told_and_never_guessed_for(*, refuses: bool) -> None:
    trouble = Reason(codes.AGENT_TOO_OLD, Origin.AGENT, "vcpud 0.1 cannot look at programs", "update")
    blind = _view()._replace(programs=Programs(None, trouble, refuses))
    decided = _plan(blind, "unplug", 1)
    assert [note.code for note in decided.notes] == [codes.WORKLOAD_UNSEEN]
    assert "vcpud 0.1" in decided.notes[0].text
    assert bool(decided.refusals) is refuses
    assert not _plan(blind, "plug", 1).refusals


def test_kernels_that_forget_masks_hurt_on_the_way_up_too() -> None:
    decided = _plan(_view(refuses=True, forgotten=_DB), "plug", 1)
    assert [refusal.reason.code for refusal in decided.refusals] == [codes.MASKS_FORGOTTEN]


def test_the_agent_is_asked_for_all_cpus_that_an_amount_may_take_and_for_named_ones_alone() -> None:
    view = _view()._replace(programs=None)
    one = candidates(view, _plan(view, "unplug", 1))
    assert set(one) == {name for slot in view.slots[1:4] for name in slot.firmware_ids}
    assert candidates(view, _plan(view, "unplug", None, "2")) == view.slots[2].firmware_ids
    assert candidates(view, _plan(view, "plug", 1)) == ()


def _begun(view: VmView) -> VmView:
    """The view while an earlier unplug of slot 3 is on record, and its CPU is online yet."""
    return with_pending(view, [Intent(IntentKind.UNPLUG, 3, "vcpu-3", 0.0)])


@pytest.mark.parametrize(("operation", "count"), [("plug", 1), ("scale", 3)])
def test_removals_that_an_earlier_operation_began_hurt_and_are_asked_about_like_its_own(
    operation: str, count: int
) -> None:
    blind = _begun(_view()._replace(programs=None))
    decided = _plan(blind, operation, count)
    assert [step.slot.index for step in decided.recover] == [3]
    assert candidates(blind, decided) == blind.slots[3].firmware_ids
    warned = _plan(_begun(_view("3")), operation, count)
    assert [(note.code, note.slots) for note in warned.notes] == [(codes.PINNED_THREADS, (3,))]
    assert [step.slot.index for step in warned.recover] == [3]
    refused = _plan(_begun(_view("3", refuses=True)), operation, count)
    assert (refused.steps, refused.recover) == ((), ())
    assert [refusal.reason.code for refusal in refused.refusals] == [codes.PINNED_THREADS]


def test_what_nobody_could_look_at_refuses_such_a_removal_too() -> None:
    trouble = Reason(codes.AGENT_TOO_OLD, Origin.AGENT, "vcpud 0.1 cannot look at programs", "update")
    blind = _begun(_view())._replace(programs=Programs(None, trouble, refuses=True))
    refused = _plan(blind, "plug", 1)
    assert refused.recover == ()
    assert [refusal.reason.code for refusal in refused.refusals] == [codes.WORKLOAD_UNSEEN]


def _fixed() -> VmView:
    """Four CPUs on a machine that plugs and unplugs none: they can be taken offline alone."""
    there = host(4, {0, 1, 2, 3}, no_hotplug=Reason(codes.NO_HOTPLUG, Origin.QEMU, "this machine plugs none"))
    view = join(there, guest(there, {0, 1, 2, 3}))
    return view._replace(agent=INFO._replace(platform=view.platform.agent_platform))


def test_the_agent_is_asked_for_all_cpus_that_may_be_taken_offline_though_none_could_be_unplugged() -> None:
    view = _fixed()
    decided = _plan(view, "scale", 3, in_guest=True)
    assert steps(decided) == [("offline", 3)]
    assert set(candidates(view, decided)) == {name for slot in view.slots for name in slot.firmware_ids}


@pytest.mark.parametrize("refuses", [False, True])
def test_a_slot_that_nobody_asked_about_is_told_as_unseen_and_refused_if_what_hurts_is(*, refuses: bool) -> None:
    view = _fixed()
    workload = Workload(online=0b1111, pinned=(Pinned(0b1000, _DB),))
    asked = frozenset(view.slots[3].firmware_ids)
    seen = view._replace(programs=Programs(workload, refuses=refuses, asked=asked))
    decided = _plan(seen, "scale", 3, in_guest=True)
    (note,) = decided.notes
    assert (note.code, "slot 2" in note.text) == (codes.WORKLOAD_UNSEEN, True)
    if refuses:
        assert [refusal.reason.code for refusal in decided.refusals] == [codes.WORKLOAD_UNSEEN]
    else:
        assert [slot.index for slot in unasked(seen, decided)] == [2]


def test_a_partition_that_lost_its_cpus_earlier_is_told_and_stands_in_no_plugs_way() -> None:
    lost = Cpuset("/rt", 1 << 4, 0b1111, "isolated invalid", True)
    shares = Cpuset("/lat", 0b1000, 0b1000, "isolated", True)
    decided = _plan(_view(refuses=True, cpusets=(lost, shares), root_effective=0b1111), "plug", 1)
    assert steps(decided) == [("plug", 4)]
    assert [(note.code, note.level) for note in decided.notes] == [
        (codes.PARTITION_INVALID, Level.NOTE),
        (codes.PARTITION_OVERLAP, Level.NOTE),
    ]
