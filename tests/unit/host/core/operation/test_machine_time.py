# SPDX-License-Identifier: Apache-2.0
"""The state machine and time: what is awaited, for how long, and what is said when it is over."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from kit.sim.step import Step, plug, requests, unplug
from kit.sim.views import INFO, host, vm
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.model import Ost
from vcpu_host.core.operation import events as ev
from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.operation.machine import Machine
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.core.view import with_pending

_BUSY = Reason("last-cpu", Origin.GUEST, "the last one", errno="EBUSY")
_LOST = Reason("agent-lost", Origin.AGENT, "vcpud died")

# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "code"),
    [
        ([], "add-pending"),
        ([ev.PlugReturned(1, None)], "arrival-pending"),
        ([ev.PlugReturned(1, None), ev.VmStatus("stopped")], "vm-not-running"),
        ([ev.PlugReturned(1, None), ev.AgentDown(_LOST)], "agent-lost"),
    ],
)
def test_when_time_is_over_it_is_told_what_was_awaited(events: list[ev.Event], code: str) -> None:
    step = plug(arrival_grace=1000.0)
    step.tell(*events)
    step.tell(after=Limits().timeout)
    assert step.over()
    assert step.slot.outcome is Outcome.UNKNOWN
    assert step.slot.reason is not None
    assert step.slot.reason.code == code


def test_the_time_grows_with_what_there_is_to_do() -> None:
    view = vm(5, {0, 1, 2, 3})
    decided = plan(view, Request(Operation.SCALE, 1))
    machine = Machine(
        decided,
        view.platform,
        Limits(timeout=60.0, timeout_per_vcpu=3.0),
        session="s1",
        now=5.0,
        identities=view.identities,
    )
    assert machine.deadline == 5.0 + 60.0 + 3 * 3.0


def test_a_cpu_that_the_kernel_ignores_is_taken_back_after_the_grace() -> None:
    step = plug()
    step.tell(ev.PlugReturned(1, None), ev.OstReported(1, Ost(1, 0)))
    step.tell(after=Limits().arrival_grace - 0.1)
    assert not step.of(ev.DoCancel)
    step.tell(after=0.2)
    assert not step.of(ev.DoCancel), "silence is no verdict"
    step.listed()
    assert step.of(ev.DoCancel)


def test_of_a_cpu_that_the_kernel_ignores_no_cause_is_named_that_nobody_has_seen() -> None:
    """The plan has seen that the kernel has room for it (F4)."""
    step = plug()
    step.tell(ev.PlugReturned(1, None), ev.OstReported(1, Ost(1, 0)))
    step.tell(after=Limits().arrival_grace)
    step.listed()
    step.tell(ev.RequestEnded("s1", 1, None))
    (down,) = requests(step)
    step.tell(step.settled(1, "absent", online=None, request=down.request), step.snapshot(step.cpu(0, online=True)))
    step.tell(after=1.0)
    step.listed()
    step.tell(ev.UnplugReturned(1, None), step.looked(0), after=0.1)
    reason = step.slot.reason
    assert reason is not None
    assert (reason.code, reason.hint) == ("guest-ignored", "look at the guest's kernel log")
    assert "nr_cpus" not in reason.text + reason.hint
    assert "NR_CPUS" not in reason.text + reason.hint


def test_the_grace_does_not_run_while_the_guest_cannot_be_heard() -> None:
    step = plug()
    step.tell(ev.PlugReturned(1, None), ev.OstReported(1, Ost(1, 0)), ev.AgentDown(_LOST))
    step.tell(after=30.0)
    step.tell(ev.AgentUp("s2", INFO))
    assert [action.online for action in step.asked if isinstance(action, ev.DoSetOnline)] == [True]
    step.tell(ev.VmStatus("stopped"))
    step.tell(after=20.0)
    step.tell(step.looked(0, 1))
    assert not step.of(ev.DoCancel)


def test_a_pause_whose_event_was_lost_is_seen_by_the_next_look() -> None:
    step = plug()
    step.tell(ev.PlugReturned(1, None), ev.OstReported(1, Ost(1, 0)))
    step.tell(after=1.0)
    step.tell(step.looked(0, 1, status="paused"))
    step.tell(after=20.0)
    assert not step.of(ev.DoCancel)
    step.tell(step.looked(0, 1), after=1.0)
    assert not step.of(ev.DoCancel)
    step.tell(after=20.0)
    step.listed()
    assert step.of(ev.DoCancel)


def test_cpus_that_wait_for_their_turn_with_the_agent_are_not_ignored() -> None:
    step = Step(vm(4, {0}), "plug", count=3, limits=Limits(timeout=1000.0))
    for index in (1, 2, 3):
        step.tell(ev.PlugReturned(index, None), ev.OstReported(index, Ost(1, 0)))
    for index in (1, 2, 3):
        step.tell(after=10.0)
        assert not step.of(ev.DoCancel)
        step.tell(step.settled(index, "done", online=True))
    step.tell(step.looked(0, 1, 2, 3))
    assert step.machine.result(step.now).outcome is Outcome.DONE


def plugging(count: int) -> Step:
    """The first plug has gone out, and the guest has taken notice of it."""
    step = Step(vm(4, {0}), "plug", count=count)
    assert step.of(ev.DoPlug) == [ev.DoPlug(1)]
    assert step.tell(ev.PlugReturned(1, None)) == []
    step.tell(ev.OstReported(1, Ost(1, 0)))
    return step


def test_plugs_go_out_together_once_the_first_is_seen_and_qemu_is_looked_at_when_the_last_is_made() -> None:
    step = plugging(3)
    assert step.of(ev.DoPlug) == [ev.DoPlug(2), ev.DoPlug(3)]
    assert step.tell(ev.PlugReturned(3, None)) == []
    assert step.tell(ev.PlugReturned(2, None)) == [ev.DoLookHost()]


def test_a_first_plug_that_qemu_refuses_does_not_hold_the_others_up() -> None:
    step = Step(vm(4, {0}), "plug", count=3)
    step.tell(ev.PlugReturned(1, Reason("qemu-error", Origin.QEMU, "no")))
    assert [action.slot for action in step.of(ev.DoPlug)] == [2, 3]  # type: ignore[union-attr]


def test_a_plug_that_qemu_refuses_does_not_keep_the_others_from_being_looked_at() -> None:
    step = plugging(2)
    step.tell(ev.PlugReturned(2, Reason("qemu-error", Origin.QEMU, "no")))
    assert step.of(ev.DoLookHost) == [ev.DoLookHost()]


def test_firmware_in_flash_gets_its_plugs_one_at_a_time_as_the_guest_sees_them() -> None:
    step = Step(vm(4, {0}, flash=True), "plug", count=3)
    assert step.of(ev.DoPlug) == [ev.DoPlug(1)]
    assert step.tell(ev.PlugReturned(1, None)) == []
    step.tell(ev.OstReported(1, Ost(1, 0)))
    assert step.of(ev.DoPlug) == [ev.DoPlug(2)]


# --- what had not begun -----------------------------------------------------------------------------------------------


def verdicts(step: Step) -> list[tuple[int, str, str]]:
    """Slot, outcome and the reason's code, for each slot of the result."""
    slots = step.machine.result(step.now).slots
    return [(slot.slot, str(slot.outcome), slot.reason.code if slot.reason else "") for slot in slots]


