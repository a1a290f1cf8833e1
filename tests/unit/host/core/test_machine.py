# SPDX-License-Identifier: Apache-2.0
"""The state machine, event by event, where a single wrong step would break a promise."""

from __future__ import annotations

import json

import pytest
from fakes.views import CORES, INFO, guest, host, identities, vm
from vcpu_host.core import events as ev
from vcpu_host.core.machine import Machine
from vcpu_host.core.model import CpuResult, CpuStatus, GuestCpu, GuestView, Ost, Outcome, Reason, Who
from vcpu_host.core.plan import Operation, Request, plan
from vcpu_host.core.policy import Policy
from vcpu_host.core.result import SlotResult
from vcpu_host.core.view import VmView, join

_BUSY = Reason("last-cpu", Who.GUEST, "the last one", errno="EBUSY")
_LOST = Reason("agent-lost", Who.AGENT, "vcpud died")


class _Step:
    """A machine, the time, and what it has asked for since the last look at ``asked``."""

    def __init__(
        self, view: VmView, operation: str, *slots: str, count: int | None = None, policy: Policy | None = None
    ) -> None:
        request = Request(Operation(operation), count, slots)
        self.view = view
        self.now = 100.0
        self.machine = Machine(plan(view, request), view.platform, policy or Policy(), session="s1", now=self.now)
        self.session = "s1"
        self.threads = view.host.slots[0].vcpus
        self.asked = self.machine.advance(self.now)

    def tell(self, *events: ev.Event, after: float = 0.0) -> list[ev.Action]:
        self.now += after
        for event in events:
            self.machine.feed(event, self.now)
        self.asked = self.machine.advance(self.now)
        return self.asked

    def name(self, index: int, thread: int = 0) -> str:
        return identities(self.view.host, index)[thread]

    def cpu(self, index: int, *, online: bool, thread: int = 0) -> GuestCpu:
        return GuestCpu(index * self.threads + thread, self.name(index, thread), online)

    def settled(
        self,
        index: int,
        status: str,
        *,
        online: bool | None,
        thread: int = 0,
        request: int = 1,
        reason: Reason | None = None,
    ) -> ev.CpuSettled:
        observed = None if online is None else self.cpu(index, online=online, thread=thread)
        result = CpuResult(self.name(index, thread), CpuStatus(status), reason, observed, 0.1)
        return ev.CpuSettled(self.session, request, result)

    def looked(self, *filled: int, status: str = "running") -> ev.HostLooked:
        return ev.HostLooked(host(len(self.view.slots), filled, threads=self.threads, status=status), self.now)

    def snapshot(self, *cpus: GuestCpu) -> ev.GuestLooked:
        return ev.GuestLooked(self.session, GuestView(1, "b", "i", cpus))

    def of(self, kind: type[ev.Action]) -> list[ev.Action]:
        return [action for action in self.asked if isinstance(action, kind)]

    def over(self) -> bool:
        return self.machine.finished

    @property
    def slot(self) -> SlotResult:
        (slot,) = self.machine.result(self.now).slots
        return slot


def _unplug(threads: int = 1) -> _Step:
    return _Step(vm(3, {0, 1}, threads=threads), "unplug", "1")


def _plug(**policy: float) -> _Step:
    return _Step(vm(3, {0}), "plug", "1", policy=Policy(**policy))  # type: ignore[arg-type]


# --- promise 2: the guest first ---------------------------------------------------------------------------------------


def test_device_del_waits_for_the_word_of_every_thread() -> None:
    step = _unplug(threads=2)
    step.tell(step.settled(1, "done", online=False, thread=0))
    assert not step.of(ev.DoDel)
    step.tell(step.settled(1, "done", online=False, thread=1))
    assert step.of(ev.DoDel) == [ev.DoDel(1, "vcpu-1")]


def test_a_word_of_an_ended_session_counts_for_nothing() -> None:
    step = _unplug(threads=2)
    step.tell(step.settled(1, "done", online=False, thread=0))
    step.tell(ev.AgentDown(_LOST))
    step.tell(after=1.0)
    step.tell(ev.AgentUp("s2", INFO))
    step.session = "s2"
    step.tell(step.settled(1, "done", online=False, thread=1, request=2))
    assert not step.of(ev.DoDel)
    step.session = "s1"
    step.tell(step.settled(1, "done", online=False, thread=0, request=2))
    assert not step.of(ev.DoDel)
    step.session = "s2"
    step.tell(step.settled(1, "already", online=False, thread=0, request=2))
    assert step.of(ev.DoDel)


