# SPDX-License-Identifier: Apache-2.0
"""Remembers the masks of threads whose last CPU is about to go, tells what became of them, and puts them back.

When the last CPU of a thread's mask goes and the thread wakes up before one is back, the kernel gives it all possible
CPUs for good ("no longer affine" in its log, kernel/sched/core.c, select_fallback_rq). A thread that sleeps all the
time keeps its mask. Linux 6.1 besides gives every thread in a child cpuset all of that cpuset's CPUs whenever a CPU
comes or goes.

Masks are put back on request of the guest's administrator alone (keep_affinity).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vcpu_guest import logs
from vcpu_guest.core import cpulist
from vcpu_guest.core.workload import MOST, Broken, Fate, Group, Threads
from vcpu_guest.cpus.workload import STRIDE, Budget, Looker

#: The most threads that are remembered.
MOST_REMEMBERED = 4096


@dataclass(slots=True)
class _Remembered:
    """A thread and the mask that it had. `put` is the mask that it was given back, as far as the kernel took it."""

    pid: int
    started: int
    mask: frozenset[int]
    put: frozenset[int] | None = None


class Masks:
    """The threads that this start of the agent remembers. `keep`: their masks are put back.

    Every method may block for as long as a look lasts, and is called by one thread at a time.
    """

    def __init__(self, looker: Looker, *, keep: bool, budget: Callable[[], Budget] = Budget) -> None:
        self._looker = looker
        self._tasks = looker.tasks
        self._budget = budget
        self.keeps = keep
        self._known: dict[int, _Remembered] = {}
        self._denied = False
        #: What the last look before a change did not see to its end.
        self.unseen: tuple[str, ...] = ()

    def before(self, going: frozenset[int]) -> None:
        """Remember whose mask a change takes the last CPU of, or makes the kernel forget. Empty: CPUs come."""
        everywhere = self._looker.forgets and self._looker.cgroups.has_cpusets()
        unseen: list[str] = []
        if going or everywhere:
            online = self._looker.sysfs.mask("online")
            own = self._looker.own_masks(online)
            budget = self._budget()
            #: Those of earlier changes, which make room if they have ended; None: they were looked at.
            earlier: list[int] | None = list(self._known)
            more = 0
            for pid, tid, mask in self._looker.threads(budget, unseen):
                goes = bool(mask) and mask <= going
                looked = goes or (everywhere and mask < online)
                if not (looked and own.chosen(pid, tid, mask) and (goes or own.in_cpuset(pid, tid))):
                    continue
                if len(self._known) >= MOST_REMEMBERED and earlier is not None:
                    self._forget_ended(earlier, budget)
                    earlier = None
                if tid in self._known or len(self._known) < MOST_REMEMBERED:
                    self._remember(pid, tid)
                else:
                    more += 1
            if more:
                unseen.append(
                    f"threads: of more than {MOST_REMEMBERED} that may lose their masks, {more} are not watched"
                )
        self.unseen = tuple(unseen)

    def _remember(self, pid: int, tid: int) -> None:
        known = self._known.get(tid)
        started, mask = self._tasks.started(pid, tid), self._tasks.allowed(pid, tid)
        if started is None or mask is None or (known is not None and known.started == started and known.put == mask):
            return
        self._known[tid] = _Remembered(pid, started, mask)

    def _forget_ended(self, tids: list[int], budget: Budget) -> None:
        for place, tid in enumerate(tids):
            if place % STRIDE == 0 and budget.spent():
                return
            known = self._known.get(tid)
            if known is not None and self._tasks.started(known.pid, tid) != known.started:
                del self._known[tid]

    def put_back(self) -> None:
        """Give threads their masks back whose CPUs are there again, if that is wanted."""
        if not self.keeps:
            return
        online = self._looker.sysfs.mask("online")
        for tid, known in list(self._known.items()):
            if self._fate(tid, known, online, tells=False) is not Fate.WIDENED or not known.mask & online:
                continue
            try:
                self._tasks.pin(tid, known.mask)
            except OSError as error:
                self._complain(tid, error)
            else:
                known.put = self._tasks.allowed(known.pid, tid)
                logs.info("mask put back", tid=tid, cpus=cpulist.render(known.mask))

    def _complain(self, tid: int, error: OSError) -> None:
        if not self._denied:
            self._denied = True
            logs.warning(
                "a thread's mask cannot be put back: see keep_affinity in vcpud(8)", tid=tid, error=error.strerror or ""
            )

    def fates(self) -> tuple[Broken, ...]:
        """Return what became of the remembered threads, by mask and fate. Those whose masks are whole are forgotten."""
        online = self._looker.sysfs.mask("online")
        groups: dict[tuple[frozenset[int], Fate], Group] = {}
        for tid, known in list(self._known.items()):
            fate = self._fate(tid, known, online, tells=True)
            if fate is not None and len(groups) < MOST:
                groups.setdefault((known.mask, fate), Group()).add(known.pid, tid)
        left = MOST_REMEMBERED // 8
        found = []
        for (mask, fate), group in groups.items():
            some = tuple(self._tasks.describe(pid, tid) for pid, tid in group.first[: max(0, left)])
            left -= len(some)
            found.append(Broken(mask, fate, Threads(group.count, some)))
        return tuple(found)

    def _fate(self, tid: int, known: _Remembered, online: frozenset[int], *, tells: bool) -> Fate | None:
        """Return what became of a thread; None if it has ended, is whole, or got another mask by somebody else.

        `tells`: the host is told, so that one whose mask is whole need not be remembered any longer.
        """
        mask = self._tasks.allowed(known.pid, tid) if self._tasks.started(known.pid, tid) == known.started else None
        if mask is None:
            del self._known[tid]
            return None
        if mask == known.mask:
            if not mask & online:
                return Fate.ASLEEP
            if tells and (not self.keeps or mask <= online):
                del self._known[tid]
            return Fate.PUT_BACK if known.put is not None else None
        if known.put is not None and mask == known.put:
            # Linux 6.1 cuts a mask to what is online: the rest follows when its CPUs are back.
            return Fate.WIDENED if (known.mask & online) - mask else Fate.PUT_BACK
        effective = self._looker.cgroups.effective_of(self._tasks.cgroup(known.pid, tid))
        whole = online if effective is None else effective & online
        return Fate.WIDENED if mask >= whole else None
