# SPDX-License-Identifier: Apache-2.0
"""Looks at what programs of the guest have to do with its CPUs. Done on request only: it looks at every thread.

What it costs is bounded: CPU time, threads, cgroups, and what is kept of them. What was not looked at to its end is
told as such, so that nothing follows from its absence.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from vcpu_guest.core import cpulist
from vcpu_guest.core.workload import (
    MOST,
    AffineUnit,
    Broken,
    Cpuset,
    Group,
    NetworkDevice,
    Pinned,
    Quota,
    Threads,
    Workload,
    cut,
    escaped,
    forgets_masks,
    unit_of,
)
from vcpu_guest.kernel.cgroupfs import Cgroup, Cgroups
from vcpu_guest.kernel.netdev import Channels, channels, network_devices
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.kernel.tasks import Tasks
from vcpu_guest.kernel.units import Units

#: CPU seconds of the looking thread. 20,000 threads take a tenth of that on hardware.
SECONDS = 1.0
#: The most threads and cgroups that are looked at, and the most threads that are named in one answer.
MOST_THREADS, MOST_CGROUPS, MOST_NAMED = 262_144, 16_384, 512
#: So many threads are looked at between two looks at the clock.
STRIDE = 256
_DEADLINE = 6  # include/uapi/linux/sched.h, SCHED_DEADLINE
#: kdump-tools' rule, which loads the crash kernel anew at "add", "remove" and "online" of every CPU.
KDUMP_RULES = ("/etc/udev/rules.d/50-kdump-tools.rules", "/usr/lib/udev/rules.d/50-kdump-tools.rules")


class Budget:
    """The CPU time that a look may take, in seconds of the thread that looks."""

    def __init__(self, seconds: float = SECONDS, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self.seconds = seconds
        self._until = clock() + seconds

    def spent(self) -> bool:
        """Say whether it is used up."""
        return self._clock() >= self._until


class Looker:
    """Looks at one machine. `ask_channels` asks a network device; a test has its own, as it has of `budget`."""

    def __init__(
        self,
        sysfs: Sysfs,
        kernel: str,
        tasks: Tasks | None = None,
        units: Units | None = None,
        ask_channels: Channels = channels,
        budget: Callable[[], Budget] = Budget,
        kdump_rules: tuple[str, ...] = KDUMP_RULES,
    ) -> None:
        self.sysfs = sysfs
        self.tasks = tasks or Tasks()
        self.cgroups = Cgroups(sysfs)
        self.forgets = forgets_masks(kernel)
        self._units = units or Units()
        self._ask_channels = ask_channels
        self._budget = budget
        self._kdump_rules = kdump_rules

    def look(
        self, going: frozenset[int], *, use: bool, forgotten: bool = False, broken: tuple[Broken, ...] = ()
    ) -> Workload:
        """Return what is to be told: see WorkloadRequest in agent.proto. Blocks for as long as the budget lasts."""
        budget, unseen = self._budget(), list[str]()
        online = self.sysfs.mask("online")
        forgotten = forgotten and self.forgets and self.cgroups.has_cpusets()
        threads = _Threads(self, online, going, forgotten=forgotten)
        if going or forgotten:
            threads.look(budget, unseen)
        cpusets, quotas = self._cgroups(online, going, budget, unseen, use=use)
        return Workload(
            online=online,
            pinned=threads.pinned(unseen),
            cpusets=cpusets,
            units=self._affine(online, going, unseen, use=use) if going or use else (),
            deadline=threads.named(threads.deadline),
            forgotten=threads.named(threads.own),
            broken=broken,
            network=self._network() if use else (),
            quotas=quotas,
            isolated=_list(self.sysfs, "isolated") if use else "",
            nohz_full=_list(self.sysfs, "nohz_full") if use else "",
            partition_isolated=self.cgroups.isolated() if use else "",
            kdump_reloads=use and self._kdump_reloads(),
            root_effective=self.cgroups.root_effective() if use else "",
            unseen=tuple(unseen),
        )

    def threads(self, budget: Budget, unseen: list[str]) -> Iterator[tuple[int, int, frozenset[int]]]:
        """Yield process, thread and active mask of each thread, until the budget is used up, which is told then."""
        seen = 0
        for pid, tid in self.tasks.threads():
            if seen % STRIDE == 0 and (budget.spent() or seen >= MOST_THREADS):
                unseen.append(
                    f"threads: {seen} were looked at, which took {budget.seconds:g} s of CPU time, or are many"
                )
                return
            seen += 1
            try:
                yield pid, tid, frozenset(self.tasks.affinity(tid))
            except OSError:  # it has ended meanwhile
                continue

    def own_masks(self, online: frozenset[int]) -> OwnMasks:
        """Return what tells a thread's own mask while these CPUs are online."""
        return OwnMasks(self.tasks, self.cgroups, online)

    def _cgroups(
        self, online: frozenset[int], going: frozenset[int], budget: Budget, unseen: list[str], *, use: bool
    ) -> tuple[tuple[Cpuset, ...], tuple[Quota, ...]]:
        if not self.cgroups.unified:
            unseen.append("cgroups: there is no cgroup v2 at /sys/fs/cgroup")
            return (), ()
        seen = 0

        def enough() -> bool:
            nonlocal seen
            seen += 1
            return seen > MOST_CGROUPS or budget.spent()

        cpusets: list[Cpuset] = []
        quotas: list[Quota] = []
        for group in self.cgroups.walk(enough):
            if self._tells(group, online, going, use=use) and len(cpusets) <= MOST:
                cpusets.append(self._cpuset(group))
            if use and group.quota is not None and len(quotas) <= MOST:
                quotas.append(Quota(_path(group.path), _path(unit_of(group.path)), group.quota))
        if seen > MOST_CGROUPS or budget.spent():
            unseen.append(f"cgroups: {min(seen, MOST_CGROUPS)} were looked at, and there are more")
        cut(cpusets, "cpusets", unseen)
        cut(quotas, "quotas", unseen)
        return tuple(cpusets), tuple(quotas)

    def _tells(self, group: Cgroup, online: frozenset[int], going: frozenset[int], *, use: bool) -> bool:
        """Say whether this cpuset may lose its last CPU, or is a partition that is asked for."""
        partition = group.partition not in ("", "member")
        if use and partition:
            return True
        if not (group.cpus or partition):
            return False
        own = _parsed(group.effective) & online
        if not partition:
            # Of the CPUs that it asks for it has those that its parent has. With none of them it has its parent's.
            own &= _parsed(group.cpus)
        return _matters(own, going, use=use)

    def _cpuset(self, group: Cgroup) -> Cpuset:
        return Cpuset(
            _path(group.path), group.cpus, group.effective, group.partition[:80], self.cgroups.populated(group.path)
        )

    def _affine(
        self, online: frozenset[int], going: frozenset[int], unseen: list[str], *, use: bool
    ) -> tuple[AffineUnit, ...]:
        found = [
            AffineUnit(escaped(os.fsencode(name)), cpus, self._runs(name))
            for name, cpus in self._units.with_affinity(self.cgroups.units).items()
            if _matters(cpus & online, going, use=use)
        ]
        cut(found, "units", unseen)
        return tuple(found)

    def _runs(self, unit: str) -> bool:
        """Say whether a unit of the system's own slice runs. One of another slice counts as stopped.

        Instances of a template have a slice below that, named after the template (systemd's unit_set_default_slice).
        """
        prefix, at, _ = unit.partition("@")
        inner = "system-" + prefix.replace("\\", "\\x5c").replace("-", "\\x2d") + ".slice/"
        places = ("", inner) if at else ("",)
        return any(self.cgroups.populated(f"/system.slice/{place}{unit}") for place in places)

    def _network(self) -> tuple[NetworkDevice, ...]:
        devices = network_devices(self.sysfs, self._ask_channels)
        return tuple(each for each in devices if each.queue_pairs < each.most_queue_pairs)[:MOST]

    def _kdump_reloads(self) -> bool:
        loaded = self.sysfs.read("kernel/kexec_crash_loaded") == "1"
        return loaded and any(os.path.exists(path) for path in self._kdump_rules)