_UNTOUCHED = [(slot, "refused", "not-begun") for slot in (1, 2, 3)]
_GONE = ev.QemuGone(Reason("qemu-gone", Origin.QEMU, "dead"))


@pytest.mark.parametrize(("operation", "filled"), [("plug", {0}), ("unplug", {0, 1, 2, 3}), ("offline", {0, 1, 2, 3})])
def test_no_time_at_all_changes_nothing_and_every_slot_is_told_as_not_begun(operation: str, filled: set[int]) -> None:
    step = Step(vm(4, filled), operation, "1", "2", "3", limits=Limits(timeout=0.0))
    assert step.asked == []
    assert step.over()
    assert verdicts(step) == _UNTOUCHED
    assert step.machine.result(step.now).outcome is Outcome.REFUSED


@pytest.mark.parametrize("end", [ev.Tick(), ev.Interrupted(), _GONE, ev.VmStatus("shutdown")])
def test_of_slots_plugged_in_turn_those_that_nothing_was_sent_for_are_not_begun(end: ev.Event) -> None:
    step = Step(vm(4, {0}, flash=True), "plug", count=3)
    assert step.of(ev.DoPlug) == [ev.DoPlug(1)]
    # The agent knows of all three, and waits for CPUs that do not come.
    assert len(step.of(ev.DoSetOnline)[0].firmware_ids) == 3  # type: ignore[union-attr]
    step.tell(end, after=Limits().timeout if isinstance(end, ev.Tick) else 1.0)
    assert step.over()
    (first, outcome, _), *others = verdicts(step)
    assert (first, outcome) == (1, "unknown")
    assert others == _UNTOUCHED[1:]
    assert step.machine.result(step.now).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("operation", ["unplug", "offline", "online"])
