# SPDX-License-Identifier: Apache-2.0
"""The state machine of one operation on one VM: observations in, actions out, the time an argument.

Rules that hold whatever happens, in this order of weight:

1. A ``DoUnplug`` goes out only for a slot all of whose threads the agent confirmed offline in the present link session,
   and showed offline a moment ago, unless the user has said that there is none to ask (``Request.without_agent``).
2. A job succeeds only on proof: the slot filled in QEMU *and* its threads online by identity, or the slot empty and
   none of its vCPUs left.
3. Every job ends: reached, refused, taken back, or, when the time is over, unknown, or refused if it was not begun.

The machine never waits and never acts: ``feed`` takes one event, ``advance`` says what to do now, ``wake_at`` when to
ask again if nothing happens.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from ..planning.plan import Plan, StepKind
from ..platforms import Platform
from ..reason import Outcome, Reason
from ..view import SlotView
from . import reasons, transitions
from .events import Action, DoCancel, DoDial, DoLookGuest, DoLookHost, DoPlug, DoSetOnline, DoUnplug, Event
from .limits import Limits
from .result import OperationResult, SlotResult, summarize
from .slot_job import Goal, Job, ThreadEvidence
from .state import OnlineRequest, State


class Machine:
    """The state machine of one operation. ``session`` is the link session that the plan's view came through.

    ``identities`` are the names of all slots' threads in the guest (``VmView.identities``).
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
        self._state = State(plan, platform, limits, session, now, identities)

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
        state = self._state
        times = [state.deadline] if state.looking else [state.deadline, state.next_look]
        if state.timers:
            times.append(state.timers[0][0])
        if state.session is None and not state.dialing:
            times.append(state.redial_at)
        if state.ready_to_remove and state.offlining:
            times.append(state.offlining_until)
        if state.guest_look.wanted and state.guest_look.asked_at is None and state.session is not None:
            times.append(state.guest_look.not_before)
        return min(times)

    def result(self, now: float) -> OperationResult:
        """The result; call it once ``finished``."""
        slots = [job.result() for job in self._state.jobs]
        slots += [
            SlotResult(view.index, view.slot.device_id or "", Outcome.DONE, self._why_already(view))
            for view in self._state.plan.already
            if self._state.plan.request.selectors
        ]
        slots.sort(key=lambda slot: slot.slot)
        outcome = summarize(slot.outcome for slot in slots)
        return OperationResult(
            self._state.plan.request, outcome, tuple(slots), now - self._state.began, self._state.cause
        )

    def _why_already(self, view: SlotView) -> Reason:
        if self._state.plan.request.without_agent:
            return reasons.not_verified(filled=view.slot.filled, by_firmware=False)
        return reasons.already(view)

    def progress(self) -> tuple[int, int, str]:
        """How many slots are settled, of how many, and what the first open one waits for, in words."""
        waiting = next(self._state.open_jobs(), None)
        text = ""
        if waiting is not None:
            text = reasons.timed_out(waiting, self._state.trouble, paused=self._state.paused).code.replace("-", " ")
            text = f"slot {waiting.slot}: {text}"
        total = len(self._state.jobs)
        return total - len(self._state.open), total, text

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
        transitions.feed(self._state, event, now)

    # --- what to do now -----------------------------------------------------------------------------------------------

    def advance(self, now: float) -> list[Action]:
        """The actions that are due; each is given once."""
        state = self._state
        state.now = now
        while state.timers and state.timers[0][0] <= now:
            state.dirty.add(heapq.heappop(state.timers)[1])
        changed = self._settle_due()
        if self.finished:
            return []
        actions: list[Action] = []
        actions += self._cancels(changed)
        actions += self._requests(changed)
        actions += self._adds()
        actions += self._dels()
        actions += self._dials()
        actions += self._looks()
        actions += self._guest_looks()
        return actions

    # --- verdicts -----------------------------------------------------------------------------------------------------

    def _settle_due(self) -> list[Job]:
        """Settle what has come to its end by now; the jobs that changed since the last time, in the plan's order."""
        state = self._state
        changed: set[int] = set()
        if state.now >= state.deadline:
            for job in state.open_jobs():
                self._settle(job)
            for job in state.open_jobs():
                state.give_up(job, reasons.timed_out(job, state.trouble, paused=state.paused))
        while state.dirty:
            now_dirty = sorted(state.dirty)
            state.dirty.clear()
            changed.update(now_dirty)
            for order in now_dirty:
                self._settle(state.jobs[order])
                state.sort(state.jobs[order])
            if self.finished and state.plan.request.atomic and not state.taken_back:
                self._take_back()
        return [state.jobs[order] for order in sorted(changed)]

    def _settle(self, job: Job) -> None:
        state = self._state
        if not job.open:
            return
        if state.proven_up(job) or state.proven_gone(job) or state.proven_down(job):
            state.reach(job)
        elif job.goal is Goal.UP and job.filled:
            self._await_arrival(job)
        elif job.goal is Goal.GONE and job.del_sent and job.del_in is not None and job.ending is None:
            self._await_ejection(job)

    def _await_arrival(self, job: Job) -> None:
        """What the firmware acknowledged, the kernel shows within the grace, counted while it could be heard.

        A CPU that was plugged before is one that the guest knows, or is told of at this moment; but one that came back
        with a snapshot it never hears of. Silence is no verdict: it is given on a list asked for when the time was up.
        """
        state = self._state
        if state.session is None or state.asks_nobody or state.paused or not job.threads:
            return
        if any(thread.present for thread in job.threads) or job.adding:
            return
        if job.acknowledged_at is not None:
            since, grace = job.acknowledged_at, state.limits.arrival_grace
        elif job.added_at is None:
            since, grace = state.began, state.limits.notice_grace
        else:
            return
        overdue_at = max(since, state.hears_since) + grace
        if state.now < overdue_at:
            if job.overdue_at != overdue_at:
                job.overdue_at = overdue_at
                heapq.heappush(state.timers, (overdue_at, job.order))
        elif job.absent_at is None or job.absent_at < overdue_at:
            state.guest_look.wanted = True
        elif job.added_at is not None:
            state.cannot_come(job, reasons.guest_ignored(job))
        elif job.step.replaceable and not job.replugged:
            job.plug_anew()
            state.mark_dirty(job)
        else:
            state.settle(job, Outcome.REFUSED, reasons.guest_unaware(job))

    def _await_ejection(self, job: Job) -> None:
        """After a while without a word it may be asked for again, on the same confirmations.

        QEMU only tells the guest once more (hw/acpi/cpu.c, acpi_cpu_unplug_request_cb; hw/ppc/spapr.c,
        spapr_core_unplug_request).
        """
        again_at = job.del_at + self._state.limits.eject_again
        if self._state.now >= again_at:
            job.del_in = None
        elif job.overdue_at != again_at:
            job.overdue_at = again_at
            heapq.heappush(self._state.timers, (again_at, job.order))

    def _take_back(self) -> None:
        """--atomic: what came about is taken back, since not all of it did."""
        state = self._state
        state.taken_back = True
        if state.now >= state.deadline or state.cause is not None:
            return
        if all(job.outcome is Outcome.DONE for job in state.jobs):
            return
        if any(job.outcome is Outcome.UNKNOWN for job in state.jobs):
            return
        for job in state.jobs:
            if job.outcome is Outcome.DONE:
                job.forget_guest()
                undo = {StepKind.PLUG: Goal.GONE, StepKind.ONLINE: Goal.DOWN}.get(job.step.kind, Goal.UP)
                state.roll_back(job, undo, Outcome.FAILED, reasons.atomic())

    # --- actions ------------------------------------------------------------------------------------------------------

    def _cancels(self, changed: list[Job]) -> Iterable[Action]:
        """A request that would do the contrary of what is wanted by now, or serve a slot that is settled, ends."""
        for job in changed:
            for thread in job.threads:
                request = self._state.requests.get(thread.asked) if thread.asked is not None else None
                if thread.asked is None or request is None or request.cancelled:
                    continue
                wanted = job.wants(thread, self._state.session)
                if not job.open or (wanted is not None and wanted is not request.online):
                    request.cancelled = True
                    yield DoCancel(thread.asked)

    def _requests(self, changed: list[Job]) -> Iterable[Action]:
        state = self._state
        if state.session is None:
            return
        # online, or offline in order to be ejected, or offline to stay
        wanted: dict[tuple[bool, bool], list[ThreadEvidence]] = {
            (True, False): [],
            (False, True): [],
            (False, False): [],
        }
        for job in changed:
            if job.not_before > state.now:
                continue
            for thread in job.threads:
                want = job.wants(thread, state.session)
                if want is not None and thread.asked is None:
                    wanted[want, not want and job.goal is Goal.GONE].append(thread)
        for (online, for_eject), threads in wanted.items():
            if not threads:
                continue
            number = state.next_request
            state.next_request += 1
            for thread in threads:
                thread.asked = number
                thread.touched = True
            ids = tuple(thread.firmware_id for thread in threads)
            state.offlining_until = state.now + state.limits.let_go_grace
            state.requests[number] = OnlineRequest(online, set(ids), state.now)
            brief = not online or self._state.platform.acknowledges
            yield DoSetOnline(number, ids, online, wait=online, brief=brief, for_eject=for_eject)

    def _adds(self) -> Iterable[Action]:
        """The first plug by itself, and when the guest has seen it the others together, or one by one, as planned.

        A guest that has one CPU does everything on it, so it is not to register eight CPUs while it starts the second.
        """
        state = self._state
        if self._waits_for(state.last_plug):
            return
        alone = state.plan.one_at_a_time or state.last_plug is None
        for order in sorted(state.to_add):
            job = state.jobs[order]
            if job.not_before > state.now:
                continue
            state.last_plug = job
            state.to_add.discard(order)
            state.adding.add(order)
            job.adding = True
            job.acknowledged_at = None
            job.mark("device_add", state.now)
            yield DoPlug(job.slot)
            if alone:
                return

    @staticmethod
    def _waits_for(last: Job | None) -> bool:
        """Whether the next plug has to wait for the one before it."""
        if last is None:
            return False
        return last.adding or (last.open and last.goal is Goal.UP and last.filled and not last.seen)

    def _dels(self) -> Iterable[Action]:
        """Send device_del only while no offline request is running, and on a confirmation that is fresh.

        Removing one CPU while another goes offline is slow; only a request that does not get on is not waited for.
        What was confirmed a while ago may be online again, so the guest is looked at once more before.
        """
        state = self._state
        if state.offlining:
            return
        for order in sorted(state.ready_to_remove):
            job = state.jobs[order]
            if job.not_before > state.now:
                continue
            if not (state.asks_nobody or job.seen_down.is_fresh(state.now, state.limits.look_fresh)):
                state.guest_look.wanted = True
                continue
            job.deleting = job.del_sent = True
            job.del_in = state.session
            job.del_at = state.now
            job.mark("device_del", state.now)
            state.poll = state.limits.poll_first
            state.ready_to_remove.discard(order)
            state.removing.add(order)
            state.removing_unheard.add(order)
            yield DoUnplug(job.slot)

    def _guest_looks(self) -> Iterable[Action]:
        state = self._state
        if state.session is not None and not state.asks_nobody and state.guest_look.due(state.now):
            state.guest_look.asked(state.now)
            yield DoLookGuest()

    def _dials(self) -> Iterable[Action]:
        if self._state.session is None and not self._state.dialing and self._state.now >= self._state.redial_at:
            self._state.dialing = True
            yield DoDial()

    def _looks(self) -> Iterable[Action]:
        """A look is dear with many slots: one as soon as it can settle all that is left, else now and then."""
        state = self._state
        if state.awaiting_look:
            if len(state.awaiting_look) == len(state.coming_up):
                state.look_wanted = True
            else:
                state.look_by(state.looked_at + state.limits.poll_most)
        if state.looking or not (state.look_wanted or state.now >= state.next_look):
            return
        if state.removing:
            state.next_look = state.now + state.poll
            state.poll = min(state.poll * 2, state.limits.poll_most)
        else:
            state.next_look = state.now + state.limits.poll_idle
        state.look_wanted = False
        state.looking = True
        state.looked_at = state.now
        for job in state.open_jobs():
            job.added_since_look = False
        yield DoLookHost()
