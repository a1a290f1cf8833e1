# SPDX-License-Identifier: Apache-2.0
"""Both ends of the contract in one process: the host's client, the link over a port, the guest's servicer, a kernel."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from kit.both_ends import Guest, agent_of
from kit.fakes.virtio_port import VirtioPort
from vcpu_host.agent.client import LinkAgent

# A verdict on time otherwise: hypothesis gives each of its examples 200 ms.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def nobody_is_real_time() -> Iterator[None]:
    """The agent goes before others while a CPU is to be ejected: here that would be the tests, for good."""
    yield
    assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER


@pytest.fixture
async def idle_guest() -> AsyncIterator[Guest]:
    """A guest whose agent does not run yet."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vc", dir="/tmp")))
        port = await stack.enter_async_context(VirtioPort(folder))
        guest = Guest(folder, port)
        stack.push_async_callback(guest.end)
        yield guest


@pytest.fixture
async def guest(idle_guest: Guest) -> Guest:
    """A guest whose agent runs."""
    await idle_guest.start()
    return idle_guest


@pytest.fixture
async def agent(guest: Guest) -> AsyncIterator[LinkAgent]:
    async with agent_of(guest) as agent:
        yield agent