def test_a_thread_seen_online_again_takes_its_word_back() -> None:
    step = _unplug(threads=2)
    step.tell(step.settled(1, "done", online=False, thread=0))
    step.tell(step.snapshot(step.cpu(1, online=True, thread=0)))
    step.tell(step.settled(1, "done", online=False, thread=1))
    assert not step.of(ev.DoDel)


@pytest.mark.parametrize("status", ["done", "already"])
def test_success_without_what_was_read_back_is_no_word(status: str) -> None:
    step = _unplug()
    step.tell(step.snapshot(step.cpu(1, online=False)))
    step.tell(step.settled(1, status, online=None))
    assert not step.of(ev.DoDel)


@pytest.mark.parametrize("status", ["done", "already", "absent"])
def test_an_answer_that_contradicts_what_it_observed_is_no_word(status: str) -> None:
    step = _unplug()
    step.tell(step.settled(1, status, online=True))
    assert not step.of(ev.DoDel)


def test_a_cpu_that_is_absent_is_gone_only_if_a_snapshot_tells_all_others_apart() -> None:
    step = _unplug()
    step.tell(step.settled(1, "absent", online=None), step.snapshot(step.cpu(0, online=True), GuestCpu(1, "", True)))
    assert not step.of(ev.DoDel)
    step.tell(step.snapshot(step.cpu(0, online=True)), after=1.0)
    assert step.of(ev.DoDel)


def test_an_answer_to_a_request_that_nobody_made_is_no_word() -> None:
    step = _unplug()
    step.tell(step.settled(1, "done", online=False, request=7))
    assert not step.of(ev.DoDel)


def test_after_a_reset_the_guest_is_asked_again_before_device_del() -> None:
    step = _unplug()
    step.tell(step.settled(1, "done", online=False))
    assert step.of(ev.DoDel)
    step.tell(ev.DelReturned(1, None))
    step.tell(ev.Restarted())
    step.tell(after=1.0)
    assert step.of(ev.DoDial)
    step.tell(ev.AgentUp("s2", INFO))
    step.session = "s2"
    assert not step.of(ev.DoDel)
    step.tell(step.settled(1, "done", online=False, request=2))
    assert step.of(ev.DoDel) == [ev.DoDel(1, "vcpu-1")]


# --- promise 1: done on both sides ------------------------------------------------------------------------------------


def test_a_slot_is_up_only_when_both_sides_say_so() -> None:
    step = _plug()
    assert step.of(ev.DoAdd) == [ev.DoAdd(1, "vcpu-1")]
    step.tell(ev.Added(1, None))
    assert step.of(ev.DoLookHost)
    step.tell(step.looked(0, 1))
    assert not step.over()
    step.tell(step.settled(1, "done", online=True))
    assert step.over()
    assert (step.slot.outcome, step.slot.guest_cpus) == (Outcome.DONE, (1,))


def test_the_guest_being_quicker_than_the_look_is_not_enough() -> None:
    step = _plug()
    step.tell(ev.Added(1, None))
    assert step.of(ev.DoLookHost)
    step.tell(step.settled(1, "done", online=True))
    assert not step.over()
    step.tell(step.looked(0, 1))
    assert step.over()


def test_an_acknowledgement_is_no_proof() -> None:
    step = _plug()
    step.tell(ev.Added(1, None), ev.OstSeen(1, Ost(1, 0)))
    step.tell(after=1.0)
    step.tell(step.looked(0, 1))
    assert not step.over()


def test_device_deleted_is_no_proof() -> None:
    step = _unplug()
    step.tell(step.settled(1, "done", online=False))
    step.tell(ev.PathDeleted("/machine/peripheral/vcpu-1"), ev.OstSeen(1, Ost(3, 0)))
    assert not step.over()
    assert step.of(ev.DoLookHost)
    step.tell(step.looked(0))
    assert step.slot.outcome is Outcome.DONE


