# SPDX-License-Identifier: Apache-2.0
"""What the guest's programs make of its CPUs, for the event loop: one look at a time, in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace

from vcpu_guest.core.workload import Workload
from vcpu_guest.cpus.masks import Masks
from vcpu_guest.cpus.workload import Looker


class Programs:
    """Looks at programs and remembers their masks. `keep`: masks that a change of CPUs has widened are put back."""

    def __init__(self, looker: Looker, *, keep: bool = False) -> None:
        self._looker = looker
        self._masks = Masks(looker, keep=keep)
        self._lock = asyncio.Lock()

    @property
    def keeps(self) -> bool:
        """Whether masks are put back."""
        return self._masks.keeps

    async def look(self, going: Collection[int], *, use: bool, broken: bool, forgotten: bool) -> Workload:
        """Return what WorkloadRequest asks for; `going` are the kernel's numbers."""
        async with self._lock:
            return await asyncio.to_thread(self._look, frozenset(going), use, broken, forgotten)

    def _look(self, going: frozenset[int], use: bool, broken: bool, forgotten: bool) -> Workload:  # noqa: FBT001
        if broken:
            self._masks.put_back()  # what a request that has just been answered is about to do
        fates = self._masks.fates() if broken else ()
        found = self._looker.look(going, use=use, forgotten=forgotten, broken=fates)
        return replace(found, unseen=(*found.unseen, *self._masks.unseen)) if broken else found

    async def before(self, going: Collection[int]) -> None:
        """See Masks.before."""
        async with self._lock:
            await asyncio.to_thread(self._masks.before, frozenset(going))

    async def put_back(self) -> None:
        """See Masks.put_back."""
        async with self._lock:
            await asyncio.to_thread(self._masks.put_back)
