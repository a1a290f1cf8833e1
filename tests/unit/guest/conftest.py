# SPDX-License-Identifier: Apache-2.0
"""A fake kernel for each test, and the agent's parts on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.fakes.sysfs import FakeKernel
from vcpu_guest.core.model import Event
from vcpu_guest.cpus.inventory import Watcher
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.acpi import Acpi


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[FakeKernel]:
    kernel = FakeKernel(tmp_path / "sys")
    yield kernel
    kernel.close()


@pytest.fixture
def sysfs(kernel: FakeKernel) -> Sysfs:
    return Sysfs(kernel.root, kernel.write, kernel.attempt)


@pytest.fixture
async def watcher(kernel: FakeKernel, sysfs: Sysfs) -> Watcher:
    """A watcher that has scanned, and hears of what happens next."""
    watcher = Watcher(sysfs, Acpi())
    loop = asyncio.get_running_loop()
    kernel.listen(lambda action, number: loop.call_soon_threadsafe(watcher.on_event, Event(action, number)))
    watcher.scan()
    return watcher