def test_a_look_that_was_asked_for_before_the_plug_does_not_empty_the_slot() -> None:
    step = _Step(vm(3, {0}), "plug", "1", "2")
    step.tell(after=1.0)
    assert step.of(ev.DoLookHost)
    step.tell(ev.Added(1, None))
    step.tell(step.looked(0))
    assert not step.over()
    assert step.machine.progress()[0] == 0


# --- refusals, and the way back ---------------------------------------------------------------------------------------


def test_a_cpu_that_the_guest_keeps_is_refused_and_nothing_was_changed() -> None:
    step = _unplug()
    step.tell(step.settled(1, "refused", online=True, reason=_BUSY))
    assert step.over()
    assert (step.slot.outcome, step.slot.reason) == (Outcome.REFUSED, _BUSY)


def test_a_core_of_which_one_thread_stays_gets_the_other_back() -> None:
    step = _unplug(threads=2)
    step.tell(
        step.settled(1, "done", online=False, thread=0), step.settled(1, "refused", online=True, thread=1, reason=_BUSY)
    )
    assert step.of(ev.DoSetOnline) == [
        ev.DoSetOnline(2, (step.name(1),), online=True, wait=True, brief=CORES.acknowledges)
    ]
    step.tell(step.settled(1, "done", online=True, request=2))
    step.tell(step.looked(0, 1))
    assert (step.slot.outcome, step.slot.reason) == (Outcome.FAILED, _BUSY)


def test_what_was_offline_before_stays_so_on_the_way_back() -> None:
    step = _Step(vm(3, {0}, {1}, threads=2), "unplug", "1")
    step.tell(*(step.settled(1, "already", online=False, thread=thread) for thread in (0, 1)))
    step.tell(ev.DelReturned(1, Reason("qemu-refused", Who.QEMU, "migrating")))
    assert step.over()
    assert step.slot.outcome is Outcome.FAILED
    assert not step.of(ev.DoSetOnline)


def test_of_a_core_that_was_half_lit_only_that_half_comes_back() -> None:
    view = host(2, {0, 1}, threads=2)
    dark = identities(view, 1)[1]
    half = join(view, guest(view, {0, 1}, cpus={dark: GuestCpu(3, dark, online=False)}), agent=INFO)
    step = _Step(half, "unplug", "1")
    step.tell(step.settled(1, "done", online=False, thread=0), step.settled(1, "already", online=False, thread=1))
    step.tell(ev.DelReturned(1, Reason("qemu-refused", Who.QEMU, "migrating")))
    assert [action.firmware_ids for action in step.asked if isinstance(action, ev.DoSetOnline)] == [(step.name(1, 0),)]
    step.tell(step.settled(1, "done", online=True, thread=0, request=2))
    step.tell(step.looked(0, 1))
    assert step.slot.outcome is Outcome.FAILED


def test_a_way_back_that_fails_too_is_partial_and_tells_both_reasons() -> None:
    step = _unplug()
    step.tell(step.settled(1, "done", online=False))
    step.tell(ev.DelReturned(1, None), ev.OstSeen(1, Ost(3, 0x82)))
    assert step.of(ev.DoSetOnline)
    step.tell(step.settled(1, "refused", online=False, request=2, reason=_BUSY))
    assert step.slot.outcome is Outcome.PARTIAL
    assert step.slot.reason is not None
    assert "could not take the CPU offline" in step.slot.reason.text
    assert "the last one" in step.slot.reason.text


def test_a_plug_that_the_guest_refuses_is_unplugged_again() -> None:
    step = _plug()
    step.tell(ev.Added(1, None))
    step.tell(step.looked(0, 1))
    step.tell(step.settled(1, "refused", online=False, reason=_BUSY))
    step.tell(step.settled(1, "already", online=False, request=2))
    assert step.of(ev.DoDel) == [ev.DoDel(1, "vcpu-1")]
    step.tell(ev.DelReturned(1, None))
    step.tell(after=1.0)
    assert step.of(ev.DoLookHost)
    step.tell(step.looked(0))
    assert (step.slot.outcome, step.slot.reason) == (Outcome.FAILED, _BUSY)


def test_a_plug_under_way_is_awaited_before_it_is_taken_back() -> None:
    step = _plug()
    step.tell(step.settled(1, "refused", online=False, reason=_BUSY))
    assert not step.over()
    step.tell(ev.Added(1, None))
    assert not step.over()


