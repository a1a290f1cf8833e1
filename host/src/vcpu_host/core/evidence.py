# SPDX-License-Identifier: Apache-2.0
"""How each event changes what is known. Nothing is asked for here: an event is an observation, or a hint to look."""

from __future__ import annotations

from . import words
from .events import (
    Added,
    AgentDown,
    AgentUp,
    CpuArrived,
    CpuSettled,
    DelReturned,
    Event,
    GuestLooked,
    HostLooked,
    Interrupted,
    OstSeen,
    PathDeleted,
    PathUnplugRefused,
    QemuLost,
    RequestEnded,
    Restarted,
    StatusChanged,
    Tick,
)
from .job import Goal, Job, ThreadEvidence
from .model import CpuStatus, GuestCpu, GuestView, Outcome
from .plan import StepKind
from .state import State
from .view import SMT_PARKED


def feed(state: State, event: Event, now: float) -> None:  # noqa: C901 - one case an event is the clearest table
    """Take in one observation."""
    state.now = now
    match event:
        case HostLooked():
            _host_looked(state, event)
        case Added():
            _added(state, event)
        case DelReturned():
            _del_returned(state, event)
        case AgentUp():
            state.dialing = False
            state.trouble = None
            state.session = event.session
        case AgentDown():
            state.lose_agent(event.reason)
        case CpuArrived():
            if event.session == state.session:
                _observe(state, event.cpu)
        case CpuSettled():
            if event.session == state.session:
                _cpu_settled(state, event)
        case GuestLooked():
            if event.session == state.session:
                _guest_looked(state, event.view)
        case RequestEnded():
            _request_ended(state, event)
        case OstSeen():
            _ost_seen(state, event)
        case PathDeleted():
            state.look_soon()
        case PathUnplugRefused():
            _unplug_refused(state, event.path)
        case Restarted():
            _restarted(state)
        case StatusChanged():
            _status_changed(state, event.status)
        case QemuLost():
            state.end_all(event.reason)
        case Interrupted():
            state.end_all(words.interrupted())
        case Tick():
            pass


def _host_looked(state: State, event: HostLooked) -> None:
    state.looking = False
    for job in state.jobs:
        slot = event.view.slots[job.slot] if job.slot < len(event.view.slots) else None
        if slot is None or not job.open or job.adding:
            continue
        if job.added_at is not None and event.asked_at < job.added_at:
            continue  # the answer may be older than the plug
        if job.filled and not slot.filled:
            job.done("device_del", state.now)
            if job.step.kind is StepKind.UNPLUG:
                job.settle(Outcome.DONE)  # even on its way back: what was asked for came about
            elif job.goal is not Goal.GONE:
                job.settle(Outcome.FAILED, words.taken_away(job))
        job.filled = slot.filled
        job.path = slot.qom_path
        if job.goal is Goal.UP and job.filled and job.guest_up:
            state.reach(job)


def _added(state: State, event: Added) -> None:
    job = state.by_slot[event.slot]
    job.adding = False
    job.done("device_add", state.now)
    if event.error is not None:
        job.settle(Outcome.REFUSED, event.error)
        return
    job.filled = True
    job.added_at = state.now
    job.mark("arrival", state.now)
    if any(thread.present for thread in job.threads):
        job.done("arrival", state.now)  # the guest was quicker than the answer


def _del_returned(state: State, event: DelReturned) -> None:
    job = state.by_slot[event.slot]
    job.deleting = False
    state.look_soon()
    if event.error is None or not job.open:
        return
    if event.error.code == "device-not-found":
        return  # it went by itself; the look will tell
    state.cannot_go(job, event.error)


def _observe(state: State, cpu: GuestCpu) -> None:
    entry = state.threads.get(cpu.firmware_id)
    if entry is None:
        return
    job, thread = entry
    if thread.present is not True and job.filled:
        job.done("arrival", state.now)
    thread.present = True
    thread.number = cpu.number
    thread.online = cpu.online
    if cpu.online:
        thread.offline_in = None
    elif cpu.cannot_online is not None and cpu.cannot_online.code == SMT_PARKED:
        thread.parked = True


