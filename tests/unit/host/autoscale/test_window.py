# SPDX-License-Identifier: Apache-2.0
"""The usage of the last minutes."""

from __future__ import annotations

import pytest
from vcpu_host.autoscale.usage import Usage
from vcpu_host.autoscale.window import Window


def _usage(
    at: float, span: float, used: float, waiting: float | None = 0.0, steal: float = 0.0, missed: float = 0.0
) -> Usage:
    return Usage(at, span, 4, used, steal, 0.0, waiting, 0.0, None, missed)


def test_what_was_missed_is_stolen_unless_the_counters_may_err_by_that() -> None:
    for missed, stolen in (((0.6, 0.2), 0.5), ((0.6, -0.4), 0.1), ((-0.5, -0.5), 0.1), ((0.11, 0.11), 0.1)):
        window = Window(2.0, 60.0)
        for second, lack in enumerate(missed):
            window.add(_usage(second + 1.0, 1.0, 1.0, 0.5, 0.1, lack))
        found = window.averages(2.0)
        assert found is not None
        assert found.steal == pytest.approx(stolen), missed
        assert found.running == pytest.approx(1.0 + stolen)
        assert found.demand == pytest.approx(1.5 + stolen)
        assert window.highest(2.0) is not None


def test_averages_are_over_the_newest_seconds_and_weighed_by_time() -> None:
    window = Window(2.0, 60.0)
    window.add(_usage(1.0, 1.0, 4.0))
    window.add(_usage(2.0, 1.0, 1.0))
    window.add(_usage(2.5, 0.5, 3.0))
    found = window.averages(2.5)
    assert found is not None
    assert found.covers == pytest.approx(2.0)
    assert found.used == pytest.approx((0.5 * 4 + 1.0 * 1 + 0.5 * 3) / 2)


def test_of_a_span_that_began_long_ago_only_the_rest_counts() -> None:
    window = Window(2.0, 60.0)
    window.add(_usage(10.0, 10.0, 0.1))
    window.add(_usage(11.9, 1.9, 4.0))
    found = window.averages(11.9)
    assert found is not None
    assert found.used == pytest.approx((0.1 * 0.1 + 1.9 * 4.0) / 2)


def test_the_highest_is_that_of_the_long_window_and_goes_with_it() -> None:
    window = Window(1.0, 10.0)
    window.add(_usage(1.0, 1.0, 3.0, 2.0))
    for second in range(2, 12):
        window.add(_usage(float(second), 1.0, 1.0))
    found = window.highest(11.0)
    assert found is not None
    assert (found.demand, found.used) == (5.0, 3.0)
    window.add(_usage(12.0, 1.0, 1.0))
    found = window.highest(12.0)
    assert found is not None
    assert (found.demand, found.used) == (1.0, 1.0)


def test_a_long_window_takes_no_more_memory_than_a_short_one() -> None:
    window = Window(0.05, 86400.0)
    for turn in range(20_000):
        window.add(_usage(turn * 0.05, 0.05, 4.0 - turn * 1e-4))
    assert len(window._used._values) < 600
    found = window.highest(1000.0)
    assert found is not None
    assert found.used == pytest.approx(4.0)


def test_after_a_gap_it_begins_anew() -> None:
    window = Window(1.0, 60.0, gap=15.0)
    window.add(_usage(1.0, 1.0, 4.0))
    window.add(_usage(5.0, 4.0, 4.0))
    assert window.covered(5.0) == pytest.approx(5.0)
    window.add(_usage(40.0, 1.0, 1.0))
    assert window.covered(40.0) == pytest.approx(1.0)
    found = window.highest(40.0)
    assert found is not None
    assert found.used == 1.0


def test_what_is_not_known_stays_so() -> None:
    window = Window(1.0, 60.0)
    assert window.averages(0.0) is None
    assert window.highest(0.0) is None
    window.add(_usage(1.0, 1.0, 1.0, None))
    found = window.averages(1.0)
    assert found is not None
    assert found.waiting is None
    assert found.demand == 1.0