def test_what_the_guest_was_asked_for_has_begun(operation: str) -> None:
    step = Step(vm(3, {0}, {1}) if operation == "online" else vm(3, {0, 1}), operation, "1")
    assert step.of(ev.DoSetOnline)
    step.tell(ev.Interrupted())
    assert verdicts(step) == [(1, "unknown", "interrupted")]


def test_a_refusal_that_was_to_be_tried_again_is_the_reason_when_there_is_no_time_for_it() -> None:
    step = Step(vm(3, {0, 1}), "unplug", "1")
    busy = Reason("hotplug-disabled", Origin.GUEST, "the guest suspends", errno="EBUSY")
    step.tell(step.settled(1, "refused", online=True, reason=busy), after=Limits().timeout - 0.1)
    assert not step.over()
    step.tell(after=0.2)
    reason = step.slot.reason
    assert reason is not None
    assert (step.slot.outcome, reason.code, reason.errno) == (Outcome.REFUSED, "hotplug-disabled", "EBUSY")
    assert reason.text == "the guest suspends; it was to be tried again, but time ran out before its turn"


def test_what_an_earlier_operation_began_may_still_happen() -> None:
    view = with_pending(vm(3, {0, 1}), [Intent(IntentKind.UNPLUG, 1, "vcpu-1", 0.0)])
    step = Step(view, "unplug", "1", limits=Limits(timeout=0.0))
    assert verdicts(step) == [(1, "unknown", "offline-pending")]


def test_a_cpu_that_somebody_else_put_into_the_slot_is_not_as_it_was() -> None:
    step = Step(vm(4, {0}, flash=True), "plug", count=3)
    step.tell(ev.PlugReturned(1, None))
    step.tell(step.looked(0, 1, 2), after=1.0)
    step.tell(ev.Interrupted())
    assert [outcome for _, outcome, _ in verdicts(step)] == ["unknown", "unknown", "refused"]


def test_an_interrupt_ends_all_that_is_open_as_unknown() -> None:
    step = plug()
    step.tell(ev.Interrupted())
    assert step.over()
    assert step.machine.result(step.now).reason == step.slot.reason
    assert step.slot.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("event", [ev.VmStatus("shutdown"), ev.QemuGone(Reason("qemu-gone", Origin.QEMU, "dead"))])
def test_what_nobody_is_left_to_tell_is_unknown(event: ev.Event) -> None:
    step = plug()
    step.tell(event)
    assert step.slot.outcome is Outcome.UNKNOWN


def test_an_answer_after_the_end_changes_no_verdict() -> None:
    step = plug()
    step.tell(ev.Interrupted())
    step.tell(ev.PlugReturned(1, Reason("qemu-refused", Origin.QEMU, "no")))
    assert step.slot.outcome is Outcome.UNKNOWN


