# SPDX-License-Identifier: Apache-2.0
"""The kernel's files of the load, as kernels of several versions write them."""

from __future__ import annotations

import math

import pytest
from vcpu_guest.core.load import CpuTimes, Load, bounded, is_busy, parse_pressure, parse_schedstat, parse_stat

STAT = b"""cpu  1847 2 35 545 7 1 4 9 0 0
cpu0 900 1 20 300 3 1 2 4 0 0
cpu3 947 1 15 245 4 0 2 5 0 0
intr 12345 0 9 0
ctxt 12
btime 1790000000
processes 100
procs_running 5
procs_blocked 0
softirq 1 2 3
"""
SCHEDSTAT = b"""version 15
timestamp 4294967296
cpu0 0 0 0 0 0 0 12000000 3456789000 55
domain0 03 0 0 0
cpu3 0 0 0 0 0 0 13000000 1000 56
"""
PSI = b"some avg10=96.41 avg60=43.94 avg300=12.00 total=123456789\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"


def test_busy_time_is_all_but_idle_iowait_and_steal() -> None:
    cpus, running = parse_stat(STAT, 10_000)
    assert cpus == (
        CpuTimes(0, 9_240_000, 40_000, 30_000, 3_000_000),
        CpuTimes(3, 9_650_000, 50_000, 40_000, 2_450_000),
    )
    assert running == 5


def test_the_wait_of_a_run_queue_is_in_microseconds() -> None:
    assert parse_schedstat(SCHEDSTAT) == {0: 3_456_789, 3: 1}


@pytest.mark.parametrize("text", [b"", b"version 14\ncpu0 0 0 0 0 0 0 1 2 3\n", b"cpu0 0 0 0 0 0 0 1 2 3\n"])
def test_a_schedstat_of_an_older_form_tells_nothing(text: bytes) -> None:
    assert parse_schedstat(text) == {}


def test_the_total_of_some_is_what_counts_of_psi() -> None:
    assert parse_pressure(PSI) == 123_456_789
    assert parse_pressure(b"") is None
    assert parse_pressure(b"full avg10=0.00 total=5\n") is None


def test_a_host_gets_no_more_than_ten_looks_a_second_and_no_less_than_one_a_minute() -> None:
    periods = bounded(0.001, 0.001, 0.001, 1)
    assert (periods.calm, periods.busy, periods.quiet) == (0.1, 0.1, 0.1)
    periods = bounded(1e9, 1e9, math.inf, 1)
    assert (periods.calm, periods.busy, periods.quiet) == (60.0, 60.0, 60.0)
    periods = bounded(0, 0, 0, 1)
    assert (periods.calm, periods.busy, periods.quiet) == (1.0, 0.25, 10.0)
    assert bounded(math.nan, -1, math.nan, 1) == periods


def test_many_cpus_are_looked_at_more_seldom() -> None:
    assert bounded(0.1, 0.1, 0.1, 2000).busy == 2.0


def _load(seconds: float, busy: int, waited: int | None, pressure: int | None) -> Load:
    return Load(seconds, (CpuTimes(0, busy, 0, 0, 0, waited),), 1, pressure, None)


@pytest.mark.parametrize(
    ("after", "busy"),
    [
        (_load(11.0, 1_000_000, 0, 0), False),  # busy, and nobody waits
        (_load(11.0, 0, 0, 100_000), True),
        (_load(11.0, 0, 100_000, None), True),
        (_load(11.0, 1_000_000, 0, None), False),
        (_load(11.0, 600_000, None, None), True),
        (_load(11.0, 100_000, None, None), False),
        (_load(10.0, 0, 0, 0), True),  # no time has passed: look again soon
    ],
)
def test_tasks_that_wait_make_a_guest_busy_and_without_knowing_that_its_cpus_do(after: Load, busy: bool) -> None:
    before = _load(
        10.0, 0, 0 if after.cpus[0].waited is not None else None, 0 if after.cpu_pressure is not None else None
    )
    assert is_busy(before, after) is busy
