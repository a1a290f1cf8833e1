# SPDX-License-Identifier: Apache-2.0
"""The part of an operation that concerns one slot: its goal, the evidence for it, and how it ended.

A job holds no procedure. The machine compares the goal with the evidence and asks for what is missing; an event changes
evidence only. So any event may come late, twice or never.

Whoever learns of an event calls the method that is named after it. Nobody else writes what a job knows: not what is in
this module, nor the evidence on its threads (``thread_evidence``), its ``plug`` or its ``removal``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ..model import Slot
from ..planning.plan import Step, StepKind
from ..proof import SeenDown
from ..reason import Outcome, Reason
from .plug import Plug
from .removal import Removal
from .result import SlotResult
from .thread_evidence import ThreadEvidence


class Goal(StrEnum):
    """Where a slot is to end."""

    UP = "up"  # plugged, and every thread online
    GONE = "gone"  # the slot is empty
    DOWN = "down"  # still plugged, every thread offline


_FIRST_GOAL = {
    StepKind.PLUG: Goal.UP,
    StepKind.ONLINE: Goal.UP,
    StepKind.UNPLUG: Goal.GONE,
    StepKind.OFFLINE: Goal.DOWN,
}


@dataclass(slots=True)
class Job:
    """An operation's part for one slot: its goal, and what is known about it.

    Times are the machine's ``now``, in seconds; ``order`` is its place in the plan.
    """

    step: Step
    order: int
    filled: bool
    goal: Goal = Goal.UP
    outcome_if_reached: Outcome = Outcome.DONE
    reason: Reason | None = None
    outcome: Outcome | None = None
    plug: Plug = field(default_factory=Plug)
    removal: Removal = field(default_factory=Removal)
    not_before: float = 0.0
    overdue_at: float | None = None  # the timer that is set for its arrival
    retries: int = 0
    passing: Reason | None = None  # what was refused, and is to be tried again
    threads: tuple[ThreadEvidence, ...] = ()
    by_firmware: bool = False  # without threads to ask for: the firmware's acknowledgement is all there will be
    absent_at: float | None = None  # when the list was asked for that shows none of its threads
    seen_down: SeenDown = field(default_factory=SeenDown)  # every thread of it
    anew: bool = False  # on its way out only to be plugged again: the guest never heard of it
    replugged: bool = False  # that was done
    phases: dict[str, float] = field(default_factory=dict)
    _marks: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, step: Step, order: int, *, by_firmware: bool) -> Job:
        """Return a job for one step of a plan, before anything is known of the guest."""
        return cls(
            step,
            order,
            step.slot.filled,
            goal=_FIRST_GOAL[step.kind],
            threads=tuple(ThreadEvidence(name, name in step.online_before) for name in step.firmware_ids),
            by_firmware=by_firmware,
        )

    @property
    def slot(self) -> int:
        """The slot's index."""
        return self.step.slot.index

    @property
    def open(self) -> bool:
        """Whether it has not ended."""
        return self.outcome is None

    @property
    def seen(self) -> bool:
        """Whether the guest has taken notice of the CPU: its firmware acknowledged it, or its kernel shows it."""
        if not self.threads and not self.by_firmware:
            return True  # there is no agent to ask, and this firmware reports nothing
        return self.plug.acknowledged_at is not None or any(thread.present for thread in self.threads)

    @property
    def emptied(self) -> bool:
        """Whether there was a CPU in the slot when the operation was planned, and there is none now."""
        return self.step.slot.filled and not self.filled

    @property
    def touched(self) -> bool:
        """Whether a thread may no longer be as it was, because of this operation."""
        return any(thread.touched for thread in self.threads)

    @property
    def vcpus_gained(self) -> int:
        """How many more vCPUs QEMU has in the slot than when the operation was planned."""
        return self.step.slot.vcpus * (int(self.filled) - int(self.step.slot.filled))

    @property
    def online_gained(self) -> int | None:
        """How many more of its threads are online than when the operation was planned; None if that is not known."""
        before = sum(thread.was_online for thread in self.threads)
        if not self.filled:
            return -before
        if not self.threads or any(thread.present is None for thread in self.threads):
            return None
        return sum(thread.online for thread in self.threads) - before

    @property
    def begun(self) -> bool:
        """Whether anything was sent for it, now or by an earlier operation, that may still take effect.

        That the agent was told to wait for a CPU is nothing as long as the slot is empty: none comes by itself.
        """
        removal = self.removal
        asked = self.plug.unanswered or removal.unanswered or removal.sent or self.replugged
        if asked or self.rolling_back or self.step.begun_before or removal.ending:
            return True
        return self.filled if self.step.kind is StepKind.PLUG else self.touched

    @property
    def guest_up(self) -> bool:
        """Whether every thread is online, or kept offline by the guest's SMT mode beside one that is online.

        On the way back that is asked only of the threads that were online before. Without any thread to ask for, the
        firmware's word does, where there is one.
        """
        if not self.threads:
            return self.seen
        threads = [t for t in self.threads if t.was_online] if self.rolling_back else self.threads
        return all(t.online or t.parked for t in threads) and (not threads or any(t.online for t in threads))

    def guest_down(self, session: str | None) -> bool:
        """Return whether the agent confirmed every thread offline in this session."""
        return session is not None and all(thread.offline_in == session for thread in self.threads)

    def may_be_deleted(self, session: str | None) -> bool:
        """Return whether device_del may go out.

        It may when every thread was confirmed offline in this session, in which none was sent yet.
        """
        if self.outcome is not None or self.goal is not Goal.GONE or not self.filled or self.removal.unanswered:
            return False
        return self.removal.sent_in != session and self.guest_down(session)

    def down(self, session: str | None) -> bool:
        """Return whether a job whose goal is DOWN is there: on the way back, what was online before may be so again."""
        kept = self.rolling_back
        return session is not None and all(t.offline_in == session or (kept and t.was_online) for t in self.threads)

    def wants(self, thread: ThreadEvidence, session: str | None) -> bool | None:
        """Return whether the thread is wanted online (True), offline (False), or as it is (None)."""
        if self.outcome is not None:
            return None
        if self.goal is Goal.UP:
            if thread.online or (self.rolling_back and not thread.was_online) or (thread.parked and self.guest_up):
                return None
            return True
        if self.goal is Goal.DOWN and self.rolling_back and thread.was_online:
            return None
        return None if session is not None and thread.offline_in == session else False

    def ended(self, outcome: Outcome, reason: Reason | None) -> None:
        """End it so. Without a ``reason`` the one stands for which it was on its way back, unless it is done."""
        self.outcome = outcome
        if reason is not None or outcome is Outcome.DONE:
            self.reason = reason

    def left_alone(self, until: float) -> None:
        """Try nothing for it before then."""
        self.not_before = until

    def waits_until(self, overdue_at: float) -> bool:
        """Take that what it waits for is overdue then. Return whether that is another time than was known."""
        if self.overdue_at == overdue_at:
            return False
        self.overdue_at = overdue_at
        return True

    def refused_for_now(self, reason: Reason) -> None:
        """Take that what was tried was refused for a reason that may pass, so it is tried again."""
        self.retries += 1
        self.passing = reason

    def came_back(self) -> None:
        """Take that something in the guest has brought a thread online again that was confirmed offline."""
        self.removal.came_back()
        self.seen_down.forget()

    # --- what the guest says ------------------------------------------------------------------------------------------

    def forget_guest(self) -> None:
        """Forget the guest's words: they are void."""
        self.seen_down.forget()
        self.absent_at = None
        for thread in self.threads:
            thread.forget()

    def take_names(self, names: Sequence[str]) -> None:
        """Take that the threads have these identities; nothing is known of them yet."""
        self.seen_down.forget()
        self.absent_at = None
        for thread, name in zip(self.threads, names, strict=True):
            thread.renamed(name)

    def listed_absent(self, asked_at: float) -> None:
        """Take that a list that was asked for at ``asked_at`` proves that the guest has none of its threads."""
        self.absent_at = asked_at

    # --- which way it goes --------------------------------------------------------------------------------------------

    def roll_back(self, goal: Goal, outcome: Outcome, reason: Reason | None) -> None:
        """Take the slot back to where it came from; ``outcome`` and ``reason`` stand once that is reached."""
        self.anew = False
        self.goal = goal
        self.outcome = None
        self.outcome_if_reached = outcome
        self.reason = reason
        self.plug.turned_round()
        self.removal.turned_round()
        self.retries = 0
        self.not_before = 0.0

    @property
    def rolling_back(self) -> bool:
        """Whether it is on its way back."""
        return self.goal is not _FIRST_GOAL[self.step.kind] and not self.anew

    def plug_anew(self) -> None:
        """Take it out in order to plug it again, which makes QEMU tell the guest once more."""
        self.roll_back(Goal.GONE, self.outcome_if_reached, self.reason)
        self.anew = True

    def is_out(self, now: float) -> None:
        """Take that it has gone, and is to be plugged again.

        What the guest said was of the CPU that is out (promise 2).
        """
        self.roll_back(Goal.UP, self.outcome_if_reached, self.reason)
        self.anew, self.replugged = False, True
        self.plug.taken_out()
        self.seen_down.forget()
        self.absent_at = None
        for thread in self.threads:
            thread.is_out(now)

    # --- what is asked of QEMU, and what it shows ---------------------------------------------------------------------

    def shown(self, slot: Slot) -> None:
        """Take that a look at QEMU shows the slot.

        A CPU that is ending is neither there nor gone, so it changes nothing else.
        """
        self.removal.shown(slot)
        if self.removal.ending is None:
            self.filled = slot.filled
            self.plug.shown(filled=slot.filled)

    def plug_asked(self, now: float) -> None:
        """Take that device_add goes out."""
        self.plug.asked()
        self.mark("device_add", now)

    def plug_answered(self, now: float) -> None:
        """Take that QEMU has answered device_add."""
        self.plug.answered()
        self.done("device_add", now)

    def plugged(self, now: float) -> None:
        """Take that QEMU has done device_add: no look has shown it yet, and the guest is to take notice of it."""
        self.filled = True
        self.plug.done(now)
        self.mark("arrival", now)
        if any(thread.present for thread in self.threads):
            self.done("arrival", now)  # the guest was quicker than the answer

    def unplug_asked(self, session: str | None, now: float) -> None:
        """Take that device_del goes out on the confirmations of ``session``."""
        self.removal.asked(session, now)
        self.mark("device_del", now)

    # --- how long each phase takes, and the end of it all -------------------------------------------------------------

    def mark(self, phase: str, now: float) -> None:
        """Begin ``phase``, unless it is under way."""
        self._marks.setdefault(phase, now)

    def done(self, phase: str, now: float) -> None:
        """End ``phase``, if it is under way; what it took is added to what it took before."""
        began = self._marks.pop(phase, None)
        if began is not None:
            self.phases[phase] = self.phases.get(phase, 0.0) + now - began

    def took(self, phase: str, seconds: float) -> None:
        """Take that ``phase`` took so long, measured elsewhere; what it took before is added."""
        self.phases[phase] = self.phases.get(phase, 0.0) + seconds

    def result(self) -> SlotResult:
        """Return the job's part of the operation's result."""
        numbers = tuple(t.number for t in self.threads if t.number is not None)
        device_id = self.step.device_id
        return SlotResult(
            self.slot, device_id, self.outcome or Outcome.UNKNOWN, self.reason, dict(self.phases), numbers
        )

    def dump(self) -> dict[str, object]:
        """Return everything, for logs and bug reports."""
        return {
            "slot": self.slot,
            "step": str(self.step.kind),
            "goal": str(self.goal),
            "outcome": str(self.outcome) if self.outcome else None,
            "reason": self.reason._asdict() if self.reason else None,
            "filled": self.filled,
            "adding": self.plug.unanswered,
            "acknowledged_at": self.plug.acknowledged_at,
            "deleting": self.removal.unanswered,
            "del_sent": self.removal.sent,
            "retries": self.retries,
            "relapses": self.removal.relapses,
            "anew": self.anew,
            "threads": [
                {
                    "firmware_id": t.firmware_id,
                    "cpu": t.number,
                    "present": t.present,
                    "online": t.online,
                    "parked": t.parked,
                    "offline_in": t.offline_in,
                    "asked": t.request,
                    "touched": t.touched,
                }
                for t in self.threads
            ],
            "phases": dict(self.phases),
        }