def test_what_somebody_else_plugged_is_not_taken_away() -> None:
    step = _Step(vm(4, {0}), "plug", "1", "2")
    step.tell(step.looked(0, 2), after=1.0)
    step.tell(step.settled(2, "refused", online=False, reason=_BUSY))
    assert not step.of(ev.DoDel)
    assert {slot.slot: slot.outcome for slot in step.machine.result(step.now).slots}[2] is Outcome.REFUSED


def test_a_slot_that_goes_after_all_is_done_though_it_was_on_its_way_back() -> None:
    step = _unplug()
    step.tell(step.settled(1, "done", online=False))
    step.tell(ev.DelReturned(1, None), ev.OstSeen(1, Ost(3, 0x82)))
    step.tell(step.looked(0))
    assert (step.slot.outcome, step.slot.reason) == (Outcome.DONE, None)


def test_a_refusal_that_passes_by_itself_is_tried_again_so_many_times() -> None:
    step = _plug()
    passing = Reason("hotplug-disabled", Who.GUEST, "suspending", errno="EBUSY")
    step.tell(ev.Added(1, None))
    for request in range(1, Policy().retries + 1):
        step.tell(step.settled(1, "refused", online=False, request=request, reason=passing))
        assert not step.of(ev.DoSetOnline)
        step.tell(ev.RequestEnded("s1", request, None), after=1.0)
        assert step.of(ev.DoSetOnline)
    step.tell(step.settled(1, "refused", online=False, request=Policy().retries + 1, reason=passing))
    assert [action.online for action in step.of(ev.DoSetOnline) if isinstance(action, ev.DoSetOnline)] == [False]


def test_atomic_takes_back_what_came_up_when_another_did_not() -> None:
    step = _Step(vm(3, {0}), "plug", count=2, policy=Policy(atomic=True))
    step.tell(ev.Added(1, None), step.settled(1, "done", online=True))
    step.tell(ev.Added(2, Reason("qemu-refused", Who.QEMU, "no")))
    step.tell(step.looked(0, 1))
    assert [action for action in step.asked if isinstance(action, ev.DoSetOnline) and not action.online]
    (request,) = [action.request for action in step.asked if isinstance(action, ev.DoSetOnline)]
    step.tell(step.settled(1, "done", online=False, request=request))
    step.tell(ev.DelReturned(1, None))
    step.tell(step.looked(0))
    assert [slot.outcome for slot in step.machine.result(step.now).slots] == [Outcome.FAILED, Outcome.REFUSED]


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "code"),
    [
        ([], "add-pending"),
        ([ev.Added(1, None)], "arrival-pending"),
        ([ev.Added(1, None), ev.StatusChanged("paused")], "vm-paused"),
        ([ev.Added(1, None), ev.AgentDown(_LOST)], "agent-lost"),
    ],
)
def test_when_time_is_over_it_is_told_what_was_awaited(events: list[ev.Event], code: str) -> None:
    step = _plug(arrival_grace=1000.0)
    step.tell(*events)
    step.tell(after=Policy().timeout)
    assert step.over()
    assert step.slot.outcome is Outcome.UNKNOWN
    assert step.slot.reason is not None
    assert step.slot.reason.code == code


def test_the_time_grows_with_what_there_is_to_do() -> None:
    view = vm(5, {0, 1, 2, 3})
    decided = plan(view, Request(Operation.SCALE, 1))
    machine = Machine(decided, view.platform, Policy(timeout=60.0, timeout_per_vcpu=3.0), session="s1", now=5.0)
    assert machine.deadline == 5.0 + 60.0 + 3 * 3.0


def test_a_cpu_that_the_kernel_ignores_is_taken_back_after_the_grace() -> None:
    step = _plug()
    step.tell(ev.Added(1, None), ev.OstSeen(1, Ost(1, 0)))
    step.tell(after=Policy().arrival_grace - 0.1)
    assert not step.of(ev.DoCancel)
    step.tell(after=0.2)
    assert step.of(ev.DoCancel)


def test_the_grace_does_not_run_while_the_guest_cannot_be_heard() -> None:
    step = _plug()
    step.tell(ev.Added(1, None), ev.OstSeen(1, Ost(1, 0)), ev.AgentDown(_LOST))
    step.tell(after=30.0)
    step.tell(ev.AgentUp("s2", INFO))
    assert [action.online for action in step.asked if isinstance(action, ev.DoSetOnline)] == [True]
    step.tell(ev.StatusChanged("paused"))
    step.tell(after=20.0)
    step.tell(step.looked(0, 1))
    assert not step.of(ev.DoCancel)


