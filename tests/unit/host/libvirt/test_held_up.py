# SPDX-License-Identifier: Apache-2.0
"""What libvirt gets when its turn has come, and not if that is too late."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
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


class Libvirt:
    """One that says by ``control`` who keeps the domain busy, and remembers in ``asked`` what would change it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake = FakeLibvirt()
        self.control = (0, 0)
        self.asked: list[object] = []
        monkeypatch.setattr(binding, "module", lambda: fake)
        monkeypatch.setattr(binding, "monitor_module", lambda: SimpleNamespace(qemuMonitorCommand=self._command))

    def _command(self, *words: object) -> str:
        self.asked.append(words)
        return '{"return": {}}'

    async def domain(self) -> Domain:
        connection = await Connection.open("qemu:///system", timeout=DEADLINE, call_timeout=DEADLINE)
        raw = SimpleNamespace(
            setVcpu=lambda *words: self.asked.append(words), controlInfo=lambda flags: [*self.control, 500]
        )
        return Domain(connection, cast("Any", raw), DomainId("uuid", "host"), persistent=True)


@pytest.fixture
def libvirt(monkeypatch: pytest.MonkeyPatch) -> Libvirt:
    return Libvirt(monkeypatch)


@pytest.mark.parametrize("removal", [by_libvirt, by_the_monitor])
async def test_a_removal_whose_turn_comes_too_late_is_not_asked_for(removal: Removal, libvirt: Libvirt) -> None:
    domain = await libvirt.domain()
    goes_on = threading.Event()
    ahead = asyncio.create_task(domain.connection.call("be busy", goes_on.wait))
    late = asyncio.ensure_future(removal(domain, time.monotonic()))
    in_time = asyncio.ensure_future(removal(domain, time.monotonic() + DEADLINE))
    await asyncio.sleep(0)
    goes_on.set()
    await ahead
    with pytest.raises(TooLateError):
        await late
    await in_time
    assert len(libvirt.asked) == 1
    await domain.connection.close()


@pytest.mark.parametrize("removal", [by_libvirt, by_the_monitor])
@pytest.mark.parametrize(
    ("control", "goes"),
    [((0, 0), True), ((1, 0), False), ((2, 0), False), ((3, 3), False), ((3, 2), True)],
    ids=["free", "a job", "in QEMU's monitor", "waits for QEMU", "no monitor: the call itself says so"],
)
async def test_a_removal_is_not_asked_for_while_somebody_keeps_the_domain_busy(
    removal: Removal, control: tuple[int, int], *, goes: bool, libvirt: Libvirt
) -> None:
    domain = await libvirt.domain()
    libvirt.control = control
    with nullcontext() if goes else pytest.raises(TooLateError):
        await removal(domain, time.monotonic() + DEADLINE)
    assert bool(libvirt.asked) is goes
    await domain.connection.close()
