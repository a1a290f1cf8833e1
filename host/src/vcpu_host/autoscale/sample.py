# SPDX-License-Identifier: Apache-2.0
"""What the guest's agent measured at one moment. Times are in seconds; counters count from the guest's boot."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """The times of one online guest CPU (/proc/stat, and run_delay of /proc/schedstat)."""

    number: int
    #: What ran there: user, nice, system, irq and softirq time.
    busy: float
    #: Runnable, while the host ran something else.
    steal: float
    iowait: float
    #: How long tasks waited in its run queue, all together; None where the kernel does not tell.
    waited: float | None = None
    #: None from an older agent.
    idle: float | None = None


@dataclass(frozen=True, slots=True)
class LoadSample:
    """One answer of WatchLoad.

    ``guest_time`` is the guest's CLOCK_MONOTONIC, ``boot`` names the guest's boot and the agent's start.
    ``cpu_pressure`` and ``memory_pressure`` are the totals of "some" (PSI); None where the kernel has none.
    ``runnable`` are the tasks that run or could run, without the agent itself.
    """

    guest_time: float
    boot: str
    cpus: tuple[CpuTimes, ...]
    runnable: int | None = None
    cpu_pressure: float | None = None
    memory_pressure: float | None = None
