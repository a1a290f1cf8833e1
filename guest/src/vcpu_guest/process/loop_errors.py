# SPDX-License-Identifier: Apache-2.0
"""Handles exceptions that nobody expected, in callbacks of the event loop.

By default asyncio writes a traceback each time and goes on. If the loop calls the failing callback again at once,
because what it should have read is still there, that takes a whole CPU and fills the journal. So the exception is
logged seldom, and if it does not stop the agent ends and is started afresh.
"""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

from vcpu_guest import logs

#: So many exceptions within so many seconds are too many.
_MOST, _WINDOW = 100, 10.0
#: How many different exceptions are logged.
_KINDS = 32


class LoopErrors:
    """An event loop's exception handler. When the agent has to end, `too_many` gets the last exception's text."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.too_many: asyncio.Future[str] = loop.create_future()
        self._lines: dict[str, logs.Seldom] = {}
        self._began = 0.0
        self._count = 0
        loop.set_exception_handler(self._handle)

    def _handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        words = _words(context)
        if len(self._lines) < _KINDS:
            self._lines.setdefault(words, logs.Seldom("an unexpected error in the agent"))
        if words in self._lines:
            self._lines[words].error(error=words)
        now = loop.time()
        if now - self._began > _WINDOW:
            self._began, self._count = now, 0
        self._count += 1
        if self._count >= _MOST and not self.too_many.done():
            self.too_many.set_result(words)


def _words(context: dict[str, Any]) -> str:
    error = context.get("exception")
    if error is None:
        return str(context.get("message", ""))
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{error!r}{where}"