def test_a_pause_whose_event_was_lost_is_seen_by_the_next_look() -> None:
    step = _plug()
    step.tell(ev.Added(1, None), ev.OstSeen(1, Ost(1, 0)))
    step.tell(after=1.0)
    step.tell(step.looked(0, 1, status="paused"))
    step.tell(after=20.0)
    assert not step.of(ev.DoCancel)
    step.tell(step.looked(0, 1), after=1.0)
    assert not step.of(ev.DoCancel)
    step.tell(after=20.0)
    assert step.of(ev.DoCancel)


def test_cpus_that_wait_for_their_turn_with_the_agent_are_not_ignored() -> None:
    step = _Step(vm(4, {0}), "plug", count=3, policy=Policy(timeout=1000.0))
    for index in (1, 2, 3):
        step.tell(ev.Added(index, None), ev.OstSeen(index, Ost(1, 0)))
    for index in (1, 2, 3):
        step.tell(after=10.0)
        assert not step.of(ev.DoCancel)
        step.tell(step.settled(index, "done", online=True))
    step.tell(step.looked(0, 1, 2, 3))
    assert step.machine.result(step.now).outcome is Outcome.DONE


def test_plugs_follow_each_other_as_the_guest_sees_them() -> None:
    step = _Step(vm(4, {0}), "plug", count=3)
    assert step.of(ev.DoAdd) == [ev.DoAdd(1, "vcpu-1")]
    assert step.tell(ev.Added(1, None)) == []
    step.tell(ev.OstSeen(1, Ost(1, 0)))
    assert step.of(ev.DoAdd) == [ev.DoAdd(2, "vcpu-2")]


def test_an_interrupt_ends_all_that_is_open_as_unknown() -> None:
    step = _plug()
    step.tell(ev.Interrupted())
    assert step.over()
    assert step.machine.result(step.now).reason == step.slot.reason
    assert step.slot.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("event", [ev.StatusChanged("shutdown"), ev.QemuLost(Reason("qemu-gone", Who.QEMU, "dead"))])
def test_what_nobody_is_left_to_tell_is_unknown(event: ev.Event) -> None:
    step = _plug()
    step.tell(event)
    assert step.slot.outcome is Outcome.UNKNOWN


def test_an_answer_after_the_end_changes_no_verdict() -> None:
    step = _plug()
    step.tell(ev.Interrupted())
    step.tell(ev.Added(1, Reason("qemu-refused", Who.QEMU, "no")))
    assert step.slot.outcome is Outcome.UNKNOWN


def test_a_second_session_in_place_of_the_first_voids_the_first_ones_requests() -> None:
    step = _plug()
    step.tell(ev.AgentUp("s2", INFO))
    assert [action.request for action in step.asked if isinstance(action, ev.DoSetOnline)] == [2]


def test_a_device_that_took_the_slot_in_between_is_the_one_that_is_removed() -> None:
    step = _unplug()
    step.tell(step.settled(1, "done", online=False))
    step.tell(ev.DelReturned(1, Reason("device-not-found", Who.QEMU, "not found")))
    assert step.of(ev.DoLookHost)
    view = host(3, {0, 1}, boot={0, 1})
    step.tell(ev.HostLooked(view, step.now))
    step.tell(after=1.0)
    assert step.of(ev.DoDel) == [ev.DoDel(1, "/machine/unattached/device[4]")]


def test_a_boot_cpu_is_plugged_back_under_our_id() -> None:
    step = _Step(vm(3, {0, 1}, boot={0, 1}), "unplug", "1")
    step.tell(step.settled(1, "done", online=False))
    assert step.of(ev.DoDel) == [ev.DoDel(1, "/machine/unattached/device[4]")]


def test_dump_is_json_at_every_moment() -> None:
    step = _unplug(threads=2)
    for event in (step.settled(1, "done", online=False), ev.AgentDown(_LOST), ev.AgentUp("s2", INFO), ev.Interrupted()):
        assert json.loads(json.dumps(step.machine.dump()))["operation"] == "unplug"
        step.tell(event)
    json.dumps(step.machine.dump())
