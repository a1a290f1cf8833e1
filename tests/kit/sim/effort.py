# SPDX-License-Identifier: Apache-2.0
"""Count what some work takes: calls, and bytes that are gone through. The same on every machine, however busy it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Effort:
    """Counts, while :meth:`counting`, calls of Python and C functions (a resumed generator is one).

    ``bytes`` is the sum of the lengths of all bytes objects of which a method was called (split, find, replace): an
    upper bound of what such a call goes through.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.bytes = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is called inside."""
        sys.setprofile(self._count)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _count(self, frame: Any, event: str, argument: Any) -> None:
        del frame
        self.calls += event in ("call", "c_call")
        if event == "c_call" and isinstance(owner := getattr(argument, "__self__", None), bytes | bytearray):
            self.bytes += len(owner)


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
