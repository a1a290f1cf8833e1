# SPDX-License-Identifier: Apache-2.0
"""All that the state machine knows of one operation, and the verdicts that its parts share."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import words
from .job import Goal, Job, ThreadEvidence
from .model import Outcome, Reason
from .plan import Plan, StepKind
from .platforms import Platform
from .policy import Policy


@dataclass(slots=True)
class OnlineRequest:
    """A SetOnline under way: which CPUs it has not answered yet."""

    online: bool
    open_ids: set[str]
    cancelled: bool = False


@dataclass(slots=True)
class State:
    """One operation on one VM. Times are the machine's ``now``, in seconds; ``session`` is None without an agent."""

    plan: Plan
    platform: Platform
    policy: Policy
    session: str | None
    now: float
    began: float = field(init=False)
    deadline: float = field(init=False)
    jobs: list[Job] = field(init=False)
    by_slot: dict[int, Job] = field(init=False)
    threads: dict[str, tuple[Job, ThreadEvidence]] = field(init=False)
    dialing: bool = False
    redial_at: float = 0.0
    requests: dict[int, OnlineRequest] = field(default_factory=dict)
    next_request: int = 1
    looking: bool = False
    look_wanted: bool = False
    poll: float = field(init=False)
    next_look: float = field(init=False)
    cause: Reason | None = None  # what ended all of it
    trouble: Reason | None = None  # why there is no session
    paused: bool = False
    taken_back: bool = False

    def __post_init__(self) -> None:
        self.began = self.redial_at = self.now
        self.deadline = self.now + self.policy.timeout
        self.jobs = [Job.of(step) for step in self.plan.steps]
        self.by_slot = {job.slot: job for job in self.jobs}
        self.threads = {thread.firmware_id: (job, thread) for job in self.jobs for thread in job.threads}
        self.poll = self.policy.poll_first
        self.next_look = self.now + self.policy.poll_idle

    @property
    def finished(self) -> bool:
        """Whether every job has ended."""
        return not any(job.open for job in self.jobs)

    def look_soon(self) -> None:
        """Something says that QEMU's side may have changed."""
        self.look_wanted = True
        self.poll = self.policy.poll_first

    def lose_agent(self, reason: Reason) -> None:
        """The session is over: what was said in it is void."""
        self.session = None
        self.dialing = False
        self.trouble = reason
        self.redial_at = self.now + self.policy.retry_after
        self.requests.clear()
        for job in self.jobs:
            if job.open:
                job.forget_guest()

    def retry(self, job: Job, reason: Reason) -> bool:
        """Whether the refusal may pass by itself, and is tried again."""
        if reason.code not in self.policy.retry_codes or job.retries >= self.policy.retries:
            return False
        job.retries += 1
        job.not_before = self.now + self.policy.retry_after
        return True

    def reach(self, job: Job) -> None:
        """The job is where it was to end."""
        job.settle(job.outcome_if_reached)

    def cannot_come(self, job: Job, reason: Reason) -> None:
        """The guest cannot bring the slot up: take it away again if we plugged it, else leave it as it was."""
        if job.goal is not Goal.UP:
            return
        if job.turned:
            job.settle(Outcome.FAILED, words.not_taken_back(job, reason))
        elif job.step.kind is StepKind.PLUG:
            job.turn(Goal.GONE, Outcome.FAILED, reason)
        else:
            job.settle(Outcome.REFUSED, reason)

    def cannot_go(self, job: Job, reason: Reason) -> None:
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

    def end_all(self, reason: Reason) -> None:
        """Nothing more can be learnt: what is open is unknown."""
        self.cause = reason
        for job in self.jobs:
            if job.open:
                job.settle(Outcome.UNKNOWN, reason)
