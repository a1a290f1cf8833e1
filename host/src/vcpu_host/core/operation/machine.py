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

from collections.abc import Iterable

from ..planning.plan import Plan, StepKind
from ..platforms import Platform
from ..reason import Outcome, Reason
from ..view import SlotView, VmView
from . import reasons, transitions, verdicts
from .counts import Counts
from .events import Action, DoCancel, DoDial, DoLookGuest, DoLookHost, DoPlug, DoSetOnline, DoUnplug, Event
from .limits import Limits
from .result import OperationResult, SlotResult, summarize
from .slot_job import Goal, Job
from .state import State
from .thread_evidence import ThreadEvidence


class Machine:
    """The state machine of one operation. ``session`` is the link session that the plan's view came through.

    ``identities`` are the names of all slots' threads in the guest (``VmView.identities``). ``before`` is that
    view: without it the result counts no vCPUs.
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
        before: VmView | None = None,
    ) -> None:
        self._state = State(plan, platform, limits, session=session, now=now, identities=identities)
        self._before = None if before is None else Counts.of(before)
        self._taken_back = False  # --atomic has its turn once

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
        return self._state.wake_at

    def result(self, now: float) -> OperationResult:
        """Return the result; to be called once ``finished``."""
        slots = [job.result() for job in self._state.jobs]
        slots += [
            SlotResult(view.index, view.slot.device_id or "", Outcome.DONE, self._why_already(view))
            for view in self._state.plan.already
            if self._state.plan.request.selectors
        ]
        slots.sort(key=lambda slot: slot.slot)
        outcome = summarize(slot.outcome for slot in slots)
        return OperationResult(
            self._state.plan.request,
            outcome,
            tuple(slots),
            now - self._state.began,
            self._state.cause,
            before=self._before,
            after=self._after(),
        )

    def _after(self) -> Counts | None:
        """Return the counts with what the jobs have seen change since the plan's view.

        Return None once nothing could be seen any more.
        """
        if self._before is None or self._state.cause is not None:
            return None
        gained = [job.online_gained for job in self._state.jobs]
        online = None
        if self._before.online is not None and None not in gained:
            online = self._before.online + sum(each for each in gained if each is not None)
        return Counts(self._before.plugged + sum(job.vcpus_gained for job in self._state.jobs), online)

    def _why_already(self, view: SlotView) -> Reason:
        if self._state.plan.request.without_agent:
            return reasons.not_verified(filled=view.slot.filled, by_firmware=False)
        return reasons.already(view)

    def progress(self) -> tuple[int, int, str]:
        """Return how many slots are settled, of how many, and what the first open one waits for, in words."""
        waiting = next(self._state.open_jobs(), None)
        text = ""
        if waiting is not None:
            text = reasons.timed_out(waiting, self._state.trouble, self._state.standstill).code.replace("-", " ")
            text = f"slot {waiting.slot}: {text}"
        total = len(self._state.jobs)
        return total - self._state.open_count, total, text

    def dump(self) -> dict[str, object]:
        """Return the whole state, for logs and bug reports."""
        return self._state.dump()

    def feed(self, event: Event, now: float) -> None:
        """Take in one observation."""
        transitions.feed(self._state, event, now)

    # --- what to do now -----------------------------------------------------------------------------------------------

    def advance(self, now: float) -> list[Action]:
        """Return the actions that are due; each is given once."""
        self._state.tick(now)
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
        """Settle what has come to its end by now.

        Return the jobs that changed since the last time, in the plan's order.
        """
        state = self._state
        if state.now >= state.deadline:
            for job in state.open_jobs():
                self._settle(job)
            for job in state.open_jobs():
                verdicts.give_up(state, job, reasons.timed_out(job, state.trouble, state.standstill))
        changed: set[int] = set()
        while dirty := state.take_dirty():
            for job in dirty:
                changed.add(job.order)
                self._settle(job)
                state.sort(job)
            if self.finished and state.plan.request.atomic and not self._taken_back:
                self._take_back()
        return [state.jobs[order] for order in sorted(changed)]

    def _settle(self, job: Job) -> None:
        if not job.open:
            return
        if verdicts.proven(self._state, job):
            verdicts.reach(self._state, job)
        elif job.goal is Goal.UP and job.filled:
            self._await_arrival(job)
        elif job.goal is Goal.GONE and job.removal.awaits_guest:
            self._await_ejection(job)

    def _await_arrival(self, job: Job) -> None:
        """Wait for the kernel to show what the firmware acknowledged.

        It is to do so within the grace, counted while it could be heard. A CPU that was plugged before is one that the
        guest knows, or is told of at this moment; but one that came back with a snapshot it never hears of. Silence is
        no verdict: it is given on a list asked for when the time was up.
        """
        state = self._state
        if state.session is None or state.asks_nobody or state.standstill or not job.threads:
            return
        if any(thread.present for thread in job.threads) or job.plug.unanswered:
            return
        if job.plug.acknowledged_at is not None:
            since, grace = job.plug.acknowledged_at, state.limits.arrival_grace
        elif job.plug.done_at is None:
            since, grace = state.began, state.limits.arrival_grace if job.step.arriving else state.limits.notice_grace
        else:
            return
        overdue_at = max(since, state.hears_since) + grace
        if state.now < overdue_at:
            state.overdue_from(job, overdue_at)
        elif job.absent_at is None or job.absent_at < overdue_at:
            state.look_at_guest()
        elif job.plug.done_at is not None:
            verdicts.cannot_come(state, job, reasons.guest_ignored(job))
        elif job.step.replaceable and not job.replugged:
            job.plug_anew()
            state.mark_dirty(job)
        else:
            state.settle(job, Outcome.REFUSED, reasons.guest_unaware(job))

    def _await_ejection(self, job: Job) -> None:
        """Await the guest's word. After a while without one it may be asked again, on the same confirmations.

        QEMU only tells the guest once more (hw/acpi/cpu.c, acpi_cpu_unplug_request_cb; hw/ppc/spapr.c,
        spapr_core_unplug_request).
        """
        again_at = job.removal.last_sign_at + self._state.limits.eject_again
        if self._state.now >= again_at:
            job.removal.came_to_nothing()
        else:
            self._state.overdue_from(job, again_at)

    def _take_back(self) -> None:
        """Take back what came about, since not all of it did (--atomic)."""
        state = self._state
        self._taken_back = True
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
        """End each request that would do the contrary of what is wanted by now, or serve a slot that is settled."""
        for job in changed:
            for thread in job.threads:
                request = self._state.request(thread.request)
                if thread.request is None or request is None or request.cancelled:
                    continue
                wanted = job.wants(thread, self._state.session)
                if not job.open or (wanted is not None and wanted is not request.online):
                    request.cancel()
                    yield DoCancel(thread.request)

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
                if want is not None and thread.request is None:
                    wanted[want, not want and job.goal is Goal.GONE].append(thread)
        for (online, for_eject), threads in wanted.items():
            if not threads:
                continue
            number = state.request_sent(threads, online=online)
            ids = tuple(thread.firmware_id for thread in threads)
            brief = not online or self._state.platform.acknowledges
            yield DoSetOnline(number, ids, online, wait=online, brief=brief, for_eject=for_eject)

    def _adds(self) -> Iterable[Action]:
        """Yield the first plug by itself, and when the guest has seen it the others, together or singly, as planned.

        A guest that has one CPU does everything on it, so it is not to register eight CPUs while it starts the second.
        """
        state = self._state
        if state.next_plug_waits:
            return
        alone = state.plan.one_at_a_time or state.none_plugged
        for job in state.ready_to_plug():
            state.plug_asked(job)
            yield DoPlug(job.slot)
            if alone:
                return

    def _dels(self) -> Iterable[Action]:
        """Send device_del where everything allows it.

        All that must hold for one slot, in the order in which it is asked:

        1. The plan removes the slot, and nothing speaks against that, such as a boot CPU (``planning``: ``planner``,
           and ``by_count`` for a number); or the job goes back to an empty slot (``verdicts.cannot_come``,
           ``--atomic``, ``Job.plug_anew``).
        2. The job is open and its goal is still ``GONE``: the time is not over and nothing has ended or turned it
           round (``_settle_due``, ``verdicts``). So much, and 3 to 5, is ``Job.may_be_deleted``; ``State.sort`` asks
           it whenever something about the job has changed.
        3. QEMU shows the slot filled: in the view of the plan, in each look since, or by its answer to device_add
           (``Job.of``, ``Job.shown``, ``Job.plugged``).
        4. QEMU has answered every device_del for it, and none was sent on the confirmations of this session. One may
           be sent again in a new session; when the guest has left it unanswered for ``eject_again``
           (``_await_ejection``); when QEMU did not find the device (``transitions._del_returned``); and when the job
           has turned round meanwhile (``Job.roll_back``).
        5. There is a session, and in it the agent confirmed every thread offline: it read that back, or it found no
           such CPU and its list shows no CPU that may be the same one (``ThreadEvidence``: ``confirmed_offline``,
           ``proven_absent``). A thread loses its confirmation when it is seen online (``shown``) or a request for it
           ends without an answer (``answer_lost``), and all lose it with the session (``State.session_ended``) and with
           the CPU itself (``Job.is_out``).
           With --without-agent a job has no threads, so nothing is asked here.
        6. No offline request gets on (``State.offlining``): removing one CPU while another goes offline is slow. One
           that does not get on is waited for no longer than ``let_go_grace``.
        7. The job does not wait for its next try (``Job.not_before``: ``State.wait``).
        8. No CPU that an earlier operation plugged may yet come up in it (``verdicts.arrives_until``).
        9. The guest showed every thread offline a moment ago: what was confirmed a while ago may be online again
           (``proof.SeenDown``; ``guest_transitions``: ``_listed``, ``_offline_settled``). Else its list is asked for
           first. With --without-agent nobody can be asked.

        The executor then puts the removal on record, or does not send it (``record.before``). What is held up until the
        guest's word is old (``DoUnplug.not_after``) is not sent either, and begins again with 9.
        """
        state = self._state
        if state.offlining:
            return
        for job in state.ready_to_remove():
            if state.now < (arrives_until := verdicts.arrives_until(state, job)):
                if state.overdue_from(job, arrives_until):
                    state.look_at_guest()  # again and again from then on (``guest_transitions``)
            elif state.asks_nobody or job.seen_down.is_fresh(state.now, state.limits.look_fresh):
                until = None if state.asks_nobody else job.seen_down.holds_until(state.limits.look_fresh)
                state.unplug_asked(job)
                yield DoUnplug(job.slot, until)
            else:
                state.look_at_guest()

    def _guest_looks(self) -> Iterable[Action]:
        if self._state.guest_look_due:
            self._state.guest_look_asked()
            yield DoLookGuest()

    def _dials(self) -> Iterable[Action]:
        if self._state.dial_due:
            self._state.dialed()
            yield DoDial()

    def _looks(self) -> Iterable[Action]:
        """Yield a look as soon as it can settle all that is left, else now and then: it is dear with many slots."""
        self._state.look_for_arrivals()
        if self._state.look_due:
            self._state.look_asked()
            yield DoLookHost()
