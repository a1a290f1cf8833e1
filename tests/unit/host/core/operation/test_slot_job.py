# SPDX-License-Identifier: Apache-2.0
"""One slot's part of an operation: which way it goes, and what is known of it."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest
from vcpu_host.core import codes
from vcpu_host.core.guest import GuestCpu
from vcpu_host.core.model import HostThread, Slot
from vcpu_host.core.operation.slot_job import Goal, Job
from vcpu_host.core.planning.plan import Step, StepKind
from vcpu_host.core.reason import Origin, Outcome, Reason

EMPTY = Slot(1, "cpu", MappingProxyType({}), 1)
FILLED = replace(EMPTY, filled=True)
ENDING = replace(EMPTY, leaving=(HostThread(1, 4711, "/cpu"),))
WHY = Reason(codes.GUEST_IGNORED, Origin.GUEST, "its kernel shows no such CPU", "look")


def job(kind: StepKind, *threads: str, slot: Slot = FILLED) -> Job:
    """A job for the slot; each of the threads was online before."""
    step = Step(kind, slot, "cpu-1", threads, "", "", online_before=frozenset(threads))
    return Job.of(step, 0, by_firmware=False)


def confirmed(session: str) -> Job:
    """A slot to be emptied, both threads of which the agent confirmed offline in the session."""
    going = job(StepKind.UNPLUG, "a", "b")
    for thread in going.threads:
        thread.shown(GuestCpu(1, thread.firmware_id, False))
        thread.confirmed_offline(session)
    return going


def test_device_del_is_allowed_once_on_confirmations_of_every_thread_in_one_session() -> None:
    going = confirmed("s")
    assert going.may_be_deleted("s")
    assert not going.may_be_deleted("t")
    assert not going.may_be_deleted(None)
    going.threads[1].confirmed_offline("t")
    assert not going.may_be_deleted("s"), "one of two"
    going.threads[1].confirmed_offline("s")
    going.unplug_asked("s", 1.0)
    going.removal.answered()
    assert not going.may_be_deleted("s"), "it was sent in this session"
    going.removal.came_to_nothing()
    assert going.may_be_deleted("s")


def test_device_del_is_not_allowed_for_an_unanswered_one_an_empty_slot_another_goal_or_a_settled_job() -> None:
    going = confirmed("s")
    going.unplug_asked(None, 1.0)
    assert not going.may_be_deleted("s"), "QEMU has not answered"
    going = confirmed("s")
    going.shown(EMPTY)
    assert not going.may_be_deleted("s")
    going = confirmed("s")
    going.roll_back(Goal.UP, Outcome.FAILED, WHY)
    assert not going.may_be_deleted("s")
    going = confirmed("s")
    going.ended(Outcome.UNKNOWN, WHY)
    assert not going.may_be_deleted("s")


def test_a_look_says_whether_the_slot_is_filled_unless_the_cpu_is_just_ending() -> None:
    going = job(StepKind.UNPLUG)
    going.shown(ENDING)
    assert (going.filled, going.removal.ending) == (True, ENDING), "neither a CPU that is there nor an empty slot"
    going.shown(EMPTY)
    assert (going.filled, going.plug.seen_by_qemu, going.removal.ending) == (False, False, None)
    going.shown(FILLED)
    assert (going.filled, going.plug.seen_by_qemu) == (True, True)


def test_on_the_way_back_it_is_open_again_and_nothing_was_sent_for_the_new_goal() -> None:
    coming = job(StepKind.PLUG, "a", slot=EMPTY)
    coming.plug_asked(1.0)
    coming.plug_answered(2.0)
    coming.plugged(2.0)
    coming.shown(FILLED)
    coming.refused_for_now(WHY)
    coming.left_alone(9.0)
    coming.ended(Outcome.DONE, None)
    assert (coming.open, coming.rolling_back, coming.plug.seen_by_qemu) == (False, False, True)
    coming.roll_back(Goal.GONE, Outcome.FAILED, WHY)
    assert (coming.open, coming.rolling_back, coming.plug.seen_by_qemu) == (True, True, False)
    assert coming.plug.ours, "it is taken away again"
    assert (coming.retries, coming.not_before, coming.passing) == (0, 0.0, WHY)


def test_the_reason_of_the_way_back_stands_unless_another_one_is_given_or_it_is_done() -> None:
    back = job(StepKind.UNPLUG, "a")
    back.roll_back(Goal.UP, Outcome.FAILED, WHY)
    back.ended(Outcome.FAILED, None)
    assert (back.outcome, back.reason) == (Outcome.FAILED, WHY)
    back.ended(Outcome.DONE, None)
    assert (back.outcome, back.reason) == (Outcome.DONE, None)


def test_what_is_taken_out_to_be_plugged_anew_is_not_on_its_way_back() -> None:
    deaf = job(StepKind.PLUG, "a")
    deaf.listed_absent(1.0)
    deaf.plug_anew()
    assert (deaf.goal, deaf.rolling_back) == (Goal.GONE, False)
    deaf.is_out(5.0)
    assert (deaf.goal, deaf.replugged, deaf.absent_at) == (Goal.UP, True, None)
    assert deaf.begun


def test_nothing_that_the_guest_said_of_a_cpu_is_left_when_another_is_to_be_plugged_in_its_place() -> None:
    deaf = confirmed("s")
    deaf.plug_anew()
    deaf.listed_absent(1.0)
    deaf.seen_down.shown(1.0, 1.0, 5.0)
    for thread in deaf.threads:
        thread.said_absent("s")
    assert deaf.guest_down("s")
    deaf.is_out(1.0)
    assert not deaf.guest_down("s")
    assert not any(thread.proven_absent("s") for thread in deaf.threads)
    assert not deaf.seen_down.is_fresh(1.0, 5.0)
    assert [thread.number for thread in deaf.threads] == [None, None]


def test_a_cpu_that_comes_back_is_not_seen_down_any_more() -> None:
    going = confirmed("s")
    going.seen_down.shown(1.0, 1.0, 5.0)
    going.came_back()
    assert not going.seen_down.is_fresh(1.0, 5.0)
    assert going.removal.relapses == 1


def test_other_names_make_void_all_that_the_guest_said() -> None:
    going = confirmed("s")
    going.listed_absent(1.0)
    going.take_names(("c", "d"))
    assert [thread.firmware_id for thread in going.threads] == ["c", "d"]
    assert not going.guest_down("s")
    assert going.absent_at is None
    with pytest.raises(ValueError, match="shorter"):
        going.take_names(("e",))


def test_a_timer_is_set_once_for_each_time() -> None:
    waiting = job(StepKind.UNPLUG, "a")
    assert waiting.waits_until(5.0)
    assert not waiting.waits_until(5.0)
    assert waiting.waits_until(6.0)


def test_what_a_phase_took_is_added_up_and_the_guest_may_be_quicker_than_qemus_answer() -> None:
    coming = job(StepKind.PLUG, "a", slot=EMPTY)
    coming.plug_asked(1.0)
    coming.threads[0].shown(GuestCpu(1, "a", False))
    coming.plug_answered(3.0)
    coming.plugged(3.0)
    coming.took("online", 0.5)
    coming.took("online", 0.25)
    assert coming.result().phases == {"device_add": 2.0, "arrival": 0.0, "online": 0.75}
