# SPDX-License-Identifier: Apache-2.0
"""All that the state machine knows of one operation.

``State`` owns its rules: a method named after what happened takes it in, and nobody else writes what is known. The
looks, the session, the requests, the groups of jobs and the threads' names are a value each, in modules of their own.
A job is one too (``slot_job``). What concerns one job alone, the job or a part of it takes in itself.

Every change of a job goes by ``mark_dirty`` (directly, or through another method). So the cost of deciding what to do
next depends on what has changed, and not on what there is: a guest with 4096 CPUs answers 4096 times.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ..planning.plan import Plan
from ..platforms import Platform
from ..reason import Outcome, Reason
from . import reasons
from .limits import Limits
from .looks import GuestLook, HostLook
from .online_requests import OnlineRequest, OnlineRequests
from .session import Session
from .slot_job import Goal, Job
from .thread_evidence import ThreadEvidence
from .thread_names import ThreadNames
from .under_way import UnderWay


class State:
    """One operation on one VM. Times are the machine's ``now``, in seconds.

    ``session`` is the link session that the plan's view came through, None without an agent. ``identities`` are the
    names of all slots' threads in the guest. ``jobs`` are in the plan's order; ``threads`` goes by firmware identity.
    """

    def __init__(
        self,
        plan: Plan,
        platform: Platform,
        limits: Limits,
        *,
        session: str | None,
        now: float,
        identities: frozenset[str],
    ) -> None:
        self.plan: Final = plan
        self.platform: Final = platform
        self.limits: Final = limits
        self.identities: Final = identities
        self.began: Final = now
        self.deadline: Final = now + limits.timeout + limits.timeout_per_vcpu * plan.vcpus
        by_firmware = plan.request.without_agent and platform.acknowledges
        jobs = tuple(Job.of(step, order, by_firmware=by_firmware) for order, step in enumerate(plan.steps))
        self.jobs: Final = jobs
        self.by_slot: Final[Mapping[int, Job]] = {job.slot: job for job in jobs}
        self._names = ThreadNames(jobs)
        self.threads: Final[Mapping[str, tuple[Job, ThreadEvidence]]] = self._names.by_name
        self._now = now
        self._open = {job.order for job in jobs}  # not settled
        self._dirty = set(self._open)  # to be decided anew
        self._timers: list[tuple[float, int]] = []  # when to decide a job anew, though nothing has happened
        self._under_way = UnderWay(jobs)
        self._session = Session(session, now, without_agent=plan.request.without_agent)
        self._requests = OnlineRequests(limits.let_go_grace)
        self._host_look = HostLook(limits, now)
        self._guest_look = GuestLook()
        self._cause: Reason | None = None
        self._standstill: Reason | None = None

    def names_shown(self, job: Job, names: tuple[str, ...]) -> None:
        """Take that QEMU shows the identities of the job's CPU."""
        if self._names.shown(job, names):
            self.look_at_guest()
            self.mark_dirty(job)

    # --- time, and what is to be decided ------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """The time of the last event, or of the last decision."""
        return self._now

    def tick(self, now: float) -> None:
        """Take that it is ``now``."""
        self._now = now

    @property
    def wake_at(self) -> float:
        """When something is to be done although nothing happens."""
        times = [self.deadline]
        if self._timers:
            times.append(self._timers[0][0])
        if self._under_way.some_ready_to_remove and self.offlining:
            times.append(self._requests.offlining_until)
        looks = [self._host_look.next_at, None if self._session.name is None else self._guest_look.next_at]
        times += [at for at in (*looks, self._session.dial_at) if at is not None]
        return min(times)

    @property
    def finished(self) -> bool:
        """Whether every job has ended."""
        return not self._open

    @property
    def open_count(self) -> int:
        """How many jobs have not ended."""
        return len(self._open)

    def open_jobs(self) -> Iterator[Job]:
        """Return what has not ended, in the plan's order."""
        return (self.jobs[order] for order in sorted(self._open))

    def mark_dirty(self, job: Job) -> None:
        """Decide anew: something about the job changed."""
        self._dirty.add(job.order)

    def mark_all_dirty(self) -> None:
        """Decide anew on every job: something changed that bears on all of them."""
        self._dirty |= self._open

    def take_dirty(self) -> list[Job]:
        """Return the jobs to be decided anew, in the plan's order; each is given once. Timers that ran count."""
        while self._timers and self._timers[0][0] <= self._now:
            self._dirty.add(heapq.heappop(self._timers)[1])
        dirty, self._dirty = sorted(self._dirty), set()
        return [self.jobs[order] for order in dirty]

    def sort(self, job: Job) -> None:
        """Put the job into the groups where it belongs now."""
        self._under_way.sort(job, self._session.name, up_by_the_guest=job.open and self.up_by_the_guest(job))

    def wait(self, job: Job) -> None:
        """Leave the job alone for a while."""
        job.left_alone(self._now + self.limits.retry_after)
        heapq.heappush(self._timers, (job.not_before, job.order))

    def overdue_from(self, job: Job, overdue_at: float) -> bool:
        """Decide anew when what the job waits for is overdue. Return whether that is another time than was known."""
        if another := job.waits_until(overdue_at):
            heapq.heappush(self._timers, (overdue_at, job.order))
        return another

    # --- the link session ---------------------------------------------------------------------------------------------

    @property
    def session(self) -> str | None:
        """The link session with the agent, by its name; None while there is none."""
        return self._session.name

    @property
    def asks_nobody(self) -> bool:
        """Whether there is no agent to be asked, because the user said so (--without-agent)."""
        return self._session.asks_nobody

    @property
    def trouble(self) -> Reason | None:
        """Why there is no session."""
        return self._session.trouble

    @property
    def hears_since(self) -> float:
        """From when on the guest could have been heard, without a break."""
        return self._session.hears_since

    @property
    def dial_due(self) -> bool:
        """Whether a session is to be made now."""
        dial_at = self._session.dial_at
        return dial_at is not None and self._now >= dial_at

    def dialed(self) -> None:
        """Take that a session is being made."""
        self._session.dialed()

    def session_began(self, name: str) -> None:
        """Take that a session was made."""
        if self.session is not None:
            self._lose_agent(reasons.guest_restarted())  # that it ended was not told
        self._session.began(name, self._now)
        self.mark_all_dirty()

    def session_ended(self, why: Reason) -> None:
        """Take that the session ended, or could not be made."""
        self._session.dial_ended()
        self._lose_agent(why)

    def guest_restarted(self) -> None:
        """Take that the guest starts anew, which loses or settles a pending removal, by platform: a look tells."""
        self._lose_agent(reasons.guest_restarted())
        self.look_soon()

    def _lose_agent(self, why: Reason) -> None:
        """Forget what was said in the session, which is over: it is void."""
        if self.asks_nobody:
            return
        self._session.lost(why, self._now + self.limits.retry_after)
        self._requests.forget()
        self._guest_look = GuestLook()
        for job in self.open_jobs():
            job.forget_guest()
        self.mark_all_dirty()

    @property
    def standstill(self) -> Reason | None:
        """Why the VM's CPUs stand still; None while they run."""
        return self._standstill

    def run_state_shown(self, standstill: Reason | None) -> None:
        """Take that the VM stands still, or runs: what the guest owes is due only while it can be heard."""
        if self._standstill is not None and standstill is None:
            self._session.hears_anew(self._now)
            self.mark_all_dirty()
        self._standstill = standstill

    # --- requests to the agent ----------------------------------------------------------------------------------------

    def request(self, number: int | None) -> OnlineRequest | None:
        """Return the request of this number if it is under way."""
        return self._requests.get(number)

    def request_sent(self, threads: Sequence[ThreadEvidence], *, online: bool) -> int:
        """Take that a request to switch these threads goes out; return its number."""
        return self._requests.sent(threads, self._now, online=online)

    def request_answered(self, request: OnlineRequest, thread: ThreadEvidence) -> None:
        """Take that the agent's answer for one thread of a request came.

        The agent works on one CPU after another: while it gets on, those whose turn has not come are not overdue.
        """
        self._session.hears_anew(self._now)
        self._requests.answered(request, thread, self._now)

    def request_ended(self, number: int) -> OnlineRequest | None:
        """Take that a request is over; return it, if it was still under way."""
        return self._requests.ended(number)

    @property
    def offlining(self) -> bool:
        """Whether the guest is getting on with taking CPUs offline."""
        return self._requests.offlining(self._now)

    def has_opposite_request(self, job: Job, *, online: bool) -> bool:
        """Return whether the agent may yet do the contrary to a thread of it, by a request that is cancelled, too."""
        return self._requests.has_opposite(job, online=online)

    def up_by_the_guest(self, job: Job) -> bool:
        """Return whether the guest shows the slot's CPUs as wanted, and no request under way will change that."""
        return job.goal is Goal.UP and job.filled and job.guest_up and not self.has_opposite_request(job, online=True)

    # --- plugs and removals -------------------------------------------------------------------------------------------

    @property
    def none_plugged(self) -> bool:
        """Whether no device_add was sent yet."""
        return self._under_way.none_plugged

    @property
    def next_plug_waits(self) -> bool:
        """Whether the next plug has to wait until the guest has taken notice of the one before it."""
        return self._under_way.next_plug_waits

    def ready_to_plug(self) -> Iterator[Job]:
        """Return the jobs whose device_add may be sent now, in the plan's order."""
        return self._under_way.ready_to_plug(self._now)

    def plug_asked(self, job: Job) -> None:
        """Take that device_add goes out for the job."""
        self._under_way.plug_asked(job)
        job.plug_asked(self._now)

    def plug_answered(self, job: Job) -> None:
        """Take that QEMU has answered the job's device_add."""
        self._under_way.plug_answered(job)
        job.plug_answered(self._now)
        self.mark_dirty(job)
        if self._under_way.all_plugs_answered:
            self.look_soon()  # QEMU's half of the proof, while the guest is at work on its own

    def ready_to_remove(self) -> Iterator[Job]:
        """Return the jobs whose device_del is allowed and does not wait for a retry, in the plan's order."""
        return self._under_way.ready_to_remove(self._now)

    def unplug_asked(self, job: Job) -> None:
        """Take that device_del goes out for the job."""
        self._under_way.unplug_asked(job)
        job.unplug_asked(self.session, self._now)
        self._host_look.restart_interval()

    def removal_hinted(self, job: Job) -> None:
        """Take that the job's CPU seems to be gone. One look tells of many: it waits a little for the others."""
        job.removal.hinted()
        self._under_way.removal_hinted(job)
        if self._under_way.all_removals_hinted:
            self.look_soon()
        else:
            self._host_look.follow_others(self._now)

    def removing(self) -> Iterator[Job]:
        """Return the jobs whose removal is awaited, in no order."""
        return self._under_way.removing()

    # --- looks --------------------------------------------------------------------------------------------------------

    def awaits_look(self, job: Job) -> bool:
        """Return whether the job comes up and only a look at QEMU is missing."""
        return self._under_way.awaits_look(job)

    def look_soon(self) -> None:
        """Look soon: something says that QEMU's side has changed."""
        self._host_look.want()
        self._host_look.restart_interval()

    def look_for_removals(self) -> None:
        """Look for the end of a removal that QEMU is at work on, which mostly takes a moment."""
        self._host_look.follow_removal(self._now)

    def look_for_arrivals(self) -> None:
        """See to it that a look settles what comes up: at once if it can settle all of it, else now and then."""
        if not self._under_way.some_await_look:
            return
        if self._under_way.all_await_look:
            self._host_look.want()
        else:
            self._host_look.follow_others(self._now)

    @property
    def look_due(self) -> bool:
        """Whether QEMU is to be looked at now."""
        return self._host_look.due(self._now)

    def look_asked(self) -> None:
        """Take that a look at QEMU was asked for: what is plugged from now on it may not show."""
        self._host_look.asked(self._now, removing=self._under_way.some_removing)
        for order in self._open:
            self.jobs[order].plug.look_asked()

    def look_ended(self) -> None:
        """Take that QEMU has answered the look."""
        self._host_look.ended()

    @property
    def guest_look_due(self) -> bool:
        """Whether the agent is to be asked for its list now."""
        return self._guest_look.due(self._now) and self.session is not None and not self.asks_nobody

    def look_at_guest(self) -> None:
        """Ask for the guest's list: nothing else can tell what is to be known now."""
        self._guest_look.want()

    def look_at_guest_again(self, seconds: float) -> None:
        """Ask for the list anew in so many seconds: it does not say all yet, or did not come."""
        self._guest_look.again(self._now + seconds)

    def guest_look_asked(self) -> None:
        """Take that the agent was asked for its list."""
        self._guest_look.asked()

    def guest_look_ended(self) -> None:
        """Take that the list that was asked for came."""
        self._guest_look.ended()

    # --- the whole ----------------------------------------------------------------------------------------------------

    @property
    def cause(self) -> Reason | None:
        """What ended all of it before its end."""
        return self._cause

    def end_comes(self, cause: Reason) -> None:
        """Take that nothing more can be learnt, for this cause."""
        self._cause = cause

    def settle(self, job: Job, outcome: Outcome, reason: Reason | None = None) -> None:
        """End the job. A slot that was emptied on the way does not stand as before."""
        if job.emptied and outcome in (Outcome.REFUSED, Outcome.FAILED):
            outcome, reason = Outcome.PARTIAL, reasons.left_empty(job, reason or job.reason)
        job.ended(outcome, reason)
        self._open.discard(job.order)
        self.mark_dirty(job)

    def roll_back(self, job: Job, goal: Goal, outcome: Outcome, reason: Reason) -> None:
        """Let the job go back to where it came from."""
        job.roll_back(goal, outcome, reason)
        self._open.add(job.order)
        self.mark_dirty(job)

    def dump(self) -> dict[str, object]:
        """Return everything, for logs and bug reports."""
        return {
            "operation": str(self.plan.request.operation),
            "session": self.session,
            "requests": self._requests.dump(),
            "looking": self._host_look.under_way,
            "standstill": None if self._standstill is None else self._standstill.text,
            "seconds_left": self.deadline - self._now,
            "jobs": [job.dump() for job in self.jobs],
        }
