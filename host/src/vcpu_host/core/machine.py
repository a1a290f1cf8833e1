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

from . import evidence, words
from .events import Action, DoAdd, DoCancel, DoDel, DoDial, DoLookHost, DoSetOnline, Event
from .job import Goal, Job, ThreadEvidence
from .model import Outcome
from .plan import Plan, StepKind
from .platforms import Platform
from .policy import Policy
from .result import OperationResult, SlotResult, summarize
from .state import OnlineRequest, State


class Machine:
    """See the module's words. ``session`` is the link session that the plan's view came through."""

    def __init__(self, plan: Plan, platform: Platform, policy: Policy, *, session: str | None, now: float) -> None:
        self._state = State(plan, platform, policy, session, now)

    # --- what the executor asks -------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether every job has ended."""
        return self._state.finished

    @property
    def deadline(self) -> float:
        """When the operation's time is over, on the clock of ``now``."""
        return self._state.deadline

    @property
    def wake_at(self) -> float:
        """When to call ``advance`` again if no event comes, on the clock of ``now``."""
        times = [self._state.deadline] if self._state.looking else [self._state.deadline, self._state.next_look]
        times += [job.not_before for job in self._state.jobs if job.open and job.not_before > self._state.now]
        if self._state.session is None and not self._state.dialing:
            times.append(self._state.redial_at)
        return min(times)

    def result(self, now: float) -> OperationResult:
        """The result; call it once ``finished``."""
        slots = [job.result() for job in self._state.jobs]
        slots += [
            SlotResult(view.index, view.slot.device_id or "", Outcome.DONE, words.already(view))
            for view in self._state.plan.already
            if self._state.plan.request.selectors
        ]
        slots.sort(key=lambda slot: slot.slot)
        outcome = summarize(slot.outcome for slot in slots)
        return OperationResult(
            self._state.plan.request, outcome, tuple(slots), now - self._state.began, self._state.cause
        )

    def progress(self) -> tuple[int, int, str]:
        """How many slots are settled, of how many, and what the first open one waits for, in words."""
        waiting = next((job for job in self._state.jobs if job.open), None)
        text = ""
        if waiting is not None:
            text = words.timed_out(waiting, self._state.trouble, paused=self._state.paused).code.replace("-", " ")
            text = f"slot {waiting.slot}: {text}"
        return sum(not job.open for job in self._state.jobs), len(self._state.jobs), text

    def dump(self) -> dict[str, object]:
        """The whole state, for logs and bug reports."""
        return {
            "operation": str(self._state.plan.request.operation),
            "session": self._state.session,
            "requests": {
                str(number): {"online": r.online, "open": sorted(r.open_ids), "cancelled": r.cancelled}
                for number, r in self._state.requests.items()
            },
            "looking": self._state.looking,
            "paused": self._state.paused,
            "seconds_left": self._state.deadline - self._state.now,
            "jobs": [job.dump() for job in self._state.jobs],
        }

    def feed(self, event: Event, now: float) -> None:
        """Take in one observation."""
        evidence.feed(self._state, event, now)

    # --- what to do now -----------------------------------------------------------------------------------------------

    def advance(self, now: float) -> list[Action]:
        """The actions that are due; each is given once."""
        self._state.now = now
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
        for job in self._state.jobs:
            if not job.open:
                continue
            gone = job.goal is Goal.GONE and not job.filled
            if gone or (job.goal is Goal.DOWN and job.guest_down(self._state.session)):
                self._state.reach(job)
            elif job.goal is Goal.UP and job.acknowledged_at is not None and self._overdue(job):
                self._state.cannot_come(job, words.guest_ignored(job))
        if self.finished and self._state.policy.atomic and not self._state.taken_back:
            self._take_back()
        if self._state.now >= self._state.deadline:
            for job in self._state.jobs:
                if job.open:
                    job.settle(Outcome.UNKNOWN, words.timed_out(job, self._state.trouble, paused=self._state.paused))

    def _overdue(self, job: Job) -> bool:
        if (
            job.acknowledged_at is None
            or any(t.present for t in job.threads)
            or self._state.session is None
            or self._state.paused
        ):
            return False
        return self._state.now >= job.acknowledged_at + self._state.policy.arrival_grace

    def _take_back(self) -> None:
        """--atomic: what came about is taken back, since not all of it did."""
        self._state.taken_back = True
        if all(job.outcome is Outcome.DONE for job in self._state.jobs) or any(
            job.outcome is Outcome.UNKNOWN for job in self._state.jobs
        ):
            return
        for job in self._state.jobs:
            if job.outcome is Outcome.DONE:
                job.outcome = None
                job.forget_guest()
                undo = {StepKind.PLUG: Goal.GONE, StepKind.ONLINE: Goal.DOWN}.get(job.step.kind, Goal.UP)
                job.turn(undo, Outcome.FAILED, words.atomic())

    def _cancels(self) -> Iterable[Action]:
        for number, request in self._state.requests.items():
            if request.cancelled:
                continue
            wanted = [self._wants(*self._state.threads[i]) is request.online for i in request.open_ids]
            if wanted and not all(wanted):
                request.cancelled = True
                yield DoCancel(number)

    def _wants(self, job: Job, thread: ThreadEvidence) -> bool | None:
        """Whether the thread is wanted online (True), offline (False), or as it is (None)."""
        if not job.open:
            return None
        if job.goal is Goal.UP:
            return None if thread.online or (thread.parked and job.guest_up) else True
        return None if self._state.session is not None and thread.offline_in == self._state.session else False

    def _wanted_requests(self) -> Iterable[Action]:
        if self._state.session is None:
            return
        under_way = {i for request in self._state.requests.values() for i in request.open_ids}
        for online in (True, False):
            ids = tuple(
                thread.firmware_id
                for job in self._state.jobs
                for thread in job.threads
                if self._wants(job, thread) is online
                and thread.firmware_id not in under_way
                and job.not_before <= self._state.now
            )
            if not ids:
                continue
            number = self._state.next_request
            self._state.next_request += 1
            self._state.requests[number] = OnlineRequest(online, set(ids))
            yield DoSetOnline(number, ids, online, wait=online)

    def _adds(self) -> Iterable[Action]:
        """One plug at a time until the guest has seen it: firmware with SMM loses plugs that overtake each other."""
        for job in self._state.jobs:
            if job.adding or (job.open and job.goal is Goal.UP and job.added_at is not None and not job.seen):
                return
        for job in self._state.jobs:
            if job.open and job.goal is Goal.UP and not job.filled and job.not_before <= self._state.now:
                job.adding = True
                job.acknowledged_at = None
                job.mark("device_add", self._state.now)
                yield DoAdd(job.slot, job.step.device_id)
                return

    def _dels(self) -> Iterable[Action]:
        for job in self._state.jobs:
            if (
                job.open
                and job.goal is Goal.GONE
                and job.filled
                and not job.del_sent
                and job.guest_down(self._state.session)
            ):
                job.deleting = job.del_sent = True
                job.mark("device_del", self._state.now)
                self._state.poll = self._state.policy.poll_first
                yield DoDel(job.slot, self._target(job))

    def _target(self, job: Job) -> str:
        slot = job.step.slot
        if slot.device_id is None and job.path is not None:
            return job.path
        return job.step.device_id

    def _dials(self) -> Iterable[Action]:
        if self._state.session is None and not self._state.dialing and self._state.now >= self._state.redial_at:
            self._state.dialing = True
            yield DoDial()

    def _looks(self) -> Iterable[Action]:
        if self._state.looking or not (self._state.look_wanted or self._state.now >= self._state.next_look):
            return
        waiting = any(job.open and job.del_sent for job in self._state.jobs)
        if waiting:
            self._state.next_look = self._state.now + self._state.poll
            self._state.poll = min(self._state.poll * 2, self._state.policy.poll_most)
        else:
            self._state.next_look = self._state.now + self._state.policy.poll_idle
        self._state.look_wanted = False
        self._state.looking = True
        yield DoLookHost()
