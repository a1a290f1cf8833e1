# SPDX-License-Identifier: Apache-2.0
"""All that the state machine knows of one operation, and the verdicts that its parts share.

Every change of a job goes by ``mark_dirty`` (directly, or through a verdict). So the cost of deciding what to do next
depends on what has changed, and not on what there is: a guest with 4096 CPUs answers 4096 times.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..planning.plan import Plan, StepKind
from ..platforms import Platform
from ..reason import Outcome, Reason
from . import reasons
from .limits import Limits
from .slot_job import Goal, Job, ThreadEvidence

#: Stands for a session where nobody is asked (--without-agent): no confirmation is ever given in it, nor needed.
_NOBODY = "without agent"


@dataclass(slots=True)
class OnlineRequest:
    """A SetOnline under way: which CPUs it has not answered yet."""

    online: bool
    open_ids: set[str]
    asked_at: float
    cancelled: bool = False
    of: int = field(init=False)  # how many CPUs it was for

    def __post_init__(self) -> None:
        self.of = len(self.open_ids)


@dataclass(slots=True)
class GuestLook:
    """The look at the guest's list: wanted, or under way since ``asked_at``, or neither."""

    wanted: bool = False
    asked_at: float | None = None
    not_before: float = 0.0

    def due(self, now: float) -> bool:
        """Whether to ask now."""
        return self.wanted and self.asked_at is None and now >= self.not_before

    def asked(self, now: float) -> None:
        """It was asked for."""
        self.wanted, self.asked_at = False, now

    def again(self, again_at: float) -> None:
        """There was an answer that is not the last one needed, or there will be none: ask again then."""
        self.wanted, self.asked_at, self.not_before = True, None, again_at


