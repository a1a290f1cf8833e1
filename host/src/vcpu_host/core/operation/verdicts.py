# SPDX-License-Identifier: Apache-2.0
"""What is proven of a job, and how it ends or goes back.

The machine and both modules of transitions judge by these functions alone. ``State.settle`` and ``State.roll_back``
carry out what they decide.
"""

from __future__ import annotations

from ..owner import record_alone
from ..planning.plan import StepKind
from ..reason import Outcome, Reason
from . import reasons
from .slot_job import Goal, Job
from .state import State

# --- what is proven (promise 1) ---------------------------------------------------------------------------------------


def proven(state: State, job: Job) -> bool:
    """Return whether the job is where it was to end."""
    return proven_up(state, job) or proven_gone(job) or proven_down(state, job)


def proven_up(state: State, job: Job) -> bool:
    """Return whether both sides show that the CPU is up: QEMU was asked after the plug."""
    return state.up_by_the_guest(job) and job.plug.seen_by_qemu


def proven_gone(job: Job) -> bool:
    """Return whether QEMU shows that nothing is left of the CPU."""
    return job.goal is Goal.GONE and not job.filled and not job.plug.unanswered


def proven_down(state: State, job: Job) -> bool:
    """Return whether the agent has shown, in this session, that every thread is offline."""
    return job.goal is Goal.DOWN and job.down(state.session) and not state.has_opposite_request(job, online=False)


def arrives_until(state: State, job: Job) -> float:
    """Return until when a CPU that an earlier operation plugged may yet come up in the guest, as far as is known."""
    if state.asks_nobody or not job.step.arriving or any(thread.present for thread in job.threads):
        return state.began
    return max(job.plug.acknowledged_at or state.began, state.hears_since) + state.limits.arrival_grace


# --- how a job ends ---------------------------------------------------------------------------------------------------


def reach(state: State, job: Job) -> None:
    """Settle the job, which is where it was to end; or go on, if it is half-way, as it is to be plugged anew."""
    if job.anew:
        job.is_out(state.now)
        state.mark_dirty(job)
    elif job.outcome_if_reached is Outcome.DONE:
        succeed(state, job)
    else:
        state.settle(job, job.outcome_if_reached)


def succeed(state: State, job: Job) -> None:
    """End the job well: what was asked for came about; where the proof has a gap, the reason says so."""
    if state.plan.request.without_agent:
        state.settle(job, Outcome.DONE, reasons.not_verified(filled=job.filled, by_firmware=job.by_firmware))
    else:
        up = job.goal is Goal.UP and job.filled
        reason = reasons.parked(job, state.plan.smt_remedy) if up else reasons.gap(job)
        if reason is None and state.plan.record_alone:
            reason = record_alone()
        state.settle(job, Outcome.DONE, reason)


def retry(state: State, job: Job, reason: Reason) -> bool:
    """Return whether the refusal may pass by itself, and is tried again."""
    if reason.code not in state.limits.retry_codes or job.retries >= state.limits.retries:
        return False
    job.refused_for_now(reason)
    state.wait(job)
    return True


def cannot_come(state: State, job: Job, reason: Reason) -> None:
    """Take the slot away again, if we plugged it, else leave it as it was: the guest cannot bring it up."""
    if job.goal is not Goal.UP:
        return
    if job.rolling_back:
        state.settle(job, Outcome.PARTIAL, reasons.not_taken_back(job, reason))
    elif job.plug.ours:
        state.roll_back(job, Goal.GONE, Outcome.FAILED, reason)
    elif job.step.kind is StepKind.ONLINE and job.touched:
        state.roll_back(job, Goal.DOWN, Outcome.FAILED, reason)
    else:
        state.settle(job, Outcome.REFUSED, reason)


def came_back(state: State, job: Job) -> None:
    """Take that something in the guest has brought a CPU online again that the agent had taken offline."""
    job.came_back()
    if not job.removal.sent and job.removal.relapses > state.limits.relapses:
        cannot_go(state, job, reasons.came_back(job), Outcome.REFUSED)


def cannot_go(state: State, job: Job, reason: Reason, ended: Outcome = Outcome.FAILED) -> None:
    """Bring back online what was taken offline: the slot cannot be given up. Then it has ``ended`` so."""
    if job.goal is Goal.UP:
        return
    if job.anew:
        state.settle(job, Outcome.REFUSED, reasons.not_plugged_anew(job, reason))
    elif job.rolling_back:
        state.settle(job, Outcome.PARTIAL, reasons.not_taken_back(job, reason))
    elif job.touched:
        state.roll_back(job, Goal.UP, ended, reason)
    else:
        state.settle(job, Outcome.FAILED if job.removal.sent else Outcome.REFUSED, reason)


def give_up(state: State, job: Job, why: Reason) -> None:
    """Wait no more: what was begun is unknown, and what was not is as it was."""
    if job.begun:
        state.settle(job, Outcome.UNKNOWN, why)
    else:
        state.settle(job, Outcome.REFUSED, reasons.not_begun(job, why))


def no_more_comes(state: State, reason: Reason) -> None:
    """Take that the guest will not go on. What has come about all the same is told as that."""
    for job in list(state.open_jobs()):
        if proven(state, job):
            reach(state, job)
    end_all(state, reason)


def end_all(state: State, reason: Reason) -> None:
    """End all: nothing more can be learnt."""
    state.end_comes(reason)
    for job in state.open_jobs():
        give_up(state, job, reason)
