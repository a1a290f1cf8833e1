# SPDX-License-Identifier: Apache-2.0
"""The writer, with a look at the threads' masks before CPUs are switched, where somebody asks for that."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any

from vcpu_guest.core.model import Arrived, CpuResult
from vcpu_guest.core.request import Request
from vcpu_guest.cpus.inventory import Inventory
from vcpu_guest.cpus.programs import Programs
from vcpu_guest.cpus.writer import Writer


class WatchedWriter:
    """Carries out requests as Writer does."""

    def __init__(self, writer: Writer, programs: Programs) -> None:
        self._writer = writer
        self._programs = programs

    @property
    def inventory(self) -> Inventory:
        """The CPUs that there are."""
        return self._writer.inventory

    def in_hand(self) -> dict[str, float]:
        """See Writer.in_hand."""
        return self._writer.in_hand()

    def settling(self) -> Coroutine[Any, Any, dict[str, float]] | None:
        """See Writer.settling."""
        return self._writer.settling()

    async def stays_offline(self) -> bool:
        """See Writer.stays_offline."""
        return await self._writer.stays_offline()

    def forget_ejections(self) -> None:
        """See Writer.forget_ejections."""
        self._writer.forget_ejections()

    def online_now(self, request: Request) -> dict[str, int]:
        """See Writer.online_now."""
        return self._writer.online_now(request)

    def run(self, request: Request) -> AsyncGenerator[Arrived | CpuResult, None]:
        """See Writer.run. Nothing is looked at unless the request or keep_affinity wants it."""
        if request.watch or self._programs.keeps:
            return self._watched(request)
        return self._writer.run(request)

    async def _watched(self, request: Request) -> AsyncGenerator[Arrived | CpuResult, None]:
        going = [] if request.online else list(self._writer.online_now(request).values())
        async with self._programs.watching(going), aclosing(self._writer.run(request)) as answers:
            async for answer in answers:
                yield answer
