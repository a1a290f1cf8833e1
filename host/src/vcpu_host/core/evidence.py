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
from .model import PERIPHERAL, CpuStatus, GuestCpu, GuestView, Outcome, Slot
from .plan import StepKind
from .run_states import not_running
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
            _agent_up(state, event)
        case AgentDown():
            state.dialing = False
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
            _path_deleted(state, event.path)
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


def _agent_up(state: State, event: AgentUp) -> None:
    if state.session is not None:
        state.lose_agent(words.guest_restarted())  # that it ended was not told
    state.dialing = False
    state.trouble = None
    state.session = event.session
    state.hears_since = state.now
    state.touch_all()


def _host_looked(state: State, event: HostLooked) -> None:
    state.looking = False
    if event.view.status in ("running", "paused"):
        _paused(state, paused=event.view.status == "paused")
    if event.view.status == "postmigrate":
        state.end_all(not_running(event.view))
    for job in state.open_jobs():
        slot = event.view.slots[job.slot] if job.slot < len(event.view.slots) else None
        if slot is None or job.adding:
            continue
        if job.added_since_look:
            continue  # the answer may be older than the plug
        job.hinted = False
        before, job.ending = job.ending, slot if slot.leaving else None
        if job.ending is not None:
            # QEMU is not through with it: neither a CPU that is there nor an empty slot. Mostly that lasts a moment.
            if before is None:
                state.poll = state.policy.poll_first
                state.look_by(state.now + state.poll)
            continue
        job.shown = slot.filled
        if job.filled is slot.filled and job.path == slot.qom_path and job.order not in state.ripe:
            continue
        _slot_shown(state, job, slot)


def _slot_shown(state: State, job: Job, slot: Slot) -> None:
    state.touch(job)
    was_filled, job.filled = job.filled, slot.filled
    job.path = slot.qom_path
    if was_filled and not slot.filled:
        job.done("device_del", state.now)
        if job.step.kind is StepKind.UNPLUG:
            state.succeed(job)  # even on its way back: what was asked for came about
        elif job.goal is not Goal.GONE:
            state.settle(job, Outcome.FAILED, words.taken_away(job))
    if job.open and job.goal is Goal.UP and job.filled and job.guest_up and not state.contested(job, online=True):
        state.reach(job)


def _added(state: State, event: Added) -> None:
    job = state.by_slot[event.slot]
    job.adding = False
    state.adding.discard(job.order)
    job.done("device_add", state.now)
    state.touch(job)
    if not state.to_add and not state.adding:
        state.look_soon()  # QEMU's half of the proof, while the guest is at work on its own
    if event.error is None:
        job.filled = True
        job.path = PERIPHERAL + job.device_id
        job.added_at = state.now
        job.added_since_look = True
        job.shown = False
        job.mark("arrival", state.now)
        if any(thread.present for thread in job.threads):
            job.done("arrival", state.now)  # the guest was quicker than the answer
    elif job.open and job.turned and job.goal is Goal.UP:
        state.settle(job, Outcome.PARTIAL, words.not_taken_back(job, event.error))
    elif job.open:
        state.settle(job, Outcome.REFUSED, event.error)


def _del_returned(state: State, event: DelReturned) -> None:
    job = state.by_slot[event.slot]
    job.deleting = False
    state.touch(job)
    if event.error is None or event.error.code == "unplugging":  # asked for, now or before
        state.poll = state.policy.poll_first
        state.look_by(state.now + state.poll)
        return
    state.look_soon()
    if not job.open:
        return
    if event.error.code == "device-not-found":
        # It went by itself, or another has taken its place: the look tells, and it is asked for again if need be.
        job.del_in = None
        state.wait(job)
        return
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
    thread.parked = not cpu.online and cpu.cannot_online is not None and cpu.cannot_online.code == SMT_PARKED
    if cpu.online:
        thread.offline_in = None
    state.touch(job)


def _guest_looked(state: State, view: GuestView) -> None:
    for cpu in view.cpus:
        _observe(state, cpu)
    if any(not cpu.firmware_id for cpu in view.cpus):
        return  # one that cannot be told apart may be the one that is missed
    shown = {cpu.firmware_id for cpu in view.cpus}
    for name, (job, thread) in state.threads.items():
        if name in shown:
            continue
        if thread.absent_in is not None and thread.absent_in == state.session:
            thread.offline_in = state.session
            state.touch(job)
        if thread.present:
            thread.present = thread.online = thread.parked = False
            state.touch(job)


