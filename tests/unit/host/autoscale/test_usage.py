# SPDX-License-Identifier: Apache-2.0
"""Rates from counters that a guest sends: right where they can be, bounded and left out where not."""

from __future__ import annotations

import math

import pytest
from vcpu_host.autoscale.sample import CpuTimes, LoadSample
from vcpu_host.autoscale.usage import LONGEST, MOST_WAITING, Meter


def _sample(
    time: float, *cpus: CpuTimes, boot: str = "b", pressure: float | None = 0.0, runnable: int = 1
) -> LoadSample:
    return LoadSample(time, boot, cpus, runnable, cpu_pressure=pressure, memory_pressure=None)


def _cpu(
    number: int, busy: float, waited: float | None = 0.0, steal: float = 0.0, idle: float | None = None
) -> CpuTimes:
    return CpuTimes(number, busy, steal, 0.0, waited, idle)


def test_two_samples_make_a_span_with_its_rates() -> None:
    meter = Meter()
    assert meter.take(_sample(10.0, _cpu(0, 5.0, 1.0), _cpu(1, 7.0, 2.0), pressure=3.0), 100.0) is None
    usage = meter.take(_sample(12.0, _cpu(0, 7.0, 3.0), _cpu(1, 8.0, 4.0), pressure=4.0), 102.5)
    assert usage is not None
    assert (usage.at, usage.span, usage.cpus) == (102.5, 2.0, 2)
    assert usage.used == pytest.approx(1.5)
    assert usage.waiting == pytest.approx(2.0)
    assert usage.pressure == pytest.approx(0.5)


def test_a_cpu_counts_only_between_samples_that_both_have_it() -> None:
    meter = Meter()
    meter.take(_sample(10.0, _cpu(0, 5.0)), 0.0)
    usage = meter.take(_sample(11.0, _cpu(0, 5.5), _cpu(1, 900.0)), 1.0)
    assert usage is not None
    assert usage.cpus == 1
    assert usage.used == pytest.approx(0.5)


def test_another_boot_begins_anew() -> None:
    meter = Meter()
    meter.take(_sample(1000.0, _cpu(0, 900.0)), 0.0)
    assert meter.take(_sample(5.0, _cpu(0, 1.0), boot="other"), 1.0) is None
    usage = meter.take(_sample(6.0, _cpu(0, 2.0), boot="other"), 2.0)
    assert usage is not None
    assert usage.used == pytest.approx(1.0)


@pytest.mark.parametrize("time", [10.0, 9.0, 10.01, 10.0 + LONGEST + 1])
def test_samples_that_do_not_follow_each_other_make_no_span(time: float) -> None:
    meter = Meter()
    meter.take(_sample(10.0, _cpu(0, 5.0)), 0.0)
    assert meter.take(_sample(time, _cpu(0, 6.0)), 1.0) is None


def test_a_late_sample_does_not_take_the_place_of_the_newest() -> None:
    meter = Meter()
    meter.take(_sample(10.0, _cpu(0, 5.0)), 0.0)
    meter.take(_sample(9.0, _cpu(0, 4.5)), 0.5)
    usage = meter.take(_sample(11.0, _cpu(0, 6.0)), 1.0)
    assert usage is not None
    assert usage.span == pytest.approx(1.0)


def test_absurd_counters_are_held_within_what_their_span_allows() -> None:
    meter = Meter()
    meter.take(_sample(10.0, _cpu(0, 5.0, 0.0), _cpu(1, 5.0, 0.0)), 0.0)
    usage = meter.take(_sample(11.0, _cpu(0, 1e12, 1e12, steal=1e12), _cpu(1, -1e12, 0.0), pressure=1e9), 1.0)
    assert usage is not None
    assert usage.used == 1.0
    assert usage.steal == 1.0
    assert usage.waiting == 2 * MOST_WAITING
    assert usage.pressure == 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_no_sample(bad: float) -> None:
    meter = Meter()
    meter.take(_sample(10.0, _cpu(0, 5.0)), 0.0)
    assert meter.take(_sample(10.5, _cpu(0, bad)), 0.5) is None
    assert meter.take(_sample(bad, _cpu(0, 5.0)), 0.6) is None
    assert meter.take(_sample(11.0, _cpu(0, 5.5)), 1.0) is not None


def test_without_schedstat_the_moments_runnable_tasks_stand_for_those_that_wait() -> None:
    meter = Meter()
    meter.take(_sample(10.0, _cpu(0, 5.0, None)), 0.0)
    usage = meter.take(_sample(11.0, _cpu(0, 6.0, None), runnable=4), 1.0)
    assert usage is not None
    assert usage.waiting == 3.0


@pytest.mark.parametrize(
    ("busy", "steal", "idle", "missed"),
    [
        (0.4, 0.0, 0.0, 0.6),  # seen under TCG, on a host with three vCPUs for each of its CPUs
        (0.4, 0.0, 0.03, 0.57),
        (0.7, 0.3, 0.0, 0.0),  # the kernel has a clock for it
        (0.5, 0.3, 0.0, 0.2),
        (1.01, 0.0, 0.0, -0.01),  # its counters have steps
        (0.4, 0.0, 0.3, 0.0),  # what ran between two ticks may be what lacks
        (0.4, 0.1, 0.3, 0.0),
        (0.4, 0.0, None, 0.0),  # an older agent
        (0.4, 0.0, -5.0, 0.0),  # it was offline in between
        (-0.4, 0.0, 0.0, 0.0),
        (-1e12, 0.0, 0.0, 0.0),
        (0.0, -1e12, 0.0, 1.0),
        (1e12, 0.0, 0.0, -1.0),
    ],
)
def test_what_a_cpu_that_is_never_idle_does_not_account_for_was_missed(
    busy: float, steal: float, idle: float | None, missed: float
) -> None:
    meter = Meter()
    meter.take(_sample(10.0, _cpu(0, 5.0, idle=None if idle is None else 5.0)), 0.0)
    usage = meter.take(_sample(11.0, _cpu(0, 5.0 + busy, steal=steal, idle=None if idle is None else 5.0 + idle)), 1.0)
    assert usage is not None
    assert usage.missed == pytest.approx(missed)
