# SPDX-License-Identifier: Apache-2.0
"""What programs of the guest have to do with its CPUs, as values, and the rules by which it is read.

kernel/tasks.py, kernel/cgroupfs.py, kernel/units.py and kernel/netdev.py read; cpus/workload.py puts it together.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vcpu_guest.core import cpulist

#: The most entries of each list of a workload, and the most threads that are named of those alike (agent.proto).
MOST, SOME = 1024, 4
#: Bytes of a name that are passed on.
MAX_NAME = 256
#: In field 9 of /proc/PID/stat (include/linux/sched.h, PF_KTHREAD).
_KERNEL_THREAD = 0x00200000
#: The last part of a cgroup's path that systemd names after a unit with processes of its own.
_UNIT = re.compile(r"[^/]+\.(?:service|scope|socket|mount|swap)")


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread of a program. `unit` is systemd's, "" if there is none. Names are escaped."""

    pid: int
    tid: int
    comm: str
    unit: str = ""
    cgroup: str = ""


@dataclass(frozen=True, slots=True)
class Threads:
    """How many threads, and the first few of them."""

    count: int = 0
    some: tuple[Thread, ...] = ()


@dataclass(frozen=True, slots=True)
class Pinned:
    """Threads that may run on these CPUs alone, of those that are online."""

    cpus: frozenset[int]
    threads: Threads


class Fate(enum.Enum):
    """What became of a thread whose last CPU went; the values are those of Broken.Fate in agent.proto."""

    WIDENED = 1
    ASLEEP = 2
    PUT_BACK = 3


@dataclass(frozen=True, slots=True)
class Broken:
    """Threads that had this mask, and what became of them."""

    cpus: frozenset[int]
    fate: Fate
    threads: Threads


@dataclass(frozen=True, slots=True)
class Cpuset:
    """A cgroup with CPUs of its own, as its files say. `populated`: there are processes in it or below it."""

    cgroup: str
    cpus: str
    effective: str
    partition: str
    populated: bool


@dataclass(frozen=True, slots=True)
class AffineUnit:
    """A unit of systemd's with CPUAffinity=. `active`: it has a cgroup with processes."""

    name: str
    cpus: frozenset[int]
    active: bool


@dataclass(frozen=True, slots=True)
class NetworkDevice:
    """A network device, how many queue pairs it uses, and how many it has."""

    name: str
    driver: str
    queue_pairs: int
    most_queue_pairs: int


@dataclass(frozen=True, slots=True)
class Quota:
    """A cgroup that may use the time of so many CPUs."""

    cgroup: str
    unit: str
    cpus: float


@dataclass(frozen=True, slots=True)
class Workload:
    """All that one look has found; agent.proto says what each field means."""

    online: frozenset[int] = frozenset()
    pinned: tuple[Pinned, ...] = ()
    cpusets: tuple[Cpuset, ...] = ()
    units: tuple[AffineUnit, ...] = ()
    deadline: Threads = field(default_factory=Threads)
    forgotten: Threads = field(default_factory=Threads)
    broken: tuple[Broken, ...] = ()
    network: tuple[NetworkDevice, ...] = ()
    quotas: tuple[Quota, ...] = ()
    isolated: str = ""
    nohz_full: str = ""
    partition_isolated: str = ""
    kdump_reloads: bool = False
    root_effective: str = ""
    unseen: tuple[str, ...] = ()


class Group:
    """Threads that are counted, of which the first few are kept by their ids."""

    __slots__ = ("count", "first")

    def __init__(self) -> None:
        self.count = 0
        self.first: list[tuple[int, int]] = []

    def add(self, pid: int, tid: int) -> None:
        """Count a thread."""
        self.count += 1
        if len(self.first) < SOME:
            self.first.append((pid, tid))


def escaped(name: bytes | str, limit: int = MAX_NAME) -> str:
    """Return a name on one line, of printable characters, at most `limit` bytes of UTF-8. What is cut ends with "...".

    Users of the guest choose names of threads and of their cgroups, with any byte in them.
    """
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[: limit + 1])
    data = text.encode()
    return text if len(data) <= limit else data[: limit - 3].decode("utf-8", "ignore") + "..."