def test_a_second_session_in_place_of_the_first_voids_the_first_ones_requests() -> None:
    step = plug()
    step.tell(ev.AgentUp("s2", INFO))
    assert [action.request for action in step.asked if isinstance(action, ev.DoSetOnline)] == [2]


def test_a_device_that_took_the_slot_in_between_is_the_one_that_is_removed() -> None:
    step = unplug()
    step.tell(step.settled(1, "done", online=False))
    step.tell(ev.UnplugReturned(1, Reason("device-not-found", Origin.QEMU, "not found")))
    assert step.of(ev.DoLookHost)
    view = host(3, {0, 1}, boot={0, 1})
    step.tell(ev.HostLooked(view, step.now))
    step.tell(after=1.0)
    step.listed(step.cpu(1, online=False))
    assert step.of(ev.DoUnplug) == [ev.DoUnplug(1)]


def test_a_boot_cpu_is_plugged_back_under_our_id() -> None:
    step = Step(vm(3, {0, 1}, boot={0, 1}), "unplug", "1")
    step.tell(step.settled(1, "done", online=False))
    assert step.of(ev.DoUnplug) == [ev.DoUnplug(1)]


def test_dump_is_json_at_every_moment() -> None:
    step = unplug(threads=2)
    for event in (step.settled(1, "done", online=False), ev.AgentDown(_LOST), ev.AgentUp("s2", INFO), ev.Interrupted()):
        assert json.loads(json.dumps(step.machine.dump()))["operation"] == "unplug"
        step.tell(event)
    json.dumps(step.machine.dump())


def test_a_guest_that_does_not_answer_a_removal_is_asked_again_and_one_at_work_is_not() -> None:
    step = unplug()
    step.tell(step.settled(1, "done", online=False), ev.UnplugReturned(1, None))
    step.listed(step.cpu(1, online=False))
    step.tell(ev.UnplugReturned(1, None), after=Limits().eject_again - 0.1)
    step.listed(step.cpu(1, online=False))
    assert not step.of(ev.DoUnplug)
    step.tell(ev.OstReported(1, Ost(3, 0x84)))  # it has begun
    step.tell(step.looked(0, 1), after=1.0)
    assert not step.of(ev.DoUnplug)
    step.tell(step.looked(0, 1), after=Limits().eject_again)
    step.listed(step.cpu(1, online=False))
    assert step.of(ev.DoUnplug) == [ev.DoUnplug(1)]
    step.tell(step.looked(0, 1), after=0.1)
    assert not step.of(ev.DoUnplug)


def test_a_removal_that_qemu_knows_of_already_is_awaited_like_one_that_it_has_just_heard_of() -> None:
    step = unplug()
    step.tell(step.settled(1, "done", online=False))
    step.tell(ev.UnplugReturned(1, Reason("unplugging", Origin.QEMU, "already in the process of unplug")))
    assert not step.over()
    assert not step.of(ev.DoSetOnline)
    step.tell(step.looked(0))
    assert step.slot.outcome is Outcome.DONE


def test_a_vcpu_that_outlives_its_slot_is_looked_for_again_at_once_and_then_less_and_less() -> None:
    step = unplug()
    step.tell(step.settled(1, "done", online=False))
    step.tell(ev.UnplugReturned(1, None))
    whole, without = step.looked(0, 1).view, step.looked(0).view
    left = replace(without.slots[1], leaving=whole.slots[1].threads)
    ending = without._replace(slots=(without.slots[0], left, *without.slots[2:]))
    pauses = []
    for seen in [whole] * 8 + [ending] * 8:
        step.tell(after=max(0.0, step.machine.wake_at - step.now))
        assert step.of(ev.DoLookHost)
        step.tell(ev.HostLooked(seen, step.now))
        assert not step.over()
        pauses.append(step.machine.wake_at - step.now)
    assert pauses[7] == pauses[15] == pytest.approx(Limits().poll_most)
    assert pauses[8] <= Limits().poll_first
    assert pauses[8:] == sorted(pauses[8:])
    step.tell(step.looked(0))
    assert step.over()
    assert step.slot.outcome is Outcome.DONE
