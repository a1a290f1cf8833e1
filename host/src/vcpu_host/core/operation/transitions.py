# SPDX-License-Identifier: Apache-2.0
"""How each event changes what is known. Nothing is asked for here: an event is an observation, or a hint to look.

What the guest says is in ``guest_evidence``.
"""

from __future__ import annotations

from .. import codes
from ..model import Slot
from ..planning.plan import StepKind
from ..reason import Outcome
from ..run_states import not_running
from . import guest_transitions, reasons
from .events import (
    AgentDown,
    AgentUp,
    CpuArrived,
    CpuSettled,
    DeviceDeleted,
    Event,
    GuestLooked,
    GuestLookFailed,
    HostLooked,
    Interrupted,
    OstReported,
    PlugReturned,
    QemuGone,
    RequestEnded,
    Tick,
    UnplugRefused,
    UnplugReturned,
    VmReset,
    VmStatus,
)
from .slot_job import Goal, Job
from .state import State


def feed(state: State, event: Event, now: float) -> None:  # noqa: C901 - one case an event is the clearest table
    """Take in one observation."""
    state.now = now
    match event:
        case HostLooked():
            _host_looked(state, event)
        case PlugReturned():
            _added(state, event)
        case UnplugReturned():
            _del_returned(state, event)
        case AgentUp():
            guest_transitions.agent_up(state, event)
        case AgentDown():
            state.dialing = False
            state.lose_agent(event.reason)
        case CpuArrived():
            if event.session == state.session:
                guest_transitions.arrived(state, event)
        case CpuSettled():
            if event.session == state.session:
                guest_transitions.cpu_settled(state, event)
        case GuestLooked():
            if event.session == state.session:
                guest_transitions.guest_looked(state, event)
        case GuestLookFailed():
            if event.session == state.session:
                state.guest_look.again(state.now + state.limits.retry_after)
        case RequestEnded():
            guest_transitions.request_ended(state, event)
        case OstReported():
            _ost_seen(state, event)
        case DeviceDeleted():
            _device_deleted(state, event)
        case UnplugRefused():
            _unplug_refused(state, event)
        case VmReset():
            _restarted(state)
        case VmStatus():
            _status_changed(state, event.status)
        case QemuGone():
            state.end_all(event.reason)
        case Interrupted():
            state.end_all(reasons.interrupted())
        case Tick():
            pass


def _host_looked(state: State, event: HostLooked) -> None:
    state.looking = False
    if event.view.status in ("running", "paused"):
        _paused(state, paused=event.view.status == "paused")
    if event.view.status == "postmigrate":
        state.end_all(not_running(event.view))
    renames = state.platform.numbers_plugs(event.view)
    for job in state.open_jobs():
        slot = event.view.slots[job.slot] if job.slot < len(event.view.slots) else None
        if slot is None or job.adding:
            continue
        if job.added_since_look:
            continue  # the answer may be older than the plug
        if job.removal_hinted:
            job.removal_hinted = False
            state.mark_dirty(job)  # it is one of those again of which nothing is heard
        before, job.ending = job.ending, slot if slot.leaving else None
        if job.ending is not None:
            # QEMU is not through with it: neither a CPU that is there nor an empty slot. Mostly that lasts a moment.
            if before is None:
                state.poll = state.limits.poll_first
                state.look_by(state.now + state.poll)
            continue
        job.seen_by_qemu = slot.filled
        if renames and slot.filled:
            _take_name(state, job, state.platform.firmware_ids(event.view, slot))
        if job.filled is slot.filled and job.order not in state.awaiting_look:
            continue
        _slot_shown(state, job, slot)


def _take_name(state: State, job: Job, names: tuple[str, ...]) -> None:
    """The CPU has another identity than was expected, since a plug before it failed, or another client plugged one."""
    if not job.threads or len(names) != len(job.threads) or names == tuple(t.firmware_id for t in job.threads):
        return
    for thread in job.threads:
        known = state.threads.get(thread.firmware_id)
        if known is not None and known[1] is thread:
            del state.threads[thread.firmware_id]
    for thread, name in zip(job.threads, names, strict=True):
        thread.forget()
        thread.firmware_id = name
        state.threads[name] = (job, thread)
    job.absent_at = None
    job.seen_down.forget()
    state.guest_look.wanted = True
    state.mark_dirty(job)


