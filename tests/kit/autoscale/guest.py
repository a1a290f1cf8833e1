# SPDX-License-Identifier: Apache-2.0
"""A guest in simulated time: what runs, what waits, and the counters that tell of it.

It is a fluid: between two steps so many tasks are runnable, as many of them run as there are CPUs, and the host may
take a share of each CPU. That is far simpler than a scheduler, and the same for every rule that is tried on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from vcpu_host.autoscale.sample import CpuTimes, LoadSample

#: A backlog of requests becomes runnable tasks: so many seconds of work each. Clients give up what waits longer.
PIECE, PATIENCE = 0.1, 30.0
#: At most so many requests are worked on at once.
WORKERS = 32
#: Seconds from a decision until the CPUs are there: for the first, and for each further one (KVM, docs/reports/kvm.md).
UP_FIRST, UP_MORE, DOWN_EACH = 0.4, 0.1, 0.5


@dataclass(frozen=True, slots=True)
class Load:
    """What the guest has to do at a moment: ``threads`` that compute without end, and requests that bring ``work``.

    ``work`` is in vCPUs: seconds of work a second. ``stolen`` is the share of each CPU that the host takes.
    """

    threads: float = 0.0
    work: float = 0.0
    stolen: float = 0.0


@dataclass
class SimGuest:
    """The guest. ``vcpus`` are online now; what is asked for comes after the time that a resize takes.

    Without a ``steal_clock`` its kernel counts what is stolen as nothing, as under TCG.
    """

    vcpus: int = 1
    steal_clock: bool = True
    now: float = 0.0
    boot: str = "boot"
    runnable: float = 0.0
    used: float = 0.0
    waiting: float = 0.0
    load1: float = 0.0
    _backlog: float = 0.0
    _pressure: float = 0.0
    _comes: tuple[float, int] | None = None
    _times: dict[int, list[float]] = field(default_factory=dict)

    def scale(self, goal: int) -> None:
        """Begin to resize."""
        more = goal - self.vcpus
        takes = UP_FIRST + UP_MORE * (more - 1) if more > 0 else DOWN_EACH * -more
        self._comes = self.now + takes, goal

    @property
    def resizes(self) -> bool:
        """Whether a resize is under way."""
        return self._comes is not None

    def step(self, load: Load, seconds: float) -> None:
        """Live for so long under this load."""
        if self._comes is not None and self._comes[0] <= self.now:
            self.vcpus, self._comes = self._comes[1], None
        asks = min(float(WORKERS), load.work + self._backlog / PIECE) if load.work or self._backlog else 0.0
        self.runnable = load.threads + asks
        running = min(self.runnable, float(self.vcpus))
        self.used = running * (1.0 - load.stolen)
        served = self.used * asks / self.runnable if self.runnable else 0.0
        self._backlog = min(max(0.0, self._backlog + (load.work - served) * seconds), PATIENCE * load.work)
        # Requests come at random, so some wait before all CPUs are busy (Sakasegawa's formula for a queue's length).
        share = min(0.97, load.work / self.vcpus)
        random = min(2.0, share ** math.sqrt(2 * (self.vcpus + 1)) / (1 - share)) if share else 0.0
        self.waiting = max(self.runnable - running, random)
        self._count(load, running, seconds)
        self.load1 += (self.runnable - self.load1) * (1 - math.exp(-seconds / 60))
        self.now += seconds

    def _count(self, load: Load, running: float, seconds: float) -> None:
        self._pressure += (1 - math.exp(-2 * self.waiting)) * seconds
        for number in range(self.vcpus):
            times = self._times.setdefault(number, [0.0, 0.0, 0.0, 0.0])
            times[0] += self.used / self.vcpus * seconds
            times[1] += running * load.stolen / self.vcpus * seconds * self.steal_clock
            times[2] += self.waiting / self.vcpus * seconds
            times[3] += (1.0 - running / self.vcpus) * seconds

    def sample(self) -> LoadSample:
        """Return what the agent would tell now."""
        cpus = []
        for number in range(self.vcpus):
            busy, steal, waited, idle = self._times.get(number, (0.0, 0.0, 0.0, 0.0))
            cpus.append(CpuTimes(number, busy, steal, 0.0, waited, idle))
        return LoadSample(
            self.now + 3600.0,
            self.boot,
            tuple(cpus),
            round(self.runnable),
            cpu_pressure=self._pressure,
            memory_pressure=0.0,
        )
