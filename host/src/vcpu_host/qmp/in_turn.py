# SPDX-License-Identifier: Apache-2.0
"""How long an answer is waited for that comes in its turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class InTurn:
    """Ends calls that QEMU leaves unanswered for ``seconds``.

    It answers one after another: while it does so, who is behind may wait.

    (monitor/qmp.c, monitor_qmp_dispatcher_co. 239 device_add that are sent at once took an emulated VM 11 s.) Whoever
    is passed by gets no more time than it had: its answer was lost, or had no id, and then qemu.qmp drops it.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._calls = 0
        self._answered = 0  # the last call that was
        self._answered_at = 0.0

    def answered(self, call: int) -> None:
        """Take that QEMU has answered to a call."""
        self._answered, self._answered_at = call, asyncio.get_running_loop().time()

    def passed_by(self, call: int) -> bool:
        """Return whether QEMU has answered to a later call."""
        return self._answered > call

    @contextlib.asynccontextmanager
    async def bound(self) -> AsyncIterator[int]:
        """Raise TimeoutError in the block once QEMU has answered to no earlier call for so long since the block began.

        What is yielded is the call's number.
        """
        loop = asyncio.get_running_loop()
        self._calls += 1
        call, since = self._calls, loop.time()
        due: asyncio.TimerHandle
        async with asyncio.timeout(None) as limit:

            def look() -> None:
                nonlocal due, since
                if not self.passed_by(call):
                    since = max(since, self._answered_at)
                end = since + self.seconds
                if loop.time() >= end:
                    limit.reschedule(end)
                else:
                    due = loop.call_at(end, look)

            due = loop.call_later(self.seconds, look)
            try:
                yield call
            finally:
                due.cancel()
