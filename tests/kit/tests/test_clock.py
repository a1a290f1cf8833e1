# SPDX-License-Identifier: Apache-2.0
"""The loop's time that goes on faster."""

from __future__ import annotations

import asyncio

import pytest
from kit.clock import Clock


async def test_a_long_time_limit_runs_out_at_once_when_nothing_comes_and_not_before_what_is_there_was_read() -> None:
    clock = Clock()
    heard: asyncio.Queue[int] = asyncio.Queue()

    async def hear() -> list[int]:
        got: list[int] = []
        try:
            while True:
                async with asyncio.timeout(30):
                    got.append(await heard.get())
        except TimeoutError:
            return got

    task = asyncio.ensure_future(hear())
    for number in range(3):
        heard.put_nowait(number)
    assert await clock.ends(task) == [0, 1, 2]


async def test_time_that_goes_on_by_a_little_ends_no_longer_limit() -> None:
    clock = Clock()
    task = asyncio.ensure_future(asyncio.wait_for(asyncio.Event().wait(), 60))
    await asyncio.sleep(0)
    clock.goes_on(50)
    await asyncio.sleep(0.001)
    assert not task.done()
    clock.goes_on(11)
    with pytest.raises(TimeoutError):
        await task
