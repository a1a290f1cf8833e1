# SPDX-License-Identifier: Apache-2.0
"""What others leave unread is bounded, by user and in total, and who takes nothing gives way to who waits."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from kit.until import DEADLINE, until
from vcpu_host.sharing.unread import Unread

_LONG = 1e6


def _nobody() -> None:
    raise AssertionError("nobody is to be cut off")


async def _has_had(unread: Unread, user: int, size: int) -> None:
    async with unread.room(user, size, _nobody):
        pass


async def test_who_has_too_much_waits_until_some_was_taken_and_others_do_not() -> None:
    unread = Unread(100, 50, _LONG)
    async with AsyncExitStack() as stack:
        async with unread.room(1, 30, _nobody):
            waiting = asyncio.ensure_future(stack.enter_async_context(unread.room(1, 30, _nobody)))
            await stack.enter_async_context(unread.room(2, 30, _nobody))
            assert not waiting.done()
        async with asyncio.timeout(DEADLINE):
            await waiting
        assert (unread.held(1), unread.held(2), unread.held()) == (30, 30, 60)
        third = asyncio.ensure_future(_has_had(unread, 3, 45))
        await asyncio.sleep(0)
        assert not third.done(), "and there is a bound for all"
    async with asyncio.timeout(DEADLINE):
        await third
    assert unread.held() == 0


async def test_a_message_above_all_bounds_is_sent_to_who_has_nothing_else() -> None:
    async with asyncio.timeout(DEADLINE):
        await _has_had(Unread(100, 50, _LONG), 1, 1000)


async def test_who_has_taken_nothing_for_too_long_is_cut_off_when_somebody_waits() -> None:
    unread = Unread(100, 50, 0.01)
    cut = asyncio.Event()
    waits: asyncio.Task[None] | None = None

    async def stuck() -> None:
        async with unread.room(1, 50, cut.set):
            await cut.wait()

    holds = asyncio.ensure_future(stuck())
    await until(lambda: unread.held(1))
    other = asyncio.ensure_future(_has_had(unread, 2, 50))
    async with asyncio.timeout(DEADLINE):
        await other
        assert not cut.is_set(), "it is in nobody's way"
        waits = asyncio.ensure_future(_has_had(unread, 1, 50))
        await asyncio.gather(holds, waits)
    assert cut.is_set()


async def test_who_takes_some_again_and_again_is_not_cut_off() -> None:
    unread = Unread(100, 50, _LONG)
    async with unread.room(1, 50, _nobody) as room:
        room.since -= 2 * _LONG
        room.moved()
        unread._cut(1, 50)
