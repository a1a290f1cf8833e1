# SPDX-License-Identifier: Apache-2.0
"""The event loop's time, which goes on faster when a test says so: a time limit can be long, and run out at once.

So what a test finds does not depend on how busy the machine is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from kit.until import until

T = TypeVar("T")

#: The loop goes round so many times before a task that ends with its time is taken for one that does not.
_TURNS = 100_000


class Clock:
    """The time of the loop that runs."""

    def __init__(self) -> None:
        loop: Any = asyncio.get_running_loop()
        real, self._ahead = loop.time, 0.0
        loop.time = lambda: real() + self._ahead

    def goes_on(self, seconds: float) -> None:
        """Have so much time pass at once."""
        self._ahead += seconds

    async def ends(self, work: Awaitable[T], once: Callable[[], object] = lambda: True) -> T:
        """Return what work returns whose time is to run out. It begins to pass quickly ``once`` the condition holds.

        It is a second for each turn of the loop, so that whatever is there to be read is read before.
        """
        task = asyncio.ensure_future(work)
        await until(lambda: once() or task.done())
        for _ in range(_TURNS):
            if task.done():
                return task.result()
            self._ahead += 1.0
            await asyncio.sleep(0)
        raise AssertionError("it does not end with its time")