class OwnMasks:
    """Tells masks that programs chose from those that their cgroups give them, and from those of the kernel's threads.

    What it learns of a process goes for all of its threads, so those are best asked about one after another. Threads of
    a process whose cgroups are threaded may each be in another one, and are asked about one by one.
    """

    def __init__(self, tasks: Tasks, cgroups: Cgroups, online: frozenset[int]) -> None:
        self._tasks = tasks
        self._cgroups = cgroups
        self._online = online
        self._pid = self._tid = 0
        self._whole: frozenset[int] = frozenset()
        self._in_cpuset = False
        self._apart = False
        #: Of each cgroup that was met: its CPUs, and whether its process may have threads elsewhere.
        self._places: dict[str, tuple[frozenset[int] | None, bool]] = {}

    def chosen(self, pid: int, tid: int, mask: frozenset[int]) -> bool:
        """Say whether the thread's online CPUs, `mask`, are fewer than it would have without a mask of its own."""
        self._learn(pid, tid)
        return mask < self._whole

    def in_cpuset(self, pid: int, tid: int) -> bool:
        """Say whether the thread is in a cpuset of a cgroup below the root."""
        self._learn(pid, tid)
        return self._in_cpuset

    def _learn(self, pid: int, tid: int) -> None:
        if pid != self._pid:
            self._pid, self._whole, self._in_cpuset, self._apart = pid, frozenset(), False, False
            users = self._tasks.is_users(pid, tid)
            if not users:
                # Of a thread that has ended nothing follows for the others of its process.
                self._pid = 0 if users is None else pid
                return
        elif not self._apart or tid == self._tid:
            return
        self._tid = tid
        cgroup = self._tasks.cgroup(pid, tid)
        if cgroup not in self._places:
            self._places[cgroup] = self._cgroups.effective_of(cgroup), self._cgroups.parts_threads(cgroup)
        effective, self._apart = self._places[cgroup]
        self._in_cpuset = effective is not None
        self._whole = self._online if effective is None else effective & self._online


