# SPDX-License-Identifier: Apache-2.0
"""How what the guest says changes what is known; the other half of ``transitions``.

What counts as a proof is in ``core.proof``; what follows from it for a job in ``verdicts``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .. import codes
from ..guest import CpuStatus, GuestCpu
from ..proof import is_at_rest, is_being_switched, no_slot_explains, unexplained
from ..reason import Outcome
from . import reasons, verdicts
from .events import CpuArrived, CpuSettled, GuestLooked, RequestEnded
from .online_requests import OnlineRequest
from .slot_job import Goal, Job
from .state import State
from .thread_evidence import ThreadEvidence


def observe(state: State, cpu: GuestCpu) -> None:
    """Take in how a guest CPU is."""
    entry = state.threads.get(cpu.firmware_id)
    if entry is None:
        return
    job, thread = entry
    if thread.present is not True and job.filled:
        job.done("arrival", state.now)
    refuted = thread.shown(cpu)
    if cpu.online:
        job.seen_down.forget()
    state.mark_dirty(job)
    if refuted is not None and refuted == state.session and job.open and job.goal is not Goal.UP:
        verdicts.came_back(state, job)


def arrived(state: State, event: CpuArrived) -> None:
    """Take in that the guest shows a CPU that was waited for."""
    _heard(state, event.cpu.firmware_id)
    observe(state, event.cpu)


def _heard(state: State, name: str) -> None:
    entry = state.threads.get(name)
    if entry is not None:
        entry[1].heard(state.now)


def guest_looked(state: State, event: GuestLooked) -> None:
    """Take in a list of all CPUs.

    What the agent said of a CPU since the list was asked for is newer; of one that ends a request, what it said of
    others than those that this very request was about.
    """
    asked_at = event.asked_at
    if asked_at is not None:
        state.guest_look_ended()
    newer = _newer(state, event)
    shown = {cpu.firmware_id: cpu for cpu in event.view.cpus}
    for cpu in event.view.cpus:
        if cpu.firmware_id not in newer:
            observe(state, cpu)
    foreign = unexplained(event.view.cpus, state.identities)
    if not foreign:
        session = state.session
        for name, (job, thread) in state.threads.items():
            if name not in shown and name not in newer and thread.proven_absent(session):
                state.mark_dirty(job)
    if asked_at is not None:
        _all_listed(state, shown, asked_at, newer, absence_proven=not foreign)
    nameless = any(not cpu.firmware_id for cpu in foreign)
    if asked_at is not None and nameless and any(_is_missed(job, shown) for job in state.open_jobs()):
        # It may get a name in a moment, and then it is known whether any is missing.
        state.look_at_guest_again(state.limits.retry_after)
    if any(cpu.firmware_id for cpu in foreign):
        # A name that no slot has stays so.
        for job in list(state.open_jobs()):
            _unproven(state, job, shown, foreign, overdue=asked_at is not None)


def _newer(state: State, event: GuestLooked) -> Collection[str]:
    request = state.request(event.request)
    since = event.asked_at if request is None else request.asked_at
    if since is None:
        return frozenset()
    of = event.request if request is not None else None
    told = ((name, thread) for name, (_, thread) in state.threads.items() if thread.heard_at > since)
    return frozenset(name for name, thread in told if of is None or thread.heard_of != of)


def _all_listed(
    state: State, shown: Mapping[str, GuestCpu], asked_at: float, newer: Collection[str], *, absence_proven: bool
) -> None:
    at_rest = is_at_rest(shown.values())
    for job in list(state.open_jobs()):
        if not any(thread.firmware_id in newer for thread in job.threads):
            _listed(state, job, shown, asked_at, absence_proven=absence_proven and (at_rest or job.goal is Goal.GONE))
    if any(_may_come(state, job, at_rest=at_rest) for job in state.open_jobs()):
        state.look_at_guest_again(state.limits.retry_after)
    if any(job.removal.relapses for job in state.removing()):
        # As long as it has not gone, it may come back once more.
        state.look_at_guest_again(state.limits.poll_first)


def _may_come(state: State, job: Job, *, at_rest: bool) -> bool:
    """Return whether the next list may show a CPU of the job that this one does not."""
    if job.goal is Goal.GONE:
        return state.now < verdicts.arrives_until(state, job)
    overdue = job.overdue_at is not None and state.now >= job.overdue_at
    return overdue and job.filled and not at_rest and not any(thread.present for thread in job.threads)


def _listed(state: State, job: Job, shown: Mapping[str, GuestCpu], asked_at: float, *, absence_proven: bool) -> None:
    """Take in what a list that was asked for shows of one job.

    That is all of it absent, or all of it offline and at rest.
    """
    found = [thread.firmware_id in shown for thread in job.threads]
    if any(is_being_switched(shown[thread.firmware_id]) for thread in job.threads if thread.firmware_id in shown):
        return
    if absence_proven and not any(found):
        job.listed_absent(asked_at)
        state.mark_dirty(job)
    if (absence_proven or all(found)) and job.guest_down(state.session):
        job.seen_down.shown(asked_at, state.now, state.limits.look_fresh)
        state.mark_dirty(job)


def _unproven(state: State, job: Job, shown: Collection[str], foreign: tuple[GuestCpu, ...], *, overdue: bool) -> None:
    """Take in that a CPU is missed while the guest shows one that no slot explains: it may be the same one."""
    missed = _missed(job, shown)
    if job.goal is not Goal.UP and any(thread.absent_in is not None for thread in missed):
        if len(missed) == len(job.threads) and not (job.anew or job.rolling_back):
            # The agent found none of them to switch, so there is nothing to bring back either.
            state.settle(job, Outcome.REFUSED, no_slot_explains(foreign))
        else:
            verdicts.cannot_go(state, job, no_slot_explains(foreign))
    elif job.goal is Goal.UP and job.filled and overdue and missed:
        state.settle(job, Outcome.UNKNOWN, no_slot_explains(foreign))


def _missed(job: Job, shown: Collection[str]) -> list[ThreadEvidence]:
    return [thread for thread in job.threads if thread.firmware_id not in shown]


def _is_missed(job: Job, shown: Collection[str]) -> bool:
    return job.goal is Goal.UP and job.filled and bool(_missed(job, shown))


def cpu_settled(state: State, event: CpuSettled) -> None:
    """Take in the agent's answer for one CPU of a request."""
    result = event.result
    entry = state.threads.get(result.firmware_id)
    if entry is None:
        return
    job, thread = entry
    thread.heard(state.now, event.request)
    request = state.request(event.request)
    if request is None:
        return  # nobody asks any more: what it says may be older than what is known
    if thread.of_another == event.request:
        # It was asked about the CPU that was in the slot before.
        state.request_answered(request, thread)
        state.mark_dirty(job)
        return
    if result.observed is not None and result.observed.firmware_id == thread.firmware_id:
        observe(state, result.observed)
    if result.firmware_id not in request.open_ids:
        return
    state.request_answered(request, thread)
    state.mark_dirty(job)
    if result.observed is not None:
        thread.switched(online=result.observed.online)
    elif result.status is CpuStatus.ABSENT:
        thread.missing()
    if not job.open:
        return
    job.took("online" if request.online else "offline", max(0.0, result.seconds))
    if request.online:
        _online_settled(state, job, thread, event)
    else:
        _offline_settled(state, job, thread, event, request)


