# SPDX-License-Identifier: Apache-2.0
"""Remembers the masks of threads whose last CPU is about to go, tells what became of them, and puts them back.

When the last CPU of a thread's mask goes and the thread wakes up before one is back, the kernel gives it all possible
CPUs for good ("no longer affine" in its log, kernel/sched/core.c, select_fallback_rq). A thread that sleeps all the
time keeps its mask. Linux 6.1 besides gives every thread in a child cpuset all of that cpuset's CPUs whenever a CPU
comes or goes.

Masks are put back on request of the guest's administrator alone (keep_affinity).
"""

from __future__ import annotations

import enum
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
    """A thread and the mask that it had. `put` is the mask that it was given back, as far as the kernel took it.

    `endangered`: since the last change that took its last CPU, or made the kernel forget, it was not seen whole. Only
    then a wide mask is the kernel's doing, and else the program's own. `change` is the number of that change.
    """

    pid: int
    started: int
    mask: frozenset[int]
    change: int
    put: frozenset[int] | None = None
    endangered: bool = True


class _Stands(enum.Enum):
    """How a remembered thread stands."""

    ENDED = enum.auto()
    #: It has its mask, and a CPU of that.
    WHOLE = enum.auto()
    ASLEEP = enum.auto()
    WIDENED = enum.auto()
    #: It has as much of its mask as was online when it was put back: Linux 6.1 cuts it to that.
    CUT = enum.auto()
    #: It has a mask that somebody else gave it.
    OTHER = enum.auto()


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
        self._change = 0
        #: What the last look before a change did not see to its end.
        self.unseen: tuple[str, ...] = ()

    @property
    def wiped_late(self) -> bool:
        """Whether the kernel may forget masks after a change has ended: it has a thread of its own for that."""
        return self._looker.forgets

    def before(self, going: frozenset[int], *, alone: bool = True) -> None:
        """Remember whose mask a change takes the last CPU of, or makes the kernel forget. Empty: CPUs come.

        `alone`: no other change is under way.
        """
        self._change += 1
        everywhere = self._looker.forgets and self._looker.cgroups.has_cpusets()
        unseen: list[str] = []
        online, budget = self._looker.sysfs.mask("online"), self._budget()
        if self.keeps and alone:
            # What a program has done with its mask since the last change is not to be undone.
            self._review(online, budget, settled=True)
        if going or everywhere:
            own = self._looker.own_masks(online)
            reviewed, more = False, 0
            for pid, tid, mask in self._looker.threads(budget, unseen):
                goes = bool(mask) and mask <= going
                looked = goes or (everywhere and mask < online)
                if not (looked and own.chosen(pid, tid, mask) and (goes or own.in_cpuset(pid, tid))):
                    continue
                if len(self._known) >= MOST_REMEMBERED and not reviewed:
                    self._review(online, budget, settled=alone)
                    reviewed = True
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
        if started is None or mask is None:
            return
        if known is not None and known.started == started and known.put == mask:
            # What it has is a part of what it had, maybe.
            known.endangered, known.change = True, self._change
        else:
            self._known[tid] = _Remembered(pid, started, mask, self._change)

    def _review(self, online: frozenset[int], budget: Budget, *, settled: bool) -> None:
        """Forget of earlier changes who has ended; if these are settled, also whom nothing is owed any more."""
        for place, (tid, known) in enumerate(list(self._known.items())):
            if place % STRIDE == 0 and budget.spent():
                return
            if known.change == self._change:
                continue
            stands = self._stands(tid, known, online)
            if settled and stands in (_Stands.WHOLE, _Stands.CUT):
                known.endangered = False
            done = stands is _Stands.OTHER or (stands is _Stands.WHOLE and known.put is None)
            if stands is _Stands.ENDED or (settled and done):
                del self._known[tid]

    def put_back(self, *, settled: bool = True) -> None:
        """Give threads their masks back whose CPUs are there again, if that is wanted.

        `settled`: no change is under way, nor has the kernel anything left to do of the last one. Then a thread that is
        whole has come through it.
        """
        if not self.keeps:
            return
        online = self._looker.sysfs.mask("online")
        for tid, known in list(self._known.items()):
            stands = self._stands(tid, known, online)
            if stands is _Stands.ENDED:
                del self._known[tid]
            elif stands is _Stands.WIDENED or (stands is _Stands.CUT and (known.mask & online) - (known.put or set())):
                if known.mask & online:
                    self._put(tid, known, settled=settled)
            elif settled and stands in (_Stands.WHOLE, _Stands.CUT):
                known.endangered = False
                if known.put is None:
                    del self._known[tid]  # else it is told first
            elif settled and stands is _Stands.OTHER and not known.endangered:
                del self._known[tid]

    def _put(self, tid: int, known: _Remembered, *, settled: bool) -> None:
        try:
            self._tasks.pin(tid, known.mask)
        except OSError as error:
            self._complain(tid, error)
        else:
            known.put = self._tasks.allowed(known.pid, tid)
            known.endangered = not settled
            logs.info("mask put back", tid=tid, cpus=cpulist.render(known.mask))

    def _complain(self, tid: int, error: OSError) -> None:
        if not self._denied:
            self._denied = True
            logs.warning(
                "a thread's mask cannot be put back: see keep_affinity in vcpud(8)", tid=tid, error=error.strerror or ""
            )

    def fates(self, *, settled: bool = True) -> tuple[Broken, ...]:
        """Return what became of the remembered threads, by mask and fate. `settled`: see put_back.

        Those whose masks are whole are forgotten then: the host is told once.
        """
        online = self._looker.sysfs.mask("online")
        groups: dict[tuple[frozenset[int], Fate], Group] = {}
        for tid, known in list(self._known.items()):
            stands = self._stands(tid, known, online)
            fate = self._fate(stands, known, online)
            if stands is _Stands.ENDED or (settled and self._is_done(stands, known)):
                del self._known[tid]
            if fate is not None and len(groups) < MOST:
                groups.setdefault((known.mask, fate), Group()).add(known.pid, tid)
        left = MOST_REMEMBERED // 8
        found = []
        for (mask, fate), group in groups.items():
            some = tuple(self._tasks.describe(pid, tid) for pid, tid in group.first[: max(0, left)])
            left -= len(some)
            found.append(Broken(mask, fate, Threads(group.count, some)))
        return tuple(found)

    @staticmethod
    def _is_done(stands: _Stands, known: _Remembered) -> bool:
        return stands is _Stands.WHOLE or (stands is _Stands.OTHER and not known.endangered)

    @staticmethod
    def _fate(stands: _Stands, known: _Remembered, online: frozenset[int]) -> Fate | None:
        """Return what is told of a thread that stands so; None if that is nobody's business."""
        if stands is _Stands.CUT:
            return Fate.WIDENED if (known.mask & online) - (known.put or set()) else Fate.PUT_BACK
        if stands is _Stands.WHOLE:
            return None if known.put is None else Fate.PUT_BACK
        return {_Stands.ASLEEP: Fate.ASLEEP, _Stands.WIDENED: Fate.WIDENED}.get(stands)

    def _stands(self, tid: int, known: _Remembered, online: frozenset[int]) -> _Stands:
        mask = self._tasks.allowed(known.pid, tid) if self._tasks.started(known.pid, tid) == known.started else None
        if mask is None:
            return _Stands.ENDED
        if mask == known.mask:
            return _Stands.WHOLE if mask & online else _Stands.ASLEEP
        if known.put is not None and mask == known.put:
            return _Stands.CUT
        if known.endangered and mask >= self._unbound(tid, known, online):
            return _Stands.WIDENED
        return _Stands.OTHER

    def _unbound(self, tid: int, known: _Remembered, online: frozenset[int]) -> frozenset[int]:
        """Return the least that the kernel gives a thread whose mask it drops.

        Without a cpuset that is all possible CPUs, so a program that pins itself to the only CPU left is told from it.
        With one it is what the cpuset has, and there the two cannot be told apart while that is one CPU. Where
        partitions have taken CPUs from the root, these are left out.
        """
        effective = self._looker.cgroups.effective_of(self._tasks.cgroup(known.pid, tid))
        if effective is not None:
            return effective & online
        roots = (self._looker.cgroups.left_to_root() or online) & online
        return roots if roots != online else self._looker.sysfs.mask("possible")
