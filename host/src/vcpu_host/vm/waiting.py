# SPDX-License-Identifier: Apache-2.0
"""Ways to wait: for the first of several things, for news of a VM, for work that may have to be broken off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from .. import ports
from ..core.vm_events import VmEvent
from ..errors import AgentGoneError

T = TypeVar("T")


async def hear_vmm(events: AsyncIterator[VmEvent], changed: asyncio.Event) -> None:
    """Set ``changed`` at each of QEMU's events, until its last."""
    async for _ in events:
        changed.set()


async def hear_agent(agent: ports.GuestAgent, changed: asyncio.Event) -> None:
    """Set ``changed`` at each change that the agent tells of, and at the end of its session."""
    try:
        async for _ in agent.watch():
            changed.set()
    except AgentGoneError:
        changed.set()


async def first_of(*events: asyncio.Event, seconds: float | None = None) -> None:
    """Wait for one of the events, or for so many seconds, whatever comes first."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        timeout = None if seconds is None else max(0.0, seconds)
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Return what the work comes to, or None if it was broken off because of ``stop``."""
    working = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, stopped):
            task.cancel()
        await asyncio.gather(working, stopped, return_exceptions=True)
