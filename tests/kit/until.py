# SPDX-License-Identifier: Apache-2.0
"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

#: When a condition, or a command, is given up, in seconds. Nothing is judged by it: a busy machine needs long.
DEADLINE = 300.0


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until the condition holds; TimeoutError after DEADLINE."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - the conditions are not events
            await asyncio.sleep(0.001)
