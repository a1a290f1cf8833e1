# SPDX-License-Identifier: Apache-2.0
"""Which jobs wait for what: a plug to be sent or answered, an arrival in the guest, a removal to be sent or seen.

The groups are sets of the jobs' places in the plan, so that the machine goes through those that it acts on, and not
through all. A job's groups follow from the job alone (:meth:`UnderWay.sort`). Between an action and the next sorting
the methods below keep them right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .slot_job import Goal, Job


class UnderWay:
    """The groups of jobs; a job may be in several. ``jobs`` are all of them, in the plan's order."""

    __slots__ = (
        "_awaiting_look",
        "_coming_up",
        "_jobs",
        "_last_plug",
        "_plugging",
        "_ready_to_plug",
        "_ready_to_remove",
        "_removing",
        "_removing_unheard",
    )

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._ready_to_plug: set[int] = set()
        self._plugging: set[int] = set()  # device_add sent, and not answered
        self._coming_up: set[int] = set()
        self._awaiting_look: set[int] = set()  # up by the guest's word: only a look at QEMU is missing
        self._ready_to_remove: set[int] = set()  # the guest has let go: device_del is to be sent
        self._removing: set[int] = set()  # device_del sent
        self._removing_unheard: set[int] = set()  # of those, the ones that no event says to be gone
        self._last_plug: Job | None = None

    def sort(self, job: Job, session: str | None, *, up_by_the_guest: bool) -> None:
        """Put the job where it belongs now; ``up_by_the_guest``: it is open, and up by the guest's word."""
        is_open = job.open
        up = is_open and job.goal is Goal.UP
        removing = is_open and job.goal is Goal.GONE and job.removal.sent
        for group, belongs in (
            (self._coming_up, up),
            (self._ready_to_plug, up and not job.filled and not job.plug.unanswered),
            (self._plugging, job.plug.unanswered),
            (self._awaiting_look, up_by_the_guest),
            (self._ready_to_remove, job.may_be_deleted(session)),
            (self._removing, removing),
            (self._removing_unheard, removing and not job.removal.told_gone),
        ):
            if belongs:
                group.add(job.order)
            else:
                group.discard(job.order)

    def _in_order(self, group: set[int], now: float) -> Iterator[Job]:
        """Return the group's jobs in the plan's order, without those that wait for their next try."""
        return (job for order in sorted(group) if (job := self._jobs[order]).not_before <= now)

    # --- plugs --------------------------------------------------------------------------------------------------------

    @property
    def none_plugged(self) -> bool:
        """Whether no device_add was sent yet."""
        return self._last_plug is None

    @property
    def next_plug_waits(self) -> bool:
        """Whether the next plug has to wait for the one before it: until the guest has taken notice of that."""
        last = self._last_plug
        if last is None:
            return False
        return last.plug.unanswered or (last.open and last.goal is Goal.UP and last.filled and not last.seen)

    @property
    def all_plugs_answered(self) -> bool:
        """Whether no device_add is to be sent or to be answered."""
        return not self._ready_to_plug and not self._plugging

    def ready_to_plug(self, now: float) -> Iterator[Job]:
        """Return the jobs whose device_add may be sent, in the plan's order; they may be sent meanwhile."""
        return self._in_order(self._ready_to_plug, now)

    def plug_asked(self, job: Job) -> None:
        """Take that device_add goes out for the job."""
        self._last_plug = job
        self._ready_to_plug.discard(job.order)
        self._plugging.add(job.order)

    def plug_answered(self, job: Job) -> None:
        """Take that QEMU has answered the job's device_add."""
        self._plugging.discard(job.order)

    # --- arrivals -----------------------------------------------------------------------------------------------------

    def awaits_look(self, job: Job) -> bool:
        """Return whether the guest shows the job's CPUs as they are wanted, and only a look at QEMU is missing."""
        return job.order in self._awaiting_look

    @property
    def some_await_look(self) -> bool:
        """Whether a look at QEMU would settle a job that comes up."""
        return bool(self._awaiting_look)

    @property
    def all_await_look(self) -> bool:
        """Whether a look at QEMU would settle every job that comes up."""
        return len(self._awaiting_look) == len(self._coming_up)

    # --- removals -----------------------------------------------------------------------------------------------------

    @property
    def some_ready_to_remove(self) -> bool:
        """Whether a device_del is to be sent."""
        return bool(self._ready_to_remove)

    def ready_to_remove(self, now: float) -> Iterator[Job]:
        """Return the jobs whose device_del may be sent, in the plan's order; they may be sent meanwhile."""
        return self._in_order(self._ready_to_remove, now)

    @property
    def some_removing(self) -> bool:
        """Whether a removal is awaited."""
        return bool(self._removing)

    def removing(self) -> Iterator[Job]:
        """Return the jobs whose removal is awaited, in no order."""
        return (self._jobs[order] for order in self._removing)

    def unplug_asked(self, job: Job) -> None:
        """Take that device_del goes out for the job."""
        self._ready_to_remove.discard(job.order)
        self._removing.add(job.order)
        self._removing_unheard.add(job.order)

    def removal_hinted(self, job: Job) -> None:
        """Take that an event says that the job's CPU is gone."""
        self._removing_unheard.discard(job.order)

    @property
    def all_removals_hinted(self) -> bool:
        """Whether an event has told of every removal that is awaited."""
        return not self._removing_unheard
