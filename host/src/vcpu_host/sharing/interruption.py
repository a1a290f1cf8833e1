# SPDX-License-Identifier: Apache-2.0
"""Somebody waits no longer for an operation: told at any moment, and never lost on the way to who carries it out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..core import codes
from ..core.reason import Origin, Reason
from ..errors import RefusedError


class Interruption:
    """Ends the wait of one operation. It is remembered: one that comes early ends the operation before it begins."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self._end: Callable[[], None] | None = None

    @property
    def at_work(self) -> bool:
        """Whether there is an operation whose wait would be ended."""
        return self._end is not None

    def interrupt(self) -> None:
        """End the wait. Once more changes nothing."""
        if not self.asked.is_set():
            self.asked.set()
            if self._end is not None:
                self._end()

    @contextmanager
    def ends(self, end: Callable[[], None]) -> Iterator[None]:
        """Have ``end`` called if the wait is ended in this block. Raise RefusedError "interrupted" if it was before."""
        self.check()
        self._end = end
        try:
            yield
        finally:
            self._end = None

    def check(self) -> None:
        """Raise RefusedError "interrupted" if the wait was ended: nothing may be begun then."""
        if self.asked.is_set():
            text = "the wait was ended before the operation began: nothing was changed"
            raise RefusedError(Reason(codes.INTERRUPTED, Origin.VCPUCTL, text))
