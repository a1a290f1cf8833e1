# SPDX-License-Identifier: Apache-2.0
"""What the guest's programs make of its CPUs, for the event loop: one look at a time, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from vcpu_guest.core.workload import Workload
from vcpu_guest.cpus.masks import Masks
from vcpu_guest.cpus.workload import Looker

_T = TypeVar("_T")
_NAME = "programs"


def looking_threads() -> frozenset[int]:
    """Return the kernel's ids of the threads that look at programs. For a second they may take a whole CPU."""
    every = threading.enumerate()
    return frozenset(each.native_id for each in every if each.name.startswith(_NAME) and each.native_id is not None)


class Programs:
    """Looks at programs and remembers their masks. `keep`: masks that a change of CPUs has widened are put back."""

    def __init__(self, looker: Looker, *, keep: bool = False) -> None:
        self._looker = looker
        self._masks = Masks(looker, keep=keep)
        # One thread, which is begun by the first look. A look that nobody waits for any more goes on in it, and the
        # next one waits for that.
        self._thread = ThreadPoolExecutor(1, _NAME)
        self._closed = False
        self._changes = 0

    @property
    def keeps(self) -> bool:
        """Whether masks are put back."""
        return self._masks.keeps

    def close(self) -> None:
        """Begin no look any more."""
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def look(self, going: Collection[int], *, use: bool, broken: bool, forgotten: bool) -> Workload:
        """Return what WorkloadRequest asks for; `going` are the kernel's numbers."""
        return await self._in_thread(partial(self._look, frozenset(going), use, broken, forgotten))

    def _look(self, going: frozenset[int], use: bool, broken: bool, forgotten: bool) -> Workload:  # noqa: FBT001
        settled = not self._changes
        if broken:
            self._masks.put_back(settled=settled)  # what a request that has just been answered is about to do
        fates = self._masks.fates(settled=settled) if broken else ()
        found = self._looker.look(going, use=use, forgotten=forgotten, broken=fates)
        return replace(found, unseen=(*found.unseen, *self._masks.unseen)) if broken else found

    @asynccontextmanager
    async def watching(self, going: Collection[int]) -> AsyncIterator[None]:
        """Remember masks before a change of CPUs (see Masks.before), and put them back after it."""
        self._changes += 1
        try:
            await self._in_thread(partial(self._masks.before, frozenset(going), alone=self._changes == 1))
            yield
        finally:
            self._changes -= 1
            if self.keeps and not self._closed:
                settled = not self._changes and not self._masks.wiped_late
                await self._in_thread(partial(self._masks.put_back, settled=settled))

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
