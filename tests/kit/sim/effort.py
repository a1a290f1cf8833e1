# SPDX-License-Identifier: Apache-2.0
"""How the cost of some work grows with its size, in calls: the same on every machine, however busy it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Effort:
    """Counts calls of Python and C functions, and resumed generators, while :meth:`counting`."""

    def __init__(self) -> None:
        self.calls = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is called inside."""
        sys.setprofile(self._count)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _count(self, frame: Any, event: str, argument: Any) -> None:
        del frame, argument
        self.calls += event in ("call", "c_call")


def growth(prepare: Callable[[int], Callable[[], object]], small: int, large: int) -> float:
    """How many times as many calls ``large`` takes as ``small``.

    ``prepare`` makes the work of a size; only the work itself is counted.
    """
    return _calls(prepare(large)) / _calls(prepare(small))


def _calls(work: Callable[[], object]) -> int:
    effort = Effort()
    with effort.counting():
        work()
    return effort.calls
