# SPDX-License-Identifier: Apache-2.0
"""What the agent says of the guest's programs, as frozen values (see WorkloadResponse in agent.proto).

A set of guest CPUs is an int here, with a bit for each number: there may be a thousand sets of thousands of CPUs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from ..finding import Level
from ..reason import Reason


class Who(NamedTuple):
    """A thread, a unit or a cgroup of the guest; empty or 0 what it is not."""

    pid: int = 0
    tid: int = 0
    comm: str = ""
    unit: str = ""
    cgroup: str = ""

    def __str__(self) -> str:
        if self.comm:
            return f"{self.comm}[{self.pid}]" + (f" of {self.unit}" if self.unit else "")
        return self.unit or self.cgroup


@dataclass(frozen=True, slots=True)
class Threads:
    """How many threads, and the first few of them."""

    count: int = 0
    some: tuple[Who, ...] = ()


class Pinned(NamedTuple):
    """Threads that may run on these CPUs alone, of those that are online."""

    cpus: int
    threads: Threads


class Fate(StrEnum):
    """What became of a thread whose last CPU went."""

    WIDENED = "widened"
    ASLEEP = "asleep"
    PUT_BACK = "put-back"


class Broken(NamedTuple):
    """Threads that had this mask, and what became of them."""

    cpus: int
    fate: Fate
    threads: Threads


class Cpuset(NamedTuple):
    """A cgroup with CPUs of its own: those that it wants, those that it has, and how its partition stands."""

    cgroup: str
    cpus: int
    effective: int
    partition: str
    populated: bool

    @property
    def is_partition(self) -> bool:
        """Whether it is a partition that is valid."""
        return self.partition in ("root", "isolated")

    @property
    def is_invalid(self) -> bool:
        """Whether it was made a partition, and is none."""
        return "invalid" in self.partition

    def own(self, online: int) -> int:
        """Return the online CPUs of its own. Another cpuset than a partition that has none has its parent's.

        Of the CPUs that such a one asks for it has those alone that its parent has, too.
        """
        return (self.effective if self.is_partition else self.cpus & self.effective) & online


class AffineUnit(NamedTuple):
    """A unit of systemd's with CPUAffinity=, and whether it runs."""

    name: str
    cpus: int
    active: bool


class NetworkDevice(NamedTuple):
    """A network device, how many queue pairs it uses, and how many it has."""

    name: str
    queue_pairs: int
    most_queue_pairs: int


class Quota(NamedTuple):
    """A cgroup that may use the time of so many CPUs."""

    cgroup: str
    unit: str
    cpus: float


class Workload(NamedTuple):
    """One look at the guest's programs. ``unseen`` says what was not looked at, or not to its end."""

    online: int = 0
    pinned: tuple[Pinned, ...] = ()
    cpusets: tuple[Cpuset, ...] = ()
    units: tuple[AffineUnit, ...] = ()
    deadline: Threads = Threads()
    forgotten: Threads = Threads()
    broken: tuple[Broken, ...] = ()
    network: tuple[NetworkDevice, ...] = ()
    quotas: tuple[Quota, ...] = ()
    isolated: int = 0
    nohz_full: int = 0
    partition_isolated: int = 0
    kdump_reloads: bool = False
    root_effective: int = 0
    unseen: tuple[str, ...] = ()


class Programs(NamedTuple):
    """What is known of the guest's programs for a plan.

    ``workload`` is None if they cannot be looked at: ``trouble`` says why. ``refuses``: whatever hurts them is refused.
    ``asked`` are the identities of the CPUs that the agent was asked about, all of them if it is None: of others it has
    not told who needs them.
    """

    workload: Workload | None = None
    trouble: Reason | None = None
    refuses: bool = False
    asked: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """What an operation does to the guest's programs, or what keeps them from using its CPUs.

    ``level`` is WARNING for what hurts them. ``slots`` are those that it is about, ``count`` is how many threads, units
    or cgroups, of which ``who`` names the first few.
    """

    level: Level
    code: str
    text: str
    hint: str = ""
    slots: tuple[int, ...] = ()
    count: int = 0
    who: tuple[Who, ...] = ()

    @property
    def hurts(self) -> bool:
        """Whether a program loses something."""
        return self.level is Level.WARNING
