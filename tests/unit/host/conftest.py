# SPDX-License-Identifier: Apache-2.0
"""A VM in memory; and how property tests run: without a limit on one example's time, which only says how busy it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import settings
from kit.fakes.adapters import Rig, nothing_new_since

settings.register_profile("unit", deadline=None)
settings.load_profile("unit")


@pytest.fixture(name="rig")
async def _rig() -> AsyncIterator[Rig]:
    """A VM with one CPU of four; at the end no task may be left."""
    before = asyncio.all_tasks()
    rig = Rig()
    yield rig
    await rig.whole.close()
    await asyncio.sleep(0)
    nothing_new_since(before)
