# SPDX-License-Identifier: Apache-2.0
"""A session that one part of the program drops while another still asks: that one learns that the agent is gone.

gRPC cancels the asking task's wait then, as if somebody had cancelled the task, which nobody has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest
from kit.both_ends import Guest, agent_of
from vcpu_host.agent.client import LinkAgent
from vcpu_host.core import codes
from vcpu_host.errors import AgentGoneError


async def _watches(agent: LinkAgent, begun: asyncio.Event) -> None:
    async with aclosing(agent.watch()) as views:  # type: ignore[type-var]
        async for _ in views:
            begun.set()


async def _lists(agent: LinkAgent, begun: asyncio.Event) -> None:
    agent._control = None  # as with an agent that has no such stream
    begun.set()
    await agent.list_cpus()


@pytest.mark.parametrize("asks", [_watches, _lists])
async def test_who_asks_in_a_session_that_is_dropped_is_told_and_not_cancelled(
    asks: Callable[[LinkAgent, asyncio.Event], Awaitable[None]], guest: Guest
) -> None:
    async with agent_of(guest) as agent:
        begun = asyncio.Event()
        asking = asyncio.ensure_future(asks(agent, begun))
        if asks is _lists:
            assert guest._link is not None
            assert guest._link._wire is not None
            guest._link._wire.pause_reading()  # so that the answer does not come first
        await begun.wait()
        await asyncio.sleep(0)
        await agent.close()
        with pytest.raises(AgentGoneError) as caught:
            await asking
        assert caught.value.reason.code == codes.AGENT_LOST


async def test_a_task_that_is_cancelled_while_it_asks_is_cancelled(guest: Guest) -> None:
    async with agent_of(guest) as agent:
        begun = asyncio.Event()
        asking = asyncio.ensure_future(_watches(agent, begun))
        await begun.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