def _guest_looked(state: State, view: GuestView) -> None:
    for cpu in view.cpus:
        _observe(state, cpu)
    if any(not cpu.firmware_id for cpu in view.cpus):
        return  # one that cannot be told apart may be the one that is missed
    shown = {cpu.firmware_id for cpu in view.cpus}
    for _, thread in state.threads.values():
        if thread.absent_in is not None and thread.absent_in == state.session and thread.firmware_id not in shown:
            thread.offline_in = state.session


def _cpu_settled(state: State, event: CpuSettled) -> None:
    request = state.requests.get(event.request)
    entry = state.threads.get(event.result.firmware_id)
    if request is None or entry is None or event.result.firmware_id not in request.open_ids:
        return
    request.open_ids.discard(event.result.firmware_id)
    job, thread = entry
    observed = event.result.observed
    if observed is not None and observed.firmware_id == thread.firmware_id:
        _observe(state, observed)
    elif event.result.status is CpuStatus.ABSENT:
        thread.forget()
        thread.present = False
    if not job.open:
        return
    phase = "online" if request.online else "offline"
    job.phases[phase] = job.phases.get(phase, 0.0) + max(0.0, event.result.seconds)
    if request.online:
        _online_settled(state, job, thread, event)
    else:
        _offline_settled(state, job, thread, event)


def _online_settled(state: State, job: Job, thread: ThreadEvidence, event: CpuSettled) -> None:
    if job.goal is not Goal.UP:
        return
    if thread.online:
        _look_when_all_up(state)
        return
    reason = event.result.reason or words.inconsistent(event.result)
    if thread.parked and reason.code == SMT_PARKED:
        _look_when_all_up(state)
    elif event.result.status is CpuStatus.ABSENT:
        job.not_before = state.now + state.policy.retry_after
    elif not state.retry(job, reason):
        state.cannot_come(job, reason)


def _look_when_all_up(state: State) -> None:
    """QEMU's side is the other half of the proof; one look at the end serves all slots."""
    if all(job.guest_up for job in state.jobs if job.open and job.goal is Goal.UP):
        state.look_soon()


def _offline_settled(state: State, job: Job, thread: ThreadEvidence, event: CpuSettled) -> None:
    if job.goal is Goal.UP:
        return
    if event.result.status is CpuStatus.ABSENT:
        # Not yet a confirmation: the snapshot that ends the request must show that every CPU there is another one.
        thread.absent_in = state.session
        job.not_before = state.now + state.policy.retry_after
        return
    if thread.present and not thread.online and event.result.status is not CpuStatus.REFUSED:
        thread.offline_in = state.session
        thread.changed = thread.changed or event.result.status is CpuStatus.DONE
        return
    reason = event.result.reason or words.inconsistent(event.result)
    if not state.retry(job, reason):
        state.cannot_go(job, reason)


def _request_ended(state: State, event: RequestEnded) -> None:
    request = state.requests.pop(event.request, None)
    if request is None or event.session != state.session:
        return
    for job in state.jobs:
        if not job.open or not any(t.firmware_id in request.open_ids for t in job.threads):
            continue
        if event.error is not None and event.error.code == "agent-rejected":
            (state.cannot_come if request.online else state.cannot_go)(job, event.error)
        elif not request.cancelled:
            job.not_before = state.now + state.policy.retry_after


def _ost_seen(state: State, event: OstSeen) -> None:
    job = state.by_slot.get(event.slot)
    if job is None or not job.open:
        return
    if job.goal is Goal.GONE:
        state.look_soon()
    if state.platform.acknowledged(event.ost) and job.acknowledged_at is None:
        job.acknowledged_at = state.now
    refusal = state.platform.refusal(event.ost)
    if refusal is not None and job.goal is Goal.GONE and job.del_sent:
        state.cannot_go(job, refusal)


def _unplug_refused(state: State, path: str) -> None:
    state.look_soon()
    for job in state.jobs:
        if job.open and job.goal is Goal.GONE and job.del_sent and job.path == path:
            state.cannot_go(job, words.unplug_refused())


def _restarted(state: State) -> None:
    state.lose_agent(words.guest_restarted())
    for job in state.jobs:
        job.del_sent = False  # a reset loses or settles it, by platform: the next look tells
    state.look_soon()


def _status_changed(state: State, status: str) -> None:
    if status == "shutdown":
        state.end_all(words.shut_down())
    state.paused = status == "paused"