def _cpu_settled(state: State, event: CpuSettled) -> None:
    result = event.result
    entry = state.threads.get(result.firmware_id)
    if entry is None:
        return
    job, thread = entry
    request = state.requests.get(event.request)
    if request is None:
        return  # nobody asks any more: what it says may be older than what is known
    if result.observed is not None and result.observed.firmware_id == thread.firmware_id:
        _observe(state, result.observed)
    if result.firmware_id not in request.open_ids:
        return
    # The agent works on one CPU after another: while it gets on, those whose turn has not come are not overdue.
    state.hears_since = state.now
    state.letting_go_until = state.now + state.policy.let_go_grace
    request.open_ids.discard(result.firmware_id)
    thread.asked = None
    state.touch(job)
    if result.observed is not None:
        thread.touched = result.observed.online is not thread.was_online
    elif result.status is CpuStatus.ABSENT:
        thread.present = thread.online = thread.parked = False
        thread.offline_in = None
    if not job.open:
        return
    phase = "online" if request.online else "offline"
    job.phases[phase] = job.phases.get(phase, 0.0) + max(0.0, result.seconds)
    if request.online:
        _online_settled(state, job, thread, event)
    else:
        _offline_settled(state, job, thread, event)


def _online_settled(state: State, job: Job, thread: ThreadEvidence, event: CpuSettled) -> None:
    if job.goal is not Goal.UP or thread.online:
        return
    reason = event.result.reason or words.inconsistent(event.result)
    if thread.parked and reason.code == SMT_PARKED:
        return
    if event.result.status is CpuStatus.ABSENT:
        state.wait(job)
    elif not state.retry(job, reason):
        state.cannot_come(job, reason)


def _offline_settled(state: State, job: Job, thread: ThreadEvidence, event: CpuSettled) -> None:
    if job.goal is Goal.UP:
        return
    result = event.result
    if result.status is CpuStatus.ABSENT and result.observed is None:
        # Not yet a confirmation: the snapshot that ends the request must show that every CPU there is another one.
        thread.absent_in = state.session
        state.wait(job)
        return
    if result.status in (CpuStatus.DONE, CpuStatus.ALREADY) and result.observed is not None and not thread.online:
        thread.offline_in = state.session
        return
    reason = result.reason or words.inconsistent(result)
    if not state.retry(job, reason):
        state.cannot_go(job, reason)


def _request_ended(state: State, event: RequestEnded) -> None:
    request = state.requests.pop(event.request, None)
    if request is None or event.session != state.session:
        return
    for name in request.open_ids:
        job, thread = state.threads[name]
        thread.asked = None
        # It may have been switched, and the answer was not told: what was known of it is not any more.
        thread.online = thread.parked = False
        thread.offline_in = None
        state.touch(job)
    for job in {state.threads[name][0].order: state.threads[name][0] for name in request.open_ids}.values():
        if not job.open:
            continue
        if event.error is not None and event.error.code == "agent-rejected":
            (state.cannot_come if request.online else state.cannot_go)(job, event.error)
        elif not request.cancelled:
            state.wait(job)


def _ost_seen(state: State, event: OstSeen) -> None:
    job = state.by_slot.get(event.slot)
    if job is None or not job.open:
        return
    if state.platform.acknowledged(event.ost):
        if job.acknowledged_at is None and job.added_at is None and not job.adding:
            return  # of a plug that was not ours
        if job.acknowledged_at is None:
            job.acknowledged_at = state.now
            job.done("arrival", state.now)
            state.touch(job)
        return
    if job.goal is not Goal.GONE or not job.del_sent:
        return
    refusal = state.platform.refusal(event.ost)
    if refusal is not None:
        state.look_soon()
        state.cannot_go(job, refusal)
        return
    job.del_at = state.now
    state.touch(job)
    if state.platform.ejected(event.ost):
        _hint(state, job)


def _path_deleted(state: State, path: str) -> None:
    """Something is gone: the CPU, or what is below it, which under TCG is all that is ever reported."""
    for job in state.open_jobs():
        if job.path is not None and f"{path}/".startswith(f"{job.path}/"):
            _hint(state, job)


def _hint(state: State, job: Job) -> None:
    """One of ours seems to be gone. One look tells of many: it waits a little while more are to follow."""
    job.hinted = True
    if all(state.jobs[order].hinted for order in state.removing):
        state.look_soon()
    else:
        state.look_by(state.looked_at + state.policy.poll_most)


def _unplug_refused(state: State, path: str) -> None:
    state.look_soon()
    for job in state.open_jobs():
        if job.goal is Goal.GONE and job.del_sent and job.path == path:
            state.cannot_go(job, words.unplug_refused())


def _restarted(state: State) -> None:
    # A reset loses or settles a pending removal, by platform: the next look tells, the next session asks again.
    state.lose_agent(words.guest_restarted())
    state.look_soon()


def _status_changed(state: State, status: str) -> None:
    if status == "shutdown":
        state.end_all(words.shut_down())
    else:
        _paused(state, paused=status == "paused")


def _paused(state: State, *, paused: bool) -> None:
    if state.paused and not paused:
        state.hears_since = state.now
        state.touch_all()
    state.paused = paused