def _online_settled(state: State, job: Job, thread: ThreadEvidence, event: CpuSettled) -> None:
    if job.goal is not Goal.UP or thread.online:
        return
    reason = event.result.reason or reasons.inconsistent(event.result)
    if thread.parked and reason.code == codes.SMT_OFF:
        return
    if event.result.status is CpuStatus.ABSENT:
        state.wait(job)
    elif not verdicts.retry(state, job, reason):
        verdicts.cannot_come(state, job, reason)


def _offline_settled(state: State, job: Job, thread: ThreadEvidence, event: CpuSettled, request: OnlineRequest) -> None:
    if job.goal is Goal.UP:
        return
    result = event.result
    if result.status is CpuStatus.ABSENT and result.observed is None:
        # Not yet a confirmation: the snapshot that ends the request must show that every CPU there is another one.
        thread.said_absent(state.session)
        state.wait(job)
        return
    if result.status in (CpuStatus.DONE, CpuStatus.ALREADY) and result.observed is not None and not thread.online:
        thread.confirmed_offline(state.session)
        if request.of == 1 == len(job.threads):
            # Of several, the first one's word is old when the last one's comes. The agent looked after the write.
            looked_at = min(request.asked_at + result.seconds, state.now)
            job.seen_down.shown(looked_at, state.now, state.limits.look_fresh)
        return
    reason = result.reason or reasons.inconsistent(result)
    if job.removal.sent:
        # QEMU was asked already, so the CPU may go all the same: what the agent says does not end that.
        state.wait(job)
    elif not verdicts.retry(state, job, reason):
        verdicts.cannot_go(state, job, reason)


def request_ended(state: State, event: RequestEnded) -> None:
    """Take in that the request is over: what it has not answered is unknown, and asked for again."""
    request = state.request_ended(event.request)
    if request is None or event.session != state.session:
        return
    asked = [state.threads[name] for name in request.open_ids if name in state.threads]
    # A CPU that turned out to have another identity is asked for by another request.
    asked = [(job, thread) for job, thread in asked if thread.request == event.request]
    for job, thread in asked:
        thread.answer_lost()
        state.mark_dirty(job)
    for job in {job.order: job for job, _ in asked}.values():
        if not job.open:
            continue
        if event.error is not None and event.error.code == codes.AGENT_REJECTED:
            (verdicts.cannot_come if request.online else verdicts.cannot_go)(state, job, event.error)
        elif not request.cancelled:
            state.wait(job)