def stat_fields(stat: bytes) -> tuple[bytes, bool, int] | None:
    """Return name, whether it is a kernel thread, and start time (clock ticks), of /proc/PID/stat; None if it is none.

    The name stands in parentheses, and may itself contain any.
    """
    head, found, tail = stat.rpartition(b")")
    fields = tail.split()
    if not found or len(fields) < 20 or not (fields[6].isdigit() and fields[19].isdigit()):
        return None
    return head.partition(b"(")[2], bool(int(fields[6]) & _KERNEL_THREAD), int(fields[19])


def allowed(status: bytes) -> frozenset[int] | None:
    """Return Cpus_allowed_list of /proc/PID/status; None if it is not there, or not to its end."""
    match = re.search(rb"^Cpus_allowed_list:\t?([0-9,-]*)\n", status, re.MULTILINE)
    if match is None:
        return None
    try:
        return cpulist.parse(match[1].decode("ascii"))
    except ValueError:
        return None


def cgroup_of(text: bytes) -> str:
    """Return the path in the one hierarchy of cgroup v2 that /proc/PID/cgroup names, "" if there is none."""
    for line in text.split(b"\n"):
        if line.startswith(b"0::"):
            return line[3:].decode("utf-8", "surrogateescape")
    return ""


def unit_of(cgroup: str) -> str:
    """Return the unit that a cgroup belongs to: the innermost one that its path names, "" if it names none."""
    return next((part for part in reversed(cgroup.split("/")) if _UNIT.fullmatch(part)), "")


def quota_of(text: str) -> float | None:
    """Return how many CPUs' time cpu.max allows; None for no limit ("max 100000")."""
    words = text.split()
    if len(words) != 2 or not (words[0].isdigit() and words[1].isdigit()) or int(words[1]) == 0:
        return None
    return int(words[0]) / int(words[1])


def cpu_affinity(texts: Iterable[bytes], instance: str = "") -> frozenset[int]:
    """Return the CPUs of CPUAffinity= in a unit's file and its drop-ins, in the order in which systemd reads them.

    Assignments add up, and an empty one takes back those before it (systemd.exec(5)). "numa" names no CPU by itself,
    and what cannot be read is left out, as systemd does. `instance` is what stands between "@" and the kind in the
    unit's name.
    """
    found: frozenset[int] = frozenset()
    for text in texts:
        section = b""
        for line in map(bytes.strip, text.replace(b"\\\n", b" ").split(b"\n")):
            if line.startswith(b"["):
                section = line
            name, sign, value = line.partition(b"=")
            if not sign or name.rstrip() != b"CPUAffinity" or section in (b"[Unit]", b"[Install]"):
                continue
            found = found | _cpus(_expanded(value, instance)) if value.strip() else frozenset()
    return found


def _expanded(value: bytes, instance: str) -> bytes:
    """Return the value with the instance's name for "%i", and that unescaped for "%I" (systemd.unit(5))."""
    if b"%" not in value:
        return value
    name = instance.encode("utf-8", "surrogateescape")
    plain = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), name.replace(b"-", b"/"))
    words = {b"%%": b"%", b"%i": name, b"%I": plain}
    return re.sub(rb"%.", lambda match: words.get(match[0], match[0]), value)


def _cpus(value: bytes) -> frozenset[int]:
    try:
        return cpulist.parse(",".join(value.decode("ascii").replace(",", " ").split()))
    except (ValueError, UnicodeDecodeError):
        return frozenset()


def forgets_masks(release: str) -> bool:
    """Say whether this kernel forgets the own masks of threads in child cpusets whenever a CPU comes or goes.

    6.1 was seen to, 6.12 and 7.2 were not. Those in between were not tried: by the sources 6.2 is the first that keeps
    what a program asked for (commit 8f9ea86fdf99, "sched: Always preserve the user requested cpumask").
    """
    match = re.match(r"(\d+)\.(\d+)", release)
    return match is not None and (int(match[1]), int(match[2])) < (6, 2)


def cut(items: list[Any], what: str, unseen: list[str]) -> None:
    """Cut a list at MOST entries, and say so."""
    if len(items) > MOST:
        unseen.append(f"{what}: {len(items)} were found, and {MOST} are told")
        del items[MOST:]
