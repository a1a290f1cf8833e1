# SPDX-License-Identifier: Apache-2.0
"""What the kernel's files say of the load. Counters are in microseconds since the guest's boot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

#: A task waits for a CPU for more than this share of the time: the guest is busy.
BUSY_PRESSURE = 0.02
#: Where neither PSI nor wait times are to be had: a CPU works for more than this share of the time.
BUSY_CPU = 0.5


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """The times of one online CPU; `waited` is how long tasks waited in its run queue, if known."""

    number: int
    busy: int
    steal: int
    iowait: int
    idle: int
    waited: int | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """One look. `seconds` is CLOCK_MONOTONIC; pressures are the totals of "some"; None is not known.

    `runnable` are the tasks that run or could run, without the agent itself.
    """

    seconds: float
    cpus: tuple[CpuTimes, ...]
    runnable: int | None = None
    cpu_pressure: int | None = None
    memory_pressure: int | None = None


@dataclass(frozen=True, slots=True)
class LoadSupport:
    """What the kernel tells: PSI, wait times of run queues, and when tasks begin to wait."""

    pressure: bool
    run_queues: bool
    triggers: bool


@dataclass(frozen=True, slots=True)
class Periods:
    """How often the load is told, in seconds: see WatchLoadRequest in agent.proto."""

    calm: float
    busy: float
    quiet: float


def bounded(calm: float, busy: float, quiet: float, cpus: int) -> Periods:
    """Return what a host asked for, within what the agent grants to a guest of so many CPUs. 0 is the agent's choice.

    A look at each CPU costs some microseconds, so that a thousand CPUs are looked at once a second at most.
    """
    least = max(0.1, cpus / 1000)

    def within(asked: float, default: float) -> float:
        return min(max(asked if asked > 0 else default, least), 60.0)  # NaN is not above 0

    calm = within(calm, 1.0)
    return Periods(calm, min(within(busy, 0.25), calm), max(within(quiet, 10.0), calm))


def is_busy(before: Load, after: Load) -> bool:
    """Say whether tasks waited between the two looks, or, if that is not known, whether CPUs had little time left."""
    passed = (after.seconds - before.seconds) * 1e6
    if passed <= 0:
        return True
    if before.cpu_pressure is not None and after.cpu_pressure is not None:
        return after.cpu_pressure - before.cpu_pressure > BUSY_PRESSURE * passed
    old = {cpu.number: cpu for cpu in before.cpus}
    both = [(old[cpu.number], cpu) for cpu in after.cpus if cpu.number in old]
    waits = [new.waited - was.waited for was, new in both if new.waited is not None and was.waited is not None]
    if waits:
        return sum(waits) > BUSY_PRESSURE * passed * len(waits)
    return sum(new.busy - was.busy for was, new in both) > BUSY_CPU * passed * len(both)


def parse_stat(text: bytes, tick: int) -> tuple[tuple[CpuTimes, ...], int | None]:
    """Return the CPUs of /proc/stat, and how many tasks run or could run (proc_stat(5)); `tick` is in microseconds."""
    cpus, running = [], None
    for line in text.splitlines():
        fields = line.split()
        if line.startswith(b"cpu") and len(fields) > 8 and fields[0][3:].isdigit():
            user, nice, system, idle, iowait, irq, softirq, steal = map(int, fields[1:9])
            busy = user + nice + system + irq + softirq
            cpus.append(CpuTimes(int(fields[0][3:]), busy * tick, steal * tick, iowait * tick, idle * tick))
        elif fields[:1] == [b"procs_running"] and len(fields) == 2:
            running = int(fields[1])
    return tuple(cpus), running


def parse_schedstat(text: bytes) -> Mapping[int, int]:
    """Return for how long tasks waited in each CPU's run queue, by the CPU's number.

    It is the eighth value of a CPU's line, in nanoseconds, since version 15 (Documentation/scheduler/sched-stats.rst).
    """
    return dict(_waits(text))


def _waits(text: bytes) -> Iterator[tuple[int, int]]:
    lines = text.splitlines()
    if not lines or lines[0].split()[:1] != [b"version"] or int(lines[0].split()[1]) < 15:
        return
    for line in lines:
        fields = line.split()
        if line.startswith(b"cpu") and len(fields) >= 10 and fields[0][3:].isdigit():
            yield int(fields[0][3:]), int(fields[8]) // 1000


def parse_pressure(text: bytes) -> int | None:
    """Return the total of "some" (Documentation/accounting/psi.rst), None if there is none."""
    for line in text.splitlines():
        kind, *fields = line.split()
        for field in fields:
            if kind == b"some" and field.startswith(b"total="):
                return int(field.removeprefix(b"total="))
    return None