@dataclass(slots=True)
class State:
    """One operation on one VM. Times are the machine's ``now``, in seconds; ``session`` is None without an agent."""

    plan: Plan
    platform: Platform
    limits: Limits
    session: str | None
    now: float
    #: The names of all slots' threads in the guest.
    identities: frozenset[str] = frozenset()
    began: float = field(init=False)
    deadline: float = field(init=False)
    jobs: list[Job] = field(init=False)
    by_slot: dict[int, Job] = field(init=False)
    threads: dict[str, tuple[Job, ThreadEvidence]] = field(init=False)
    # Orders of jobs: what is not settled; what is yet to be looked at; and, of the open ones, what waits for what.
    open: set[int] = field(init=False)
    dirty: set[int] = field(init=False)
    to_add: set[int] = field(default_factory=set)
    adding: set[int] = field(default_factory=set)  # device_add sent, and not answered
    coming_up: set[int] = field(default_factory=set)  # to come up
    awaiting_look: set[int] = field(default_factory=set)  # up by the guest's word: only a look at QEMU is missing
    ready_to_remove: set[int] = field(default_factory=set)  # the guest has let go: device_del is to be sent
    removing: set[int] = field(default_factory=set)  # device_del sent
    removing_unheard: set[int] = field(default_factory=set)  # of those, the ones that no event says to be gone
    last_plug: Job | None = None  # the plug that no other may overtake, where that matters
    timers: list[tuple[float, int]] = field(default_factory=list)
    dialing: bool = False
    redial_at: float = 0.0
    offlining_until: float = 0.0  # how long what is offline waits for what is still going offline
    hears_since: float = 0.0  # from when on the guest could have been heard, without a break
    requests: dict[int, OnlineRequest] = field(default_factory=dict)
    next_request: int = 1
    guest_look: GuestLook = field(default_factory=GuestLook)
    looking: bool = False
    look_wanted: bool = False
    looked_at: float = field(init=False)
    poll: float = field(init=False)
    next_look: float = field(init=False)
    cause: Reason | None = None  # what ended all of it
    trouble: Reason | None = None  # why there is no session
    paused: bool = False
    taken_back: bool = False

    def __post_init__(self) -> None:
        self.began = self.redial_at = self.hears_since = self.looked_at = self.now
        self.deadline = self.now + self.limits.timeout + self.limits.timeout_per_vcpu * self.plan.vcpus
        self.jobs = [Job.of(step, order) for order, step in enumerate(self.plan.steps)]
        if self.plan.request.without_agent:
            self.session = _NOBODY
            for job in self.jobs:
                job.by_firmware = self.platform.acknowledges
        self.by_slot = {job.slot: job for job in self.jobs}
        self.threads = {thread.firmware_id: (job, thread) for job in self.jobs for thread in job.threads}
        self.open = {job.order for job in self.jobs}
        self.dirty = set(self.open)
        self.poll = self.limits.poll_first
        self.next_look = self.now + self.limits.poll_idle

    @property
    def finished(self) -> bool:
        """Whether every job has ended."""
        return not self.open

    def open_jobs(self) -> Iterator[Job]:
        """What has not ended, in the plan's order."""
        return (self.jobs[order] for order in sorted(self.open))

    def mark_dirty(self, job: Job) -> None:
        """Something about the job changed: decide anew."""
        self.dirty.add(job.order)

    def mark_all_dirty(self) -> None:
        """Something changed that bears on every job."""
        self.dirty |= self.open

    def sort(self, job: Job) -> None:
        """Put the job where it belongs now."""
        up = job.open and job.goal is Goal.UP
        removing = job.open and job.goal is Goal.GONE and job.del_sent
        for group, belongs in (
            (self.coming_up, up),
            (self.to_add, up and not job.filled and not job.adding),
            (self.adding, job.adding),
            (self.awaiting_look, job.open and self.up_by_the_guest(job)),
            (self.ready_to_remove, job.may_be_deleted(self.session)),
            (self.removing, removing),
            (self.removing_unheard, removing and not job.removal_hinted),
        ):
            if belongs:
                group.add(job.order)
            else:
                group.discard(job.order)

    # --- what is proven (promise 1) -----------------------------------------------------------------------------------

    def up_by_the_guest(self, job: Job) -> bool:
        """Whether the guest shows the slot's CPUs as they are wanted, and no request under way will change that."""
        return job.goal is Goal.UP and job.filled and job.guest_up and not self.has_opposite_request(job, online=True)

    def proven_up(self, job: Job) -> bool:
        """Whether both sides show that the CPU is up: QEMU was asked after the plug."""
        return self.up_by_the_guest(job) and job.seen_by_qemu

    def proven_gone(self, job: Job) -> bool:
        """Whether QEMU shows that nothing is left of the CPU."""
        return job.goal is Goal.GONE and not job.filled and not job.adding

    def proven_down(self, job: Job) -> bool:
        """Whether the agent has shown, in this session, that every thread is offline."""
        return job.goal is Goal.DOWN and job.down(self.session) and not self.has_opposite_request(job, online=False)

    @property
    def asks_nobody(self) -> bool:
        """Whether there is no agent to be asked, because the user said so (--without-agent)."""
        return self.session == _NOBODY

    @property
    def offlining(self) -> bool:
        """Whether the guest is getting on with taking CPUs offline."""
        return self.now < self.offlining_until and any(
            not request.online and request.open_ids for request in self.requests.values()
        )

    def has_opposite_request(self, job: Job, *, online: bool) -> bool:
        """Whether the agent may still do the contrary to a thread of it: one that is cancelled is not over yet."""
        asked = (self.requests.get(thread.asked) for thread in job.threads if thread.asked is not None)
        return any(request is not None and request.online is not online for request in asked)

    def look_soon(self) -> None:
        """Something says that QEMU's side has changed."""
        self.look_wanted = True
        self.poll = self.limits.poll_first

    def look_by(self, when: float) -> None:
        """Look then at the latest."""
        self.next_look = min(self.next_look, max(when, self.now))

    def lose_agent(self, reason: Reason) -> None:
        """The session is over: what was said in it is void."""
        if self.session == _NOBODY:
            return
        self.session = None
        self.trouble = reason
        self.redial_at = self.now + self.limits.retry_after
        self.requests.clear()
        self.guest_look = GuestLook()
        for job in self.open_jobs():
            job.forget_guest()
        self.mark_all_dirty()

    def wait(self, job: Job) -> None:
        """Leave the job alone for a while."""
        job.not_before = self.now + self.limits.retry_after
        heapq.heappush(self.timers, (job.not_before, job.order))

    def retry(self, job: Job, reason: Reason) -> bool:
        """Whether the refusal may pass by itself, and is tried again."""
        if reason.code not in self.limits.retry_codes or job.retries >= self.limits.retries:
            return False
        job.retries += 1
        job.passing = reason
        self.wait(job)
        return True

    # --- verdicts -----------------------------------------------------------------------------------------------------

    def settle(self, job: Job, outcome: Outcome, reason: Reason | None = None) -> None:
        """The job ends."""
        job.outcome = outcome
        if reason is not None or outcome is Outcome.DONE:
            job.reason = reason
        self.open.discard(job.order)
        self.mark_dirty(job)

    def roll_back(self, job: Job, goal: Goal, outcome: Outcome, reason: Reason) -> None:
        """The job goes back to where it came from."""
        job.roll_back(goal, outcome, reason)
        job.outcome = None
        self.open.add(job.order)
        self.mark_dirty(job)

    def reach(self, job: Job) -> None:
        """The job is where it was to end, or half-way, if it is to be plugged anew."""
        if job.anew:
            job.is_out()
            self.mark_dirty(job)
        elif job.outcome_if_reached is Outcome.DONE:
            self.succeed(job)
        else:
            self.settle(job, job.outcome_if_reached)

    def succeed(self, job: Job) -> None:
        """What was asked for came about; where the proof has a gap, the reason says so."""
        if self.plan.request.without_agent:
            self.settle(job, Outcome.DONE, reasons.not_verified(filled=job.filled, by_firmware=job.by_firmware))
        else:
            up = job.goal is Goal.UP and job.filled
            self.settle(job, Outcome.DONE, reasons.parked(job, self.plan.smt_remedy) if up else reasons.slipped(job))

    def cannot_come(self, job: Job, reason: Reason) -> None:
        """The guest cannot bring the slot up: take it away again if we plugged it, else leave it as it was."""
        if job.goal is not Goal.UP:
            return
        if job.rolling_back:
            self.settle(job, Outcome.PARTIAL, reasons.not_taken_back(job, reason))
        elif job.adding or job.added_at is not None:
            self.roll_back(job, Goal.GONE, Outcome.FAILED, reason)
        elif job.step.kind is StepKind.ONLINE and job.touched:
            self.roll_back(job, Goal.DOWN, Outcome.FAILED, reason)
        else:
            self.settle(job, Outcome.REFUSED, reason)

    def came_back(self, job: Job) -> None:
        """Something in the guest has brought a CPU online again that the agent had taken offline."""
        job.relapses += 1
        job.seen_down.forget()
        if job.del_sent:
            job.slipped = True
        elif job.relapses > self.limits.relapses:
            self.cannot_go(job, reasons.came_back(job), Outcome.REFUSED)

    def cannot_go(self, job: Job, reason: Reason, ended: Outcome = Outcome.FAILED) -> None:
        """The slot cannot be given up: what was taken offline goes back online, and then it has ``ended`` so."""
        if job.goal is Goal.UP:
            return
        if job.anew:
            self.settle(job, Outcome.REFUSED, reasons.not_plugged_anew(job, reason))
        elif job.rolling_back:
            self.settle(job, Outcome.PARTIAL, reasons.not_taken_back(job, reason))
        elif job.touched:
            self.roll_back(job, Goal.UP, ended, reason)
        else:
            self.settle(job, Outcome.FAILED if job.del_sent else Outcome.REFUSED, reason)

    def give_up(self, job: Job, why: Reason) -> None:
        """No more is waited for: what was begun is unknown, and what was not is as it was."""
        if job.begun:
            self.settle(job, Outcome.UNKNOWN, why)
        else:
            self.settle(job, Outcome.REFUSED, reasons.not_begun(job, why))

    def end_all(self, reason: Reason) -> None:
        """Nothing more can be learnt."""
        self.cause = reason
        for job in self.open_jobs():
            self.give_up(job, reason)
