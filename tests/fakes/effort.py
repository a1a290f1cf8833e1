# SPDX-License-Identifier: Apache-2.0
"""How the cost of some work grows with its size, told from one run, so that a slow or busy machine does not matter."""

from __future__ import annotations

import time
from collections.abc import Callable


def growth(prepare: Callable[[int], Callable[[], object]], small: int, large: int) -> float:
    """How many times as long ``large`` takes as ``small``, in processor time, the best of some tries of each.

    ``prepare`` makes the work of a size; only the work itself is timed.
    """
    return _best(prepare(large)) / _best(prepare(small))


def _best(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best
