# SPDX-License-Identifier: Apache-2.0
"""A fake kernel for each test, and the agent's parts on it."""

from __future__ import annotations

import asyncio
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.fakes.sysfs import FakeKernel
from vcpu_guest.core.model import CpuEvent
from vcpu_guest.cpus.inventory import Inventory
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
async def inventory(kernel: FakeKernel, sysfs: Sysfs) -> Inventory:
    """An inventory that has scanned, and hears of what happens next."""
    inventory = Inventory(sysfs, Acpi())
    loop = asyncio.get_running_loop()
    kernel.listen(lambda action, number: loop.call_soon_threadsafe(inventory.on_event, CpuEvent(action, number)))
    inventory.scan()
    return inventory


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a system with systemd, udev, and vcpud by pip in /opt/vcpud."""
    home = tmp_path / "opt/vcpud"
    for name in ("usr/bin/systemctl", "usr/bin/udevadm", "opt/vcpud/bin/vcpud"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "prefix", str(home))
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(home / "bin"))
    return tmp_path
