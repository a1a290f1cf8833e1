# SPDX-License-Identifier: Apache-2.0
"""The state machine of one operation on one VM: observations in, actions out, the time an argument.

Rules that hold whatever happens, in this order of weight:

1. A ``DoDel`` goes out only for a slot all of whose threads the agent confirmed offline in the present link session.
2. A job succeeds only on proof: the slot filled in QEMU *and* its threads online by identity, or the slot empty.
3. Every job ends: reached, refused, taken back, or, when the time is over, unknown.

The machine never waits and never acts: ``feed`` takes one event, ``advance`` says what to do now, ``wake_at`` when to
ask again if nothing happens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from . import words
from .events import (
    Action,
    Added,
    AgentDown,
    AgentUp,
    CpuArrived,
    CpuSettled,
    DelReturned,
    DoAdd,
    DoCancel,
    DoDel,
    DoDial,
    DoLookHost,
    DoSetOnline,
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
from .model import CpuStatus, GuestCpu, Outcome, Reason
from .plan import Plan, StepKind
from .platforms import Platform
from .policy import Policy
from .result import OperationResult, SlotResult, summarize
from .view import SMT_PARKED


@dataclass(slots=True)
class _Request:
    """A SetOnline under way: which CPUs it has not answered yet."""

    online: bool
    open_ids: set[str]
    cancelled: bool = False


class Machine:
    """See the module's words. ``session`` is the link session that the plan's view came through."""

    def __init__(self, plan: Plan, platform: Platform, policy: Policy, *, session: str | None, now: float) -> None:
        self._plan = plan
        self._platform = platform
        self._policy = policy
        self._jobs = [Job.of(step) for step in plan.steps]
        self._by_slot = {job.slot: job for job in self._jobs}
        self._threads = {t.firmware_id: (job, t) for job in self._jobs for t in job.threads}
        self._session = session
        self._dialing = False
        self._redial_at = now
        self._requests: dict[int, _Request] = {}
        self._next_request = 1
        self._looking = False
        self._look_wanted = False
        self._poll = policy.poll_first
        self._next_look = now + policy.poll_idle
        self._began = now
        self._now = now
        self._deadline = now + policy.timeout
        self._cause: Reason | None = None
        self._paused = False
        self._taken_back = False
        self._trouble: Reason | None = None

    # --- what the executor asks -------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether every job has ended."""
        return not any(job.open for job in self._jobs)

    @property
    def deadline(self) -> float:
        """When the operation's time is over, on the clock of ``now``."""
        return self._deadline

    @property
    def wake_at(self) -> float:
        """When to call ``advance`` again if no event comes, on the clock of ``now``."""
        times = [self._deadline] if self._looking else [self._deadline, self._next_look]
        times += [job.not_before for job in self._jobs if job.open and job.not_before > self._now]
        if self._session is None and not self._dialing:
            times.append(self._redial_at)
        return min(times)

    def result(self, now: float) -> OperationResult:
        """The result; call it once ``finished``."""
        slots = [job.result() for job in self._jobs]
        slots += [
            SlotResult(view.index, view.slot.device_id or "", Outcome.DONE, words.already(view))
            for view in self._plan.already
            if self._plan.request.selectors
        ]
        slots.sort(key=lambda slot: slot.slot)
        outcome = summarize(slot.outcome for slot in slots)
        return OperationResult(self._plan.request, outcome, tuple(slots), now - self._began, self._cause)

    def dump(self) -> dict[str, object]:
        """The whole state, for logs and bug reports."""
        return {
            "operation": str(self._plan.request.operation),
            "session": self._session,
            "requests": {
                str(number): {"online": r.online, "open": sorted(r.open_ids), "cancelled": r.cancelled}
                for number, r in self._requests.items()
            },
            "looking": self._looking,
            "paused": self._paused,
            "seconds_left": self._deadline - self._now,
            "jobs": [job.dump() for job in self._jobs],
        }

    # --- events: they change evidence, nothing else -------------------------------------------------------------------

    def feed(self, event: Event, now: float) -> None:  # noqa: C901 - one case an event is the clearest table
        """Take in one observation."""
        self._now = now
        match event:
            case HostLooked():
                self._host_looked(event)
            case Added():
                self._added(event)
            case DelReturned():
                self._del_returned(event)
            case AgentUp():
                self._dialing = False
                self._trouble = None
                self._session = event.session
            case AgentDown():
                self._agent_down(event.reason)
            case CpuArrived():
                if event.session == self._session:
                    self._observe(event.cpu)
            case CpuSettled():
                if event.session == self._session:
                    self._cpu_settled(event)
            case GuestLooked():
                if event.session == self._session:
                    for cpu in event.view.cpus:
                        self._observe(cpu)
            case RequestEnded():
                self._request_ended(event)
            case OstSeen():
                self._ost_seen(event)
            case PathDeleted():
                self._look_soon()
            case PathUnplugRefused():
                self._unplug_refused(event.path)
            case Restarted():
                self._restarted()
            case StatusChanged():
                self._status_changed(event.status)
            case QemuLost():
                self._end_all(event.reason)
            case Interrupted():
                self._end_all(words.interrupted())
            case Tick():
                pass

    def _host_looked(self, event: HostLooked) -> None:
        self._looking = False
        for job in self._jobs:
            slot = event.view.slots[job.slot] if job.slot < len(event.view.slots) else None
            if slot is None or not job.open or job.adding:
                continue
            if job.added_at is not None and event.asked_at < job.added_at:
                continue  # the answer may be older than the plug
            if job.filled and not slot.filled:
                job.done("device_del", self._now)
                if job.step.kind is StepKind.UNPLUG:
                    job.settle(Outcome.DONE)  # even on its way back: what was asked for came about
                elif job.goal is not Goal.GONE:
                    job.settle(Outcome.FAILED, words.taken_away(job))
            job.filled = slot.filled
            job.path = slot.qom_path
            if job.goal is Goal.UP and job.filled and job.guest_up:
                self._reach(job)

    def _added(self, event: Added) -> None:
        job = self._by_slot[event.slot]
        job.adding = False
        job.done("device_add", self._now)
        if event.error is not None:
            job.settle(Outcome.REFUSED, event.error)
            return
        job.filled = True
        job.added_at = self._now
        job.mark("arrival", self._now)
        if any(thread.present for thread in job.threads):
            job.done("arrival", self._now)  # the guest was quicker than the answer

    def _del_returned(self, event: DelReturned) -> None:
        job = self._by_slot[event.slot]
        job.deleting = False
        self._look_soon()
        if event.error is None or not job.open:
            return
        if event.error.code == "device-not-found":
            return  # it went by itself; the look will tell
        self._cannot_go(job, event.error)

    def _agent_down(self, reason: Reason) -> None:
        self._session = None
        self._dialing = False
        self._trouble = reason
        self._redial_at = self._now + self._policy.retry_after
        self._requests.clear()
        for job in self._jobs:
            if job.open:
                job.forget_guest()

    def _observe(self, cpu: GuestCpu) -> None:
        entry = self._threads.get(cpu.firmware_id)
        if entry is None:
            return
        job, thread = entry
        if thread.present is not True and job.filled:
            job.done("arrival", self._now)
        thread.present = True
        thread.number = cpu.number
        thread.online = cpu.online
        if cpu.online:
            thread.offline_in = None
        elif cpu.cannot_online is not None and cpu.cannot_online.code == SMT_PARKED:
            thread.parked = True

    def _cpu_settled(self, event: CpuSettled) -> None:
        request = self._requests.get(event.request)
        entry = self._threads.get(event.result.firmware_id)
        if request is None or entry is None or event.result.firmware_id not in request.open_ids:
            return
        request.open_ids.discard(event.result.firmware_id)
        job, thread = entry
        observed = event.result.observed
        if observed is not None and observed.firmware_id == thread.firmware_id:
            self._observe(observed)
        elif event.result.status is CpuStatus.ABSENT:
            thread.forget()
            thread.present = False
        if not job.open:
            return
        phase = "online" if request.online else "offline"
        job.phases[phase] = job.phases.get(phase, 0.0) + max(0.0, event.result.seconds)
        if request.online:
            self._online_settled(job, thread, event)
        else:
            self._offline_settled(job, thread, event)

    def _online_settled(self, job: Job, thread: ThreadEvidence, event: CpuSettled) -> None:
        if job.goal is not Goal.UP:
            return
        if thread.online:
            if job.guest_up:
                self._look_soon()
            return
        reason = event.result.reason or words.inconsistent(event.result)
        if thread.parked and reason.code == SMT_PARKED:
            self._look_soon()
        elif event.result.status is CpuStatus.ABSENT:
            job.not_before = self._now + self._policy.retry_after
        elif not self._retry(job, reason):
            self._cannot_come(job, reason)

    def _offline_settled(self, job: Job, thread: ThreadEvidence, event: CpuSettled) -> None:
        if job.goal is Goal.UP:
            return
        gone = event.result.status is CpuStatus.ABSENT
        if gone or (thread.present and not thread.online and event.result.status is not CpuStatus.REFUSED):
            thread.offline_in = self._session
            thread.changed = thread.changed or event.result.status is CpuStatus.DONE
            return
        reason = event.result.reason or words.inconsistent(event.result)
        if not self._retry(job, reason):
            self._cannot_go(job, reason)

    def _request_ended(self, event: RequestEnded) -> None:
        request = self._requests.pop(event.request, None)
        if request is None or event.session != self._session:
            return
        for job in self._jobs:
            if not job.open or not any(t.firmware_id in request.open_ids for t in job.threads):
                continue
            if event.error is not None and event.error.code == "agent-rejected":
                (self._cannot_come if request.online else self._cannot_go)(job, event.error)
            elif not request.cancelled:
                job.not_before = self._now + self._policy.retry_after

    def _ost_seen(self, event: OstSeen) -> None:
        job = self._by_slot.get(event.slot)
        if job is None or not job.open:
            return
        self._look_soon()
        if self._platform.acknowledged(event.ost) and job.acknowledged_at is None:
            job.acknowledged_at = self._now
        refusal = self._platform.refusal(event.ost)
        if refusal is not None and job.goal is Goal.GONE and job.del_sent:
            self._cannot_go(job, refusal)

    def _unplug_refused(self, path: str) -> None:
        self._look_soon()
        for job in self._jobs:
            if job.open and job.goal is Goal.GONE and job.del_sent and job.path == path:
                self._cannot_go(job, words.unplug_refused())

    def _restarted(self) -> None:
        self._agent_down(words.guest_restarted())
        for job in self._jobs:
            job.del_sent = False  # a reset loses or settles it, by platform: the next look tells
        self._look_soon()

    def _status_changed(self, status: str) -> None:
        if status == "shutdown":
            self._end_all(words.shut_down())
        self._paused = status == "paused"

    # --- verdicts -----------------------------------------------------------------------------------------------------

    def _retry(self, job: Job, reason: Reason) -> bool:
        if reason.code not in self._policy.retry_codes or job.retries >= self._policy.retries:
            return False
        job.retries += 1
        job.not_before = self._now + self._policy.retry_after
        return True

    def _reach(self, job: Job) -> None:
        job.settle(job.outcome_if_reached)

    def _cannot_come(self, job: Job, reason: Reason) -> None:
        """The guest cannot bring the slot up: take it away again if we plugged it, else leave it as it was."""
        if job.goal is not Goal.UP:
            return
        if job.turned:
            job.settle(Outcome.FAILED, words.not_taken_back(job, reason))
        elif job.step.kind is StepKind.PLUG:
            job.turn(Goal.GONE, Outcome.FAILED, reason)
        else:
            job.settle(Outcome.REFUSED, reason)

    def _cannot_go(self, job: Job, reason: Reason) -> None:
        """The slot cannot be given up: what was taken offline goes back online."""
        if job.goal is Goal.UP:
            return
        if job.turned:
            job.settle(Outcome.FAILED, words.not_taken_back(job, reason))
            return
        outcome = Outcome.FAILED if job.del_sent else Outcome.REFUSED
        if any(thread.changed for thread in job.threads):
            job.turn(Goal.UP, outcome, reason)
        else:
            job.settle(outcome, reason)

    def _end_all(self, reason: Reason) -> None:
        self._cause = reason
        for job in self._jobs:
            if job.open:
                job.settle(Outcome.UNKNOWN, reason)

    def _look_soon(self) -> None:
        self._look_wanted = True
        self._poll = self._policy.poll_first

    # --- what to do now ---------------------------------------------------------------------------------------------

    def advance(self, now: float) -> list[Action]:
        """The actions that are due; each is given once."""
        self._now = now
        self._settle_due()
        actions: list[Action] = []
        if not self.finished:
            actions += self._cancels()
            actions += self._wanted_requests()
            actions += self._adds()
            actions += self._dels()
            actions += self._dials()
            actions += self._looks()
        return actions

    def _settle_due(self) -> None:
        for job in self._jobs:
            if not job.open:
                continue
            gone = job.goal is Goal.GONE and not job.filled
            if gone or (job.goal is Goal.DOWN and job.guest_down(self._session)):
                self._reach(job)
            elif job.goal is Goal.UP and job.acknowledged_at is not None and self._overdue(job):
                self._cannot_come(job, words.guest_ignored(job))
        if self.finished and self._policy.atomic and not self._taken_back:
            self._take_back()
        if self._now >= self._deadline:
            for job in self._jobs:
                if job.open:
                    job.settle(Outcome.UNKNOWN, words.timed_out(job, self._trouble, paused=self._paused))

    def _overdue(self, job: Job) -> bool:
        if job.acknowledged_at is None or any(t.present for t in job.threads) or self._session is None or self._paused:
            return False
        return self._now >= job.acknowledged_at + self._policy.arrival_grace

    def _take_back(self) -> None:
        """--atomic: what came about is taken back, since not all of it did."""
        self._taken_back = True
        if all(job.outcome is Outcome.DONE for job in self._jobs) or any(
            job.outcome is Outcome.UNKNOWN for job in self._jobs
        ):
            return
        for job in self._jobs:
            if job.outcome is Outcome.DONE:
                job.outcome = None
                job.forget_guest()
                undo = {StepKind.PLUG: Goal.GONE, StepKind.ONLINE: Goal.DOWN}.get(job.step.kind, Goal.UP)
                job.turn(undo, Outcome.FAILED, words.atomic())

    def _cancels(self) -> Iterable[Action]:
        for number, request in self._requests.items():
            if request.cancelled:
                continue
            wanted = [self._wants(*self._threads[i]) is request.online for i in request.open_ids]
            if wanted and not all(wanted):
                request.cancelled = True
                yield DoCancel(number)

    def _wants(self, job: Job, thread: ThreadEvidence) -> bool | None:
        """Whether the thread is wanted online (True), offline (False), or as it is (None)."""
        if not job.open:
            return None
        if job.goal is Goal.UP:
            return None if thread.online or (thread.parked and job.guest_up) else True
        return None if self._session is not None and thread.offline_in == self._session else False

    def _wanted_requests(self) -> Iterable[Action]:
        if self._session is None:
            return
        under_way = {i for request in self._requests.values() for i in request.open_ids}
        for online in (True, False):
            ids = tuple(
                thread.firmware_id
                for job in self._jobs
                for thread in job.threads
                if self._wants(job, thread) is online
                and thread.firmware_id not in under_way
                and job.not_before <= self._now
            )
            if not ids:
                continue
            number = self._next_request
            self._next_request += 1
            self._requests[number] = _Request(online, set(ids))
            yield DoSetOnline(number, ids, online, wait=online)

    def _adds(self) -> Iterable[Action]:
        """One plug at a time until the guest has seen it: firmware with SMM loses plugs that overtake each other."""
        for job in self._jobs:
            if job.adding or (job.open and job.goal is Goal.UP and job.added_at is not None and not job.seen):
                return
        for job in self._jobs:
            if job.open and job.goal is Goal.UP and not job.filled and job.not_before <= self._now:
                job.adding = True
                job.acknowledged_at = None
                job.mark("device_add", self._now)
                yield DoAdd(job.slot, job.step.device_id)
                return

    def _dels(self) -> Iterable[Action]:
        for job in self._jobs:
            if job.open and job.goal is Goal.GONE and job.filled and not job.del_sent and job.guest_down(self._session):
                job.deleting = job.del_sent = True
                job.mark("device_del", self._now)
                self._poll = self._policy.poll_first
                yield DoDel(job.slot, self._target(job))

    def _target(self, job: Job) -> str:
        slot = job.step.slot
        if slot.device_id is None and job.path is not None:
            return job.path
        return job.step.device_id

    def _dials(self) -> Iterable[Action]:
        if self._session is None and not self._dialing and self._now >= self._redial_at:
            self._dialing = True
            yield DoDial()

    def _looks(self) -> Iterable[Action]:
        if self._looking or not (self._look_wanted or self._now >= self._next_look):
            return
        waiting = any(job.open and job.del_sent for job in self._jobs)
        if waiting:
            self._next_look = self._now + self._poll
            self._poll = min(self._poll * 2, self._policy.poll_most)
        else:
            self._next_look = self._now + self._policy.poll_idle
        self._look_wanted = False
        self._looking = True
        yield DoLookHost()