class _Threads:
    """The threads that matter for one look."""

    def __init__(self, looker: Looker, online: frozenset[int], going: frozenset[int], *, forgotten: bool) -> None:
        self._looker = looker
        self._tasks = looker.tasks
        self._online = online
        self._going = going
        self._forgotten = forgotten
        self._own = looker.own_masks(online)
        self._by_mask: dict[frozenset[int], Group] = {}
        self._more = 0
        self._left = MOST_NAMED
        self.deadline = Group()
        self.own = Group()

    def look(self, budget: Budget, unseen: list[str]) -> None:
        """Go through all threads. Most have the mask of their cgroup, and only a few are asked for more than that."""
        going, policy, own, online = self._going, self._tasks.policy, self._own, self._online
        for pid, tid, mask in self._looker.threads(budget, unseen):
            if mask and mask <= going and own.chosen(pid, tid, mask):
                self._pin(mask, pid, tid)
            if self._forgotten and mask < online and own.chosen(pid, tid, mask) and own.in_cpuset(pid, tid):
                self.own.add(pid, tid)
            if going and _policy(policy, tid) == _DEADLINE:
                self.deadline.add(pid, tid)

    def _pin(self, mask: frozenset[int], pid: int, tid: int) -> None:
        group = self._by_mask.get(mask)
        if group is None:
            if len(self._by_mask) >= MOST:
                self._more += 1
                return
            group = self._by_mask[mask] = Group()
        group.add(pid, tid)

    def pinned(self, unseen: list[str]) -> tuple[Pinned, ...]:
        """Return the pinned threads by their masks."""
        if self._more:
            unseen.append(f"threads: {self._more} more are pinned to other sets of CPUs than the {MOST} that are told")
        return tuple(Pinned(mask, self.named(group)) for mask, group in self._by_mask.items())

    def named(self, group: Group) -> Threads:
        """Return how many there are and who the first ones are, as long as not too many were named."""
        some = group.first[: max(0, self._left)]
        self._left -= len(some)
        return Threads(group.count, tuple(self._tasks.describe(pid, tid) for pid, tid in some))


def _matters(own: frozenset[int], going: frozenset[int], *, use: bool) -> bool:
    """Say whether these online CPUs of a cpuset or a unit may all go, or there are none, which is asked for."""
    return own <= going if own else use


def _policy(policy: Callable[[int], int], tid: int) -> int:
    try:
        return policy(tid) & ~os.SCHED_RESET_ON_FORK
    except OSError:  # it has ended meanwhile
        return -1


def _list(sysfs: Sysfs, name: str) -> str:
    return cpulist.render(sysfs.mask(name))


def _parsed(text: str) -> frozenset[int]:
    try:
        return cpulist.parse(text)
    except ValueError:
        return frozenset()


def _path(text: str) -> str:
    return escaped(text.encode("utf-8", "surrogateescape"))
