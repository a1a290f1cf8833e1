# SPDX-License-Identifier: Apache-2.0
"""The state machine, event by event, where a single wrong step would break a promise."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kit.sim.step import Step, plug, unplug
from kit.sim.views import CORES, INFO, guest, host, identities, vm
from vcpu_host.core.guest import CpuResult, CpuStatus, GuestCpu
from vcpu_host.core.model import Ost
from vcpu_host.core.operation import events as ev
from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.core.view import join

_BUSY = Reason("last-cpu", Origin.GUEST, "the last one", errno="EBUSY")
_LOST = Reason("agent-lost", Origin.AGENT, "vcpud died")

# --- promise 2: the guest first ---------------------------------------------------------------------------------------


def test_device_del_waits_for_the_word_of_every_thread() -> None:
    step = unplug(threads=2)
    step.tell(step.settled(1, "done", online=False, thread=0))
    assert not step.of(ev.DoUnplug)
    step.tell(step.settled(1, "done", online=False, thread=1))
    assert not step.of(ev.DoUnplug)
    step.listed(*(step.cpu(1, online=False, thread=thread) for thread in (0, 1)))
    assert step.of(ev.DoUnplug) == [ev.DoUnplug(1)]


def test_a_word_of_an_ended_session_counts_for_nothing() -> None:
    step = unplug(threads=2)
    step.tell(step.settled(1, "done", online=False, thread=0))
    step.tell(ev.AgentDown(_LOST))
    step.tell(after=1.0)
    step.tell(ev.AgentUp("s2", INFO))
    step.session = "s2"
    step.tell(step.settled(1, "done", online=False, thread=1, request=2))
    assert not step.of(ev.DoUnplug)
    step.session = "s1"
    step.tell(step.settled(1, "done", online=False, thread=0, request=2))
    assert not step.of(ev.DoUnplug)
    step.session = "s2"
    assert not step.of(ev.DoLookGuest)
    step.tell(step.settled(1, "already", online=False, thread=0, request=2))
    step.listed(*(step.cpu(1, online=False, thread=thread) for thread in (0, 1)))
    assert step.of(ev.DoUnplug)


def test_a_thread_seen_online_again_takes_its_word_back() -> None:
    step = unplug(threads=2)
    step.tell(step.settled(1, "done", online=False, thread=0))
    step.tell(step.snapshot(step.cpu(1, online=True, thread=0)))
    step.tell(step.settled(1, "done", online=False, thread=1))
    assert not step.of(ev.DoUnplug)


@pytest.mark.parametrize("status", ["done", "already"])
def test_success_without_what_was_read_back_is_no_word(status: str) -> None:
    step = unplug()
    step.tell(step.snapshot(step.cpu(1, online=False)))
    step.tell(step.settled(1, status, online=None))
    assert not step.of(ev.DoUnplug)


@pytest.mark.parametrize("status", ["done", "already", "absent"])
def test_an_answer_that_contradicts_what_it_observed_is_no_word(status: str) -> None:
    step = unplug()
    step.tell(step.settled(1, status, online=True))
    assert not step.of(ev.DoUnplug)


def test_a_cpu_that_is_absent_is_gone_only_if_a_snapshot_tells_all_others_apart() -> None:
    step = unplug()
    step.tell(step.settled(1, "absent", online=None), step.snapshot(step.cpu(0, online=True), GuestCpu(1, "", True)))
    assert not step.of(ev.DoLookGuest)
    step.tell(step.snapshot(step.cpu(0, online=True)), after=1.0)
    assert not step.of(ev.DoUnplug)
    step.listed()
    assert step.of(ev.DoUnplug)


def test_an_answer_to_a_request_that_nobody_made_is_no_word() -> None:
    step = unplug()
    step.tell(step.settled(1, "done", online=False, request=7))
    assert not step.of(ev.DoUnplug)


def test_after_a_reset_the_guest_is_asked_again_before_device_del() -> None:
    step = unplug()
    step.tell(step.settled(1, "done", online=False))
    assert step.of(ev.DoUnplug)
    step.tell(ev.UnplugReturned(1, None))
    step.tell(ev.VmReset())
    step.tell(after=1.0)
    assert step.of(ev.DoDial)
    step.tell(ev.AgentUp("s2", INFO))
    step.session = "s2"
    assert not step.of(ev.DoUnplug)
    step.tell(step.settled(1, "done", online=False, request=2))
    assert step.of(ev.DoUnplug) == [ev.DoUnplug(1)]


# --- promise 1: done on both sides ------------------------------------------------------------------------------------


def test_a_slot_is_up_only_when_both_sides_say_so() -> None:
    step = plug()
    assert step.of(ev.DoPlug) == [ev.DoPlug(1)]
    step.tell(ev.PlugReturned(1, None))
    assert step.of(ev.DoLookHost)
    step.tell(step.looked(0, 1))
    assert not step.over()
    step.tell(step.settled(1, "done", online=True))
    assert step.over()
    assert (step.slot.outcome, step.slot.guest_cpus) == (Outcome.DONE, (1,))


def test_the_guest_being_quicker_than_the_look_is_not_enough() -> None:
    step = plug()
    step.tell(ev.PlugReturned(1, None))
    assert step.of(ev.DoLookHost)
    step.tell(step.settled(1, "done", online=True))
    assert not step.over()
    step.tell(step.looked(0, 1))
    assert step.over()


def test_an_acknowledgement_is_no_proof() -> None:
    step = plug()
    step.tell(ev.PlugReturned(1, None), ev.OstReported(1, Ost(1, 0)))
    step.tell(after=1.0)
    step.tell(step.looked(0, 1))
    assert not step.over()


def test_device_deleted_is_no_proof() -> None:
    step = unplug()
    step.tell(step.settled(1, "done", online=False))
    step.tell(ev.DeviceDeleted(1), ev.OstReported(1, Ost(3, 0)))
    assert not step.over()
    assert step.of(ev.DoLookHost)
    step.tell(step.looked(0))
    assert step.slot.outcome is Outcome.DONE


def test_a_look_that_was_asked_for_before_the_plug_does_not_empty_the_slot() -> None:
    step = Step(vm(3, {0}), "plug", "1", "2")
    step.tell(after=1.0)
    assert step.of(ev.DoLookHost)
    step.tell(ev.PlugReturned(1, None))
    step.tell(step.looked(0))
    assert not step.over()
    assert step.machine.progress()[0] == 0


def test_what_is_to_go_is_asked_for_as_such_and_what_is_to_stay_is_not() -> None:
    view = vm(3, {0, 1})
    for step, for_eject in (
        (Step(view, "unplug", "1"), True),
        (Step(view, "offline", "1"), False),
        (Step(vm(3, {0}), "plug", "1"), False),
    ):
        (asked,) = step.of(ev.DoSetOnline)
        assert isinstance(asked, ev.DoSetOnline)
        assert asked.for_eject is for_eject


# --- refusals, and the way back ---------------------------------------------------------------------------------------


def test_a_cpu_that_the_guest_keeps_is_refused_and_nothing_was_changed() -> None:
    step = unplug()
    step.tell(step.settled(1, "refused", online=True, reason=_BUSY))
    assert step.over()
    assert (step.slot.outcome, step.slot.reason) == (Outcome.REFUSED, _BUSY)


def test_a_core_of_which_one_thread_stays_gets_the_other_back() -> None:
    step = unplug(threads=2)
    step.tell(
        step.settled(1, "done", online=False, thread=0), step.settled(1, "refused", online=True, thread=1, reason=_BUSY)
    )
    assert step.of(ev.DoSetOnline) == [
        ev.DoSetOnline(2, (step.name(1),), online=True, wait=True, brief=CORES.acknowledges)
    ]
    step.tell(step.settled(1, "done", online=True, request=2))
    step.tell(step.looked(0, 1))
    assert (step.slot.outcome, step.slot.reason) == (Outcome.FAILED, _BUSY)


def test_a_way_back_is_not_over_while_a_cancelled_offline_may_still_be_carried_out() -> None:
    step = unplug(threads=2)
    step.tell(step.settled(1, "refused", online=True, thread=0, reason=_BUSY))
    assert step.of(ev.DoCancel)
    step.tell(step.looked(0, 1))
    assert not step.over(), "the other thread may go offline at any moment"
    # the request ends, and what became of that thread was not told: it is asked for
    step.tell(ev.RequestEnded("s1", 1, None))
    assert step.of(ev.DoSetOnline) == [ev.DoSetOnline(2, (step.name(1, 1),), online=True, wait=True, brief=False)]
    step.tell(step.settled(1, "done", online=True, thread=1, request=2), step.looked(0, 1))
    assert step.slot.outcome is Outcome.FAILED


def test_what_was_offline_before_stays_so_on_the_way_back() -> None:
    step = Step(vm(3, {0}, {1}, threads=2), "unplug", "1")
    step.tell(*(step.settled(1, "already", online=False, thread=thread) for thread in (0, 1)))
    step.listed(*(step.cpu(1, online=False, thread=thread) for thread in (0, 1)))
    step.tell(ev.UnplugReturned(1, Reason("qemu-refused", Origin.QEMU, "migrating")))
    assert step.over()
    assert step.slot.outcome is Outcome.FAILED
    assert not step.of(ev.DoSetOnline)


def test_of_a_core_that_was_half_lit_only_that_half_comes_back() -> None:
    view = host(2, {0, 1}, threads=2)
    dark = identities(view, 1)[1]
    half = join(view, guest(view, {0, 1}, cpus={dark: GuestCpu(3, dark, online=False)}), agent=INFO)
    step = Step(half, "unplug", "1")
    step.tell(step.settled(1, "done", online=False, thread=0), step.settled(1, "already", online=False, thread=1))
    step.tell(ev.UnplugReturned(1, Reason("qemu-refused", Origin.QEMU, "migrating")))
    assert [action.firmware_ids for action in step.asked if isinstance(action, ev.DoSetOnline)] == [(step.name(1, 0),)]
    step.tell(step.settled(1, "done", online=True, thread=0, request=2))
    step.tell(step.looked(0, 1))
    assert step.slot.outcome is Outcome.FAILED


def test_a_way_back_that_fails_too_is_partial_and_tells_both_reasons() -> None:
    step = unplug()
    step.tell(step.settled(1, "done", online=False))
    step.tell(ev.UnplugReturned(1, None), ev.OstReported(1, Ost(3, 0x82)))
    assert step.of(ev.DoSetOnline)
    step.tell(step.settled(1, "refused", online=False, request=2, reason=_BUSY))
    assert step.slot.outcome is Outcome.PARTIAL
    assert step.slot.reason is not None
    assert "could not take the CPU offline" in step.slot.reason.text
    assert "the last one" in step.slot.reason.text


def test_a_plug_that_the_guest_refuses_is_unplugged_again() -> None:
    step = plug()
    step.tell(ev.PlugReturned(1, None))
    step.tell(step.looked(0, 1))
    step.tell(step.settled(1, "refused", online=False, reason=_BUSY))
    step.tell(step.settled(1, "already", online=False, request=2))
    assert step.of(ev.DoUnplug) == [ev.DoUnplug(1)]
    step.tell(ev.UnplugReturned(1, None))
    step.tell(after=1.0)
    assert step.of(ev.DoLookHost)
    step.tell(step.looked(0))
    assert (step.slot.outcome, step.slot.reason) == (Outcome.FAILED, _BUSY)


def test_a_plug_under_way_is_awaited_before_it_is_taken_back() -> None:
    step = plug()
    step.tell(step.settled(1, "refused", online=False, reason=_BUSY))
    assert not step.over()
    step.tell(ev.PlugReturned(1, None))
    assert not step.over()


@pytest.mark.parametrize(("last", "deleted"), [("done", [2, 1]), ("refused", [2])])
def test_nothing_is_ejected_while_the_guest_takes_another_cpu_offline(last: str, deleted: list[int]) -> None:
    step = Step(vm(4, {0, 1, 2}), "unplug", "1", "2")
    step.tell(step.settled(2, "done", online=False))
    assert not step.of(ev.DoUnplug)
    assert not step.of(ev.DoLookGuest)
    step.tell(step.settled(1, last, online=last == "refused", reason=_BUSY if last == "refused" else None))
    step.listed(step.cpu(1, online=last == "refused"), step.cpu(2, online=False))
    assert [action.slot for action in step.of(ev.DoUnplug)] == deleted  # type: ignore[union-attr]


def test_an_offline_that_does_not_come_back_keeps_the_others_for_a_moment_only() -> None:
    step = Step(vm(4, {0, 1, 2}), "unplug", "1", "2", limits=Limits(let_go_grace=3.0))
    step.tell(step.settled(2, "done", online=False), after=1.0)
    assert not step.of(ev.DoUnplug)
    assert step.machine.wake_at <= step.now + 3.0
    step.tell(after=2.9)
    assert not step.of(ev.DoUnplug)
    step.tell(after=0.2)
    step.listed(step.cpu(1, online=True), step.cpu(2, online=False))
    assert step.of(ev.DoUnplug) == [ev.DoUnplug(2)]


def test_what_somebody_else_plugged_is_not_taken_away() -> None:
    step = Step(vm(4, {0}, flash=True), "plug", "1", "2")
    step.tell(step.looked(0, 2), after=1.0)
    step.tell(step.settled(2, "refused", online=False, reason=_BUSY))
    assert not step.of(ev.DoUnplug)
    assert {slot.slot: slot.outcome for slot in step.machine.result(step.now).slots}[2] is Outcome.REFUSED


def test_a_slot_that_goes_after_all_is_done_though_it_was_on_its_way_back() -> None:
    step = unplug()
    step.tell(step.settled(1, "done", online=False))
    step.tell(ev.UnplugReturned(1, None), ev.OstReported(1, Ost(3, 0x82)))
    step.tell(step.looked(0))
    assert (step.slot.outcome, step.slot.reason) == (Outcome.DONE, None)


def test_a_refusal_that_passes_by_itself_is_tried_again_so_many_times() -> None:
    step = plug()
    passing = Reason("hotplug-disabled", Origin.GUEST, "suspending", errno="EBUSY")
    step.tell(ev.PlugReturned(1, None))
    for request in range(1, Limits().retries + 1):
        step.tell(step.settled(1, "refused", online=False, request=request, reason=passing))
        assert not step.of(ev.DoSetOnline)
        step.tell(ev.RequestEnded("s1", request, None), after=1.0)
        assert step.of(ev.DoSetOnline)
    step.tell(step.settled(1, "refused", online=False, request=Limits().retries + 1, reason=passing))
    assert [action.online for action in step.of(ev.DoSetOnline) if isinstance(action, ev.DoSetOnline)] == [False]


def test_atomic_takes_back_what_came_up_when_another_did_not() -> None:
    step = Step(vm(3, {0}), "plug", count=2, atomic=True)
    step.tell(ev.PlugReturned(1, None), step.settled(1, "done", online=True))
    step.tell(ev.PlugReturned(2, Reason("qemu-refused", Origin.QEMU, "no")))
    step.tell(step.looked(0, 1))
    assert [action for action in step.asked if isinstance(action, ev.DoSetOnline) and not action.online]
    (request,) = [action.request for action in step.asked if isinstance(action, ev.DoSetOnline)]
    step.tell(step.settled(1, "done", online=False, request=request))
    step.tell(ev.UnplugReturned(1, None))
    step.tell(step.looked(0))
    assert [slot.outcome for slot in step.machine.result(step.now).slots] == [Outcome.FAILED, Outcome.REFUSED]


@pytest.mark.parametrize(("control", "remedy"), [("off", "echo on"), ("forceoff", "remove nosmt=force")])
def test_a_thread_that_smt_mode_keeps_idle_is_named_in_a_success_with_what_would_help(
    control: str, remedy: str
) -> None:
    view = vm(3, {0}, threads=2)
    assert view.agent is not None
    environment = view.agent.environment._replace(smt_control=control, kernel_arguments=("nosmt=force",))
    step = Step(view._replace(agent=view.agent._replace(environment=environment)), "plug", "1")
    off = Reason("smt-off", Origin.GUEST, "SMT is off", errno="EPERM")
    idle = replace(step.cpu(1, online=False, thread=1), cannot_online=off)
    step.tell(ev.PlugReturned(1, None), step.looked(0, 1))
    refused = CpuResult(idle.firmware_id, CpuStatus.REFUSED, off, idle, 0.1)
    step.tell(step.settled(1, "already", online=True), ev.CpuSettled(step.session, 1, refused))
    step.tell(step.looked(0, 1), after=1.0)
    assert step.over()
    assert step.slot.outcome is Outcome.DONE
    assert step.slot.reason is not None
    assert (step.slot.reason.code, "cpu3" in step.slot.reason.text) == ("smt-off", True)
    assert step.slot.reason.hint.startswith(remedy)
