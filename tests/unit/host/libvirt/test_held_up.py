# SPDX-License-Identifier: Apache-2.0
"""What libvirt gets when its turn has come, and not if that is too late."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kit.fakes.libvirt_module import FakeLibvirt
from kit.until import DEADLINE
from vcpu_host.core.identity import DomainId
from vcpu_host.errors import TooLateError
from vcpu_host.libvirt import binding
from vcpu_host.libvirt.connection import Connection
from vcpu_host.libvirt.domain import Domain
from vcpu_host.libvirt.monitor import LentMonitor
from vcpu_host.qmp.events import EventHub
from vcpu_host.qmp.names import LIBVIRTS

Removal = Callable[[Domain, float], Awaitable[object]]


async def by_libvirt(domain: Domain, not_after: float) -> None:
    await domain.unplug(1, asynchronously=True, not_after=not_after)


async def by_the_monitor(domain: Domain, not_after: float) -> None:
    monitor = LentMonitor(domain, EventHub(LIBVIRTS))
    await monitor.send("device_del", {"id": "vcpu1"}, not_after=not_after)


@pytest.mark.parametrize("removal", [by_libvirt, by_the_monitor])
async def test_a_removal_whose_turn_comes_too_late_is_not_asked_for(
    removal: Removal, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeLibvirt()
    asked: list[object] = []
    monkeypatch.setattr(binding, "module", lambda: fake)

    def command(*words: object) -> str:
        asked.append(words)
        return '{"return": {}}'

    monkeypatch.setattr(binding, "monitor_module", lambda: SimpleNamespace(qemuMonitorCommand=command))
    connection = await Connection.open("qemu:///system", timeout=DEADLINE, call_timeout=DEADLINE)
    raw = SimpleNamespace(setVcpu=lambda *words: asked.append(words))
    domain = Domain(connection, cast("Any", raw), DomainId("uuid", "host"), persistent=True)
    goes_on = threading.Event()
    ahead = asyncio.create_task(connection.call("be busy", goes_on.wait))
    late = asyncio.ensure_future(removal(domain, time.monotonic()))
    in_time = asyncio.ensure_future(removal(domain, time.monotonic() + DEADLINE))
    await asyncio.sleep(0)
    goes_on.set()
    await ahead
    with pytest.raises(TooLateError):
        await late
    await in_time
    assert len(asked) == 1
    await connection.close()
