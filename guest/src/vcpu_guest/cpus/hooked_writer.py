# SPDX-License-Identifier: Apache-2.0
"""The writer, with the administrator's hooks before CPUs go offline and after they came online."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any

from vcpu_guest.core.model import Arrived, CpuResult, CpuStatus
from vcpu_guest.core.request import Request
from vcpu_guest.cpus.hooks import Hooks
from vcpu_guest.cpus.watched_writer import WatchedWriter
from vcpu_guest.cpus.writer import Writer


class HookedWriter:
    """Carries out requests as Writer does, and runs the hooks around them."""

    def __init__(self, writer: Writer | WatchedWriter, hooks: Hooks) -> None:
        self._writer = writer
        self._hooks = hooks

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

    async def run(self, request: Request) -> AsyncGenerator[Arrived | CpuResult, None]:
        """See Writer.run. If a hook objects to an offline, refuse every CPU of the request and write nothing."""
        if not request.online:
            going = self._writer.online_now(request)
            reason = await self._hooks.before_offline(going.values()) if going else None
            if reason is not None:
                for firmware_id in request.firmware_ids:
                    number = going.get(firmware_id)
                    observed = None if number is None else self._writer.inventory.look_at(number)
                    yield CpuResult(firmware_id, CpuStatus.REFUSED, reason, observed)
                return
        up: list[int] = []
        try:
            async with aclosing(self._writer.run(request)) as answers:
                async for answer in answers:
                    if isinstance(answer, CpuResult) and answer.observed is not None and answer.observed.online:
                        up.append(answer.observed.number)
                    yield answer
        finally:
            if request.online and up:
                self._hooks.after_online(up)