def _slot_shown(state: State, job: Job, slot: Slot) -> None:
    state.mark_dirty(job)
    was_filled, job.filled = job.filled, slot.filled
    if was_filled and not slot.filled:
        job.done("device_del", state.now)
        if job.step.kind is StepKind.UNPLUG:
            state.succeed(job)  # even on its way back: what was asked for came about
        elif job.goal is not Goal.GONE:
            state.settle(job, Outcome.FAILED, reasons.taken_away(job))
    if job.open and state.proven_up(job):
        state.reach(job)


def _added(state: State, event: PlugReturned) -> None:
    job = state.by_slot[event.slot]
    job.adding = False
    state.adding.discard(job.order)
    job.done("device_add", state.now)
    state.mark_dirty(job)
    if not state.to_add and not state.adding:
        state.look_soon()  # QEMU's half of the proof, while the guest is at work on its own
    if event.error is None:
        job.filled = True
        job.added_at = state.now
        job.added_since_look = True
        job.seen_by_qemu = False
        job.mark("arrival", state.now)
        if any(thread.present for thread in job.threads):
            job.done("arrival", state.now)  # the guest was quicker than the answer
    elif job.open and job.rolling_back and job.goal is Goal.UP:
        state.settle(job, Outcome.PARTIAL, reasons.not_taken_back(job, event.error))
    elif job.open:
        state.settle(job, Outcome.REFUSED, event.error)


def _del_returned(state: State, event: UnplugReturned) -> None:
    job = state.by_slot[event.slot]
    job.deleting = False
    state.mark_dirty(job)
    if event.error is None or event.error.code == codes.UNPLUGGING:  # asked for, now or before
        state.poll = state.limits.poll_first
        state.look_by(state.now + state.poll)
        # What has come back before may do so in this very moment: see whether it does.
        state.guest_look.wanted = state.guest_look.wanted or job.relapses > 0
        return
    state.look_soon()
    if not job.open:
        return
    if event.error.code == codes.DEVICE_NOT_FOUND:
        # It went by itself, or another has taken its place: the look tells, and it is asked for again if need be.
        job.del_in = None
        state.wait(job)
        return
    state.cannot_go(job, event.error)


def _ost_seen(state: State, event: OstReported) -> None:
    job = state.by_slot.get(event.slot)
    if job is None or not job.open:
        return
    if state.platform.acknowledged(event.ost):
        if job.acknowledged_at is None and job.added_at is None and not job.adding:
            return  # of a plug that was not ours
        if job.acknowledged_at is None:
            job.acknowledged_at = state.now
            job.done("arrival", state.now)
            state.mark_dirty(job)
        return
    if job.goal is not Goal.GONE or not job.del_sent:
        return
    refusal = state.platform.refusal(event.ost)
    if refusal is not None:
        state.look_soon()
        state.cannot_go(job, refusal)
        return
    job.del_at = state.now
    state.mark_dirty(job)
    if state.platform.ejected(event.ost):
        _hint(state, job)


def _device_deleted(state: State, event: DeviceDeleted) -> None:
    """Something of the slot's is gone: the CPU, or what is below it, which under TCG is all that is ever reported."""
    job = None if event.slot is None else state.by_slot.get(event.slot)
    if job is not None and job.open:
        _hint(state, job)


def _hint(state: State, job: Job) -> None:
    """One of ours seems to be gone. One look tells of many: it waits a little while more are to follow."""
    job.removal_hinted = True
    state.removing_unheard.discard(job.order)
    if not state.removing_unheard:
        state.look_soon()
    else:
        state.look_by(state.looked_at + state.limits.poll_most)


def _unplug_refused(state: State, event: UnplugRefused) -> None:
    state.look_soon()
    job = state.by_slot.get(event.slot)
    if job is not None and job.open and job.goal is Goal.GONE and job.del_sent:
        state.cannot_go(job, reasons.unplug_refused())


def _restarted(state: State) -> None:
    # A reset loses or settles a pending removal, by platform: the next look tells, the next session asks again.
    state.lose_agent(reasons.guest_restarted())
    state.look_soon()


def _status_changed(state: State, status: str) -> None:
    if status == "shutdown":
        state.end_all(reasons.shut_down())
    else:
        _paused(state, paused=status == "paused")


def _paused(state: State, *, paused: bool) -> None:
    if state.paused and not paused:
        state.hears_since = state.now
        state.mark_all_dirty()
    state.paused = paused
