# SPDX-License-Identifier: Apache-2.0
"""How each event changes what is known. Nothing is asked for here: an event is an observation, or a hint to look.

What the guest says is in ``guest_transitions``.
"""

from __future__ import annotations

from .. import codes
from ..model import HostView
from ..planning.plan import StepKind
from ..reason import Outcome
from ..run_states import is_over, not_running
from . import guest_transitions, reasons, verdicts
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
    state.tick(now)
    match event:
        case HostLooked():
            _host_looked(state, event)
        case PlugReturned():
            _added(state, event)
        case UnplugReturned():
            _del_returned(state, event)
        case AgentUp():
            state.session_began(event.session)
        case AgentDown():
            state.session_ended(event.reason)
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
                state.look_at_guest_again(state.limits.retry_after)
        case RequestEnded():
            guest_transitions.request_ended(state, event)
        case OstReported():
            _ost_seen(state, event)
        case DeviceDeleted():
            _device_deleted(state, event)
        case UnplugRefused():
            _unplug_refused(state, event)
        case VmReset():
            state.guest_restarted()
        case VmStatus():
            _status_changed(state, event.status)
        case QemuGone():
            verdicts.end_all(state, event.reason)
        case Interrupted():
            verdicts.end_all(state, reasons.interrupted())
        case Tick():
            pass


def _host_looked(state: State, event: HostLooked) -> None:
    state.look_ended()
    state.run_state_shown(reasons.standing_still(event.view))
    _slots_shown(state, event.view)
    if is_over(event.view.status):
        verdicts.no_more_comes(state, not_running(event.view))


def _slots_shown(state: State, view: HostView) -> None:
    renames = state.platform.numbers_plugs(view)
    for job in state.open_jobs():
        slot = view.slots[job.slot] if job.slot < len(view.slots) else None
        if slot is None or job.plug.unanswered or job.plug.since_look:
            continue  # the answer may be older than the plug
        if job.removal.told_gone:
            state.mark_dirty(job)  # it is one of those again of which nothing is heard
        was_filled, was_ending = job.filled, job.removal.ending is not None
        job.shown(slot)
        if job.removal.ending is not None:
            # QEMU is not through with it: neither a CPU that is there nor an empty slot. Mostly that lasts a moment.
            if not was_ending:
                state.look_for_removals()
            continue
        if renames and slot.filled:
            state.names_shown(job, state.platform.firmware_ids(view, slot))
        if job.filled is not was_filled or state.awaits_look(job):
            _slot_shown(state, job, emptied=was_filled and not job.filled)


def _slot_shown(state: State, job: Job, *, emptied: bool) -> None:
    state.mark_dirty(job)
    if emptied:
        job.done("device_del", state.now)
        if job.step.kind is StepKind.UNPLUG:
            verdicts.succeed(state, job)  # even on its way back: what was asked for came about
        elif job.goal is not Goal.GONE:
            state.settle(job, Outcome.FAILED, reasons.taken_away(job))
    if job.open and verdicts.proven_up(state, job):
        verdicts.reach(state, job)


def _added(state: State, event: PlugReturned) -> None:
    job = state.by_slot[event.slot]
    state.plug_answered(job)
    if not event.sent:
        return
    if event.error is None:
        job.plugged(state.now)
    elif job.open and job.rolling_back and job.goal is Goal.UP:
        state.settle(job, Outcome.PARTIAL, reasons.not_taken_back(job, event.error))
    elif job.open:
        state.settle(job, Outcome.REFUSED, event.error)


def _del_returned(state: State, event: UnplugReturned) -> None:
    job = state.by_slot[event.slot]
    state.mark_dirty(job)
    if not event.sent:
        if job.removal.held_up():
            state.wait(job)  # whatever is in the way is not gone in a moment
        return
    job.removal.answered()
    if event.error is None or event.error.code == codes.UNPLUGGING:  # asked for, now or before
        job.removal.accepted()
        state.look_for_removals()
        if job.removal.relapses > 0 or not any(state.ready_to_remove()):
            state.look_at_guest()  # what brings CPUs online may have done so in this very moment: then it is told
        return
    state.look_soon()
    if not job.open:
        return
    if event.error.code == codes.DEVICE_NOT_FOUND:
        # It went by itself, or another has taken its place: the look tells, and it is asked for again if need be.
        job.removal.came_to_nothing()
        state.wait(job)
        return
    if job.removal.taken:
        state.wait(job)  # it was asked once more, and the first request stands: the refusal says nothing of that
        return
    verdicts.cannot_go(state, job, event.error)


def _ost_seen(state: State, event: OstReported) -> None:
    job = state.by_slot.get(event.slot)
    if job is None or not job.open:
        return
    if state.platform.acknowledged(event.ost):
        if job.plug.acknowledged(state.now, filled=job.filled):
            job.done("arrival", state.now)
            state.mark_dirty(job)
        return
    if job.goal is not Goal.GONE or not job.removal.sent:
        return
    refusal = state.platform.refusal(event.ost)
    if refusal is not None:
        state.look_soon()
        verdicts.cannot_go(state, job, refusal)
        return
    job.removal.in_progress(state.now)
    state.mark_dirty(job)
    if state.platform.ejected(event.ost):
        state.removal_hinted(job)


def _device_deleted(state: State, event: DeviceDeleted) -> None:
    """Take in that something of the slot's is gone: the CPU, or what is below it.

    Under KVM both are reported, one after the other. On x86 under TCG the CPU itself is not (10.0), or late (11.1).
    """
    job = None if event.slot is None else state.by_slot.get(event.slot)
    if job is not None and job.open:
        state.removal_hinted(job)


def _unplug_refused(state: State, event: UnplugRefused) -> None:
    state.look_soon()
    job = state.by_slot.get(event.slot)
    if job is not None and job.open and job.goal is Goal.GONE and job.removal.sent:
        verdicts.cannot_go(state, job, reasons.unplug_refused())


def _status_changed(state: State, status: str) -> None:
    if status == "shutdown":
        verdicts.end_all(state, reasons.shut_down())
    elif status == "running":
        state.run_state_shown(None)
    else:
        state.run_state_shown(state.standstill or reasons.stopped())
        state.look_soon()  # why it stands still, and whether it ever goes on, only QEMU's state tells
