# SPDX-License-Identifier: Apache-2.0
"""What an operation leaves open, and what settles it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.sim.views import INFO, guest, host, slot
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.model import HostView, Ost, Owner
from vcpu_host.core.operation import record
from vcpu_host.core.operation.events import DoLookHost, DoPlug, DoUnplug
from vcpu_host.core.operation.result import OperationResult, SlotResult
from vcpu_host.core.planning.plan import Operation, Plan, Request, StepKind
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.core.view import VmView, join, with_pending

_DONE, _BUSY = Ost(3, 0), Ost(3, 0x82)
_GOING = Intent(IntentKind.UNPLUG, 2, "vcpu-2", 100.0, (9002,))
_COMING = Intent(IntentKind.PLUG, 2, "vcpu-2", 100.0)


def seen(view: HostView, *online: int, offline: tuple[int, ...] = ()) -> VmView:
    return join(view, guest(view, online, offline), agent=INFO)


def left(intent: Intent, view: VmView) -> bool:
    """Whether it is open after that look."""
    return record.settle([intent], view) == (intent,)


def test_it_is_on_record_before_qemu_is_asked_and_a_second_request_keeps_the_first_ones_time() -> None:
    view = host(4, {0, 2})
    first = record.before((), [DoPlug(1), DoUnplug(2), DoLookHost()], view, 100.0)
    assert [(i.kind, i.slot, i.device_id, i.since, i.threads) for i in first] == [
        ("plug", 1, "vcpu-1", 100.0, ()),
        ("unplug", 2, "vcpu-2", 100.0, (9002,)),
    ]
    again = record.before(first, [DoUnplug(2), DoUnplug(1)], host(4, {0, 1, 2}), 200.0)
    assert [(i.kind, i.slot, i.since) for i in again] == [("unplug", 1, 200.0), ("unplug", 2, 100.0)]


def ended(outcome: Outcome, *, without_agent: bool = False) -> OperationResult:
    request = Request(Operation.UNPLUG, 1, without_agent=without_agent)
    return OperationResult(request, outcome, (SlotResult(2, "vcpu-2", outcome, None),), 1.0)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_of_what_was_asked_of_qemu_only_what_ended_as_unknown_stays_on_record(outcome: Outcome) -> None:
    full = host(4, {0, 2, 3})
    assert bool(record.after([_GOING], ended(outcome), {2}, full)) is (outcome is Outcome.UNKNOWN)
    assert record.after([_GOING._replace(slot=3)], ended(outcome), {2}, full), "of another slot nothing was learnt"


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_removal_that_another_operation_asked_for_is_open_until_the_slot_is_empty(outcome: Outcome) -> None:
    assert record.after([_GOING], ended(outcome), (), host(4, {0, 2})) == (_GOING,)
    assert record.after([_GOING], ended(outcome), (), host(4, {0})) == ()


def test_a_plug_that_another_operation_saw_to_its_end_is_open_no_more_unless_nobody_looked() -> None:
    full = host(4, {0, 2})
    assert record.after([_COMING], ended(Outcome.DONE), (), full) == ()
    assert record.after([_COMING], ended(Outcome.DONE, without_agent=True), (), full) == (_COMING,)


def test_a_removal_is_open_until_the_slot_is_empty_or_holds_another_cpu() -> None:
    assert left(_GOING, seen(host(4, {0, 2}), 0, offline=(2,)))
    assert left(_GOING, seen(host(4, {0, 2}), 0, 2)), (
        "a guest that restarted brings it up again, and may still eject it"
    )
    assert left(_GOING, join(host(4, {0, 2}), None))
    assert not left(_GOING, seen(host(4, {0}), 0))
    assert not left(_GOING._replace(threads=(8000,)), seen(host(4, {0, 2}), 0, 2))


def test_a_removal_stays_open_where_no_thread_of_the_slot_is_to_be_seen() -> None:
    full = host(4, {0, 2})
    threadless = full._replace(slots=tuple(replace(each, threads=()) for each in full.slots))
    assert left(_GOING, seen(threadless, 0, 2))
    assert left(_GOING._replace(threads=()), seen(full, 0, 2))


def test_a_removal_ends_with_the_guests_refusal_but_not_with_one_from_before_it() -> None:
    refused = seen(host(4, {0, 2}, ost={2: _BUSY}), 0, 2)
    assert not left(_GOING, refused)
    assert left(_GOING._replace(ost=_BUSY), refused)
    assert left(_GOING, seen(host(4, {0, 2}, ost={2: _DONE}), 0, 2))


def test_no_refusal_ends_a_removal_by_who_did_not_see_the_ones_before_it() -> None:
    alone = host(4, {0, 2})._replace(owner=Owner("libvirt 12.8.0", definition=True, record_alone=True))
    (blind,) = record.before((), [DoUnplug(2)], alone, 100.0)
    refused = host(4, {0, 2}, ost={2: _BUSY})
    assert left(blind, seen(refused, 0, 2))
    assert not left(blind, seen(host(4, {0}), 0))
    (sighted,) = record.before((), [DoUnplug(2)], host(4, {0, 2}), 100.0)
    assert not left(sighted, seen(refused, 0, 2))
    (again,) = record.before((blind,), [DoUnplug(2)], refused, 200.0)
    assert (again.ost, again.ost_seen) == (_BUSY, True), "who asks anew sees what was there before"


@pytest.mark.parametrize(
    ("written", "seen_then"),
    [
        ({"threads": [9002], "ost": None}, True),
        ({"threads": [9002], "ost": [3, 0x82]}, True),
        ({"threads": [], "ost": [3, 0x82]}, True),
        ({"threads": [], "ost": None}, False),  # by libvirt's record alone, perhaps
    ],
)
def test_a_record_of_an_earlier_version_is_read_and_does_not_claim_to_have_seen_more_than_it_did(
    written: dict[str, object], seen_then: bool
) -> None:
    entry = {**_GOING.to_json(), **written}
    del entry["ost_seen"]
    assert Intent.from_json(entry).ost_seen is seen_then


def test_a_plug_is_open_until_the_cpu_is_online_or_the_slot_empty_or_another_ones() -> None:
    assert left(_COMING, seen(host(4, {0, 2}), 0, offline=(2,)))
    assert left(_COMING, seen(host(4, {0, 2}), 0))
    assert left(_COMING, join(host(4, {0, 2}), None))
    assert not left(_COMING, seen(host(4, {0, 2}), 0, 2))
    assert not left(_COMING, seen(host(4, {0}), 0))
    theirs = host(4)._replace(slots=(slot(0, boot=True), slot(1, filled=False), slot(2, device_id="theirs")))
    assert not left(_COMING, seen(theirs, 0, offline=(2,)))


def test_one_of_a_slot_that_this_machine_does_not_have_is_dropped() -> None:
    assert not left(_GOING._replace(slot=9), seen(host(4, {0, 2}), 0))


_INTENTS = st.builds(
    Intent,
    st.sampled_from(IntentKind),
    st.integers(0, 4095),
    st.text(max_size=20),
    st.floats(0, 4e9),
    st.lists(st.integers(1, 1 << 22), max_size=4).map(tuple),
    st.none() | st.builds(Ost, st.integers(0, 0x200), st.integers(0, 255)),
    st.booleans(),
)


@given(_INTENTS)
def test_a_record_survives_being_written_and_read(intent: Intent) -> None:
    assert Intent.from_json(json.loads(json.dumps(intent.to_json()))) == intent


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "explode"},
        {"slot": "2"},
        {"slot": True},
        {"id": None},
        {"since": "now"},
        {"threads": [1.5]},
        {"ost": [3]},
        {"ost_seen": 1},
        {"threads": None},
    ],
)
def test_what_was_never_written_by_us_is_not_read(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"intent|whole|seconds|valid"):
        Intent.from_json({**_GOING.to_json(), **change})


_A, _B, _C = (Intent(IntentKind.PLUG, at, f"vcpu-{at}", 100.0) for at in (1, 2, 3))
_LATER = _A._replace(since=200.0)
_NONE: tuple[Intent, ...] = ()


@pytest.mark.parametrize(
    ("now", "loaded", "tried", "theirs", "written"),
    [
        ((_A,), _NONE, _NONE, _NONE, (_A,)),  # ours is new
        ((_A,), _NONE, _NONE, (_B,), (_A, _B)),  # and theirs, too
        (_NONE, (_A,), _NONE, (_A, _B), (_B,)),  # we have struck out what we found, and they wrote another
        (_NONE, (_A,), _NONE, (_LATER,), (_LATER,)),  # they have asked anew for what we struck out
        ((_A, _B), (_A,), _NONE, (_A, _C), (_A, _B, _C)),
        ((_A, _B), (_A,), _NONE, _NONE, (_B,)),  # they have struck out what we left alone
        ((_A, _B), (_A,), _NONE, (_LATER,), (_LATER, _B)),  # they have asked anew for what we left alone
        ((_LATER,), (_A,), _NONE, (_A,), (_LATER,)),
        (_NONE, _NONE, (_A,), (_A, _B), (_B,)),  # what we wrote ourselves is over
        ((_B,), _NONE, (_A, _B), (_A, _B), (_B,)),
        ((_A,), (_A,), (_LATER,), (_LATER,), (_A,)),  # we have taken back what may have been written
        ((_A,), _NONE, (_A,), _NONE, (_A,)),  # nobody else strikes out what is ours
    ],
)
def test_what_others_wrote_meanwhile_stays_on_record_beside_what_is_ours(
    now: tuple[Intent, ...],
    loaded: tuple[Intent, ...],
    tried: tuple[Intent, ...],
    theirs: tuple[Intent, ...],
    written: tuple[Intent, ...],
) -> None:
    assert record.merged(now, loaded, tried, theirs) == written


# --- what a plan makes of it ----------------------------------------------------------------------------------------


def leaving(*slots: int, online: tuple[int, ...], total: int = 4) -> VmView:
    """A map on which the removal of these slots is pending."""
    view = seen(host(total, {*online, *slots}), *online, offline=slots)
    return with_pending(view, [Intent(IntentKind.UNPLUG, index, f"vcpu-{index}", 0.0) for index in slots])


def steps(decided: Plan) -> list[tuple[StepKind, int]]:
    return [(each.kind, each.slot.index) for each in decided.steps]


def test_a_plug_sees_pending_removals_to_their_end_first() -> None:
    decided = plan(leaving(2, online=(0, 1)), Request(Operation.PLUG, 1))
    assert [(each.kind, each.slot.index) for each in decided.recover] == [(StepKind.UNPLUG, 2)]
    assert steps(decided) == [(StepKind.PLUG, 3)]
    assert plan(leaving(2, online=(0, 1)), Request(Operation.PLUG, 1), recovered=True).recover == ()


def test_a_scale_counts_no_cpu_that_is_leaving_and_sees_it_off_though_that_was_tried() -> None:
    view = leaving(1, online=(0, 2))
    assert steps(plan(view, Request(Operation.SCALE, 3), recovered=True)) == [
        (StepKind.UNPLUG, 1),
        (StepKind.PLUG, 3),
    ]
    assert steps(plan(view, Request(Operation.SCALE, 1), recovered=True)) == [
        (StepKind.UNPLUG, 1),
        (StepKind.UNPLUG, 2),
    ]
    assert steps(plan(view, Request(Operation.SCALE, 2), recovered=True)) == [(StepKind.UNPLUG, 1)]
    first = plan(view, Request(Operation.SCALE, 2))
    assert (len(first.recover), first.steps) == (1, ())


def test_an_unplug_takes_up_the_pending_removal_before_any_other_cpu() -> None:
    decided = plan(leaving(1, online=(0, 2, 3)), Request(Operation.UNPLUG, 1))
    assert (decided.recover, steps(decided)) == ((), [(StepKind.UNPLUG, 1)])


@pytest.mark.parametrize("operation", [Operation.PLUG, Operation.ONLINE, Operation.OFFLINE])
def test_nothing_is_built_on_a_cpu_that_may_go_at_any_moment(operation: Operation) -> None:
    decided = plan(leaving(2, online=(0, 1)), Request(operation, None, ("2",)), recovered=True)
    assert [refusal.reason.code for refusal in decided.refusals] == ["removal-pending"]


def test_in_the_guest_alone_a_cpu_that_is_leaving_is_neither_counted_nor_switched() -> None:
    decided = plan(leaving(1, online=(0, 2, 3)), Request(Operation.SCALE, 2, in_guest=True))
    assert steps(decided) == [(StepKind.OFFLINE, 3)]


def test_what_no_recovery_can_cure_is_refused_without_one() -> None:
    decided = plan(leaving(1, online=(0,)), Request(Operation.SCALE, 99))
    assert ([refusal.reason.code for refusal in decided.refusals], decided.recover) == (["over-max"], ())
    decided = plan(leaving(1, online=(0, 2, 3)), Request(Operation.PLUG, 1))
    assert ([refusal.reason.code for refusal in decided.refusals], len(decided.recover)) == (["not-enough"], 1)


def test_while_the_record_cannot_be_read_nothing_is_asked_of_qemu() -> None:
    trouble = Reason("bad-record", Origin.VCPUCTL, "x")
    view = leaving(1, online=(0,))._replace(record_trouble=trouble)
    for operation in (Operation.PLUG, Operation.UNPLUG, Operation.SCALE):
        assert plan(view, Request(operation, 1)).refusals[0].reason is trouble
