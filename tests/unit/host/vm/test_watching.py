# SPDX-License-Identifier: Apache-2.0
"""Whoever watches a VM hears of nothing while QEMU does not answer: the failures of others are what tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from kit.fakes.adapters import BRISK, PLUG, Agent, Rig
from kit.until import DEADLINE
from vcpu_host.core.guest import GuestView
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.core.view import VmView
from vcpu_host.errors import AgentGoneError, QemuError, QemuGoneError, VcpuctlError

_SILENT = Reason("qemu-silent", Origin.QEMU, "no answer")
_WITHOUT_AGENT = Request(Operation.PLUG, 1, without_agent=True)


def _fails(rig: Rig, error: VcpuctlError) -> None:
    """QEMU answers with this from now on, and says nothing by itself."""

    def check() -> None:
        raise error

    rig.vmm._check = check  # type: ignore[method-assign]


@asynccontextmanager
async def _watched(rig: Rig) -> AsyncIterator[asyncio.Future[VmView]]:
    """A watch that has looked once, and that neither QEMU, the agent nor the time has look again."""

    def tells_nothing(agent: Agent) -> None:
        async def watch() -> AsyncIterator[GuestView]:
            await asyncio.shield(agent.end)
            yield await agent.list_cpus()

        agent.watch = watch  # type: ignore[method-assign]

    rig.dialer.prepare = tells_nothing
    async with aclosing(rig.whole.watch(interval=1e6)) as views:
        await anext(views)
        next_look: asyncio.Future[VmView] = asyncio.ensure_future(anext(views))
        try:
            yield next_look
        finally:
            next_look.cancel()
            await asyncio.gather(next_look, return_exceptions=True)


async def _looks_and_fails(next_look: asyncio.Future[VmView]) -> None:
    async with asyncio.timeout(DEADLINE):
        with pytest.raises((QemuGoneError, QemuError)):
            await next_look


def _is_to_look(rig: Rig) -> bool:
    return any(changed.is_set() for changed in rig.whole._watchers)


@pytest.mark.parametrize(
    "asked",
    [
        lambda rig: rig.whole.look(),
        lambda rig: rig.whole.checkup(),
        lambda rig: rig.whole.plan(PLUG),
        lambda rig: rig.whole.plan(_WITHOUT_AGENT),
        lambda rig: rig.whole.shape(),
        lambda rig: rig.whole.run(PLUG, BRISK),
        lambda rig: rig.whole.run(_WITHOUT_AGENT, BRISK),
        lambda rig: anext(rig.whole.watch()),
    ],
)
@pytest.mark.parametrize("error", [QemuGoneError(_SILENT), QemuError(Reason("qemu-error", Origin.QEMU, "it says no"))])
async def test_a_watch_looks_at_once_when_the_look_of_somebody_else_fails(
    rig: Rig, asked: Callable[[Rig], Coroutine[Any, Any, object]], error: VcpuctlError
) -> None:
    async with _watched(rig) as next_look:
        _fails(rig, error)
        with pytest.raises(type(error)):
            await asked(rig)
        await _looks_and_fails(next_look)


async def test_a_watch_looks_at_once_when_qemu_stops_in_the_middle_of_an_operation(rig: Rig) -> None:
    async with _watched(rig) as next_look:
        rig.vmm.add_error = QemuGoneError(_SILENT)
        result = await rig.whole.run(PLUG, BRISK)
        assert (result.outcome, result.reason) == (Outcome.UNKNOWN, _SILENT)
        _fails(rig, QemuGoneError(_SILENT))
        await _looks_and_fails(next_look)


async def test_a_watch_looks_at_once_when_there_is_no_session_for_qemus_sake_but_not_for_the_agents(rig: Rig) -> None:
    rig.vmm.port_open = False
    async with _watched(rig) as next_look:
        with pytest.raises(AgentGoneError):
            await rig.whole.session()
        assert not _is_to_look(rig)
        _fails(rig, QemuGoneError(_SILENT))
        with pytest.raises(QemuGoneError):
            await rig.whole.session()
        await _looks_and_fails(next_look)


async def test_a_look_that_succeeds_and_an_operation_that_is_refused_have_nobody_look(rig: Rig) -> None:
    async with _watched(rig) as next_look:
        await rig.whole.look()
        assert (await rig.whole.run(Request(Operation.PLUG, 99), BRISK)).outcome is Outcome.REFUSED
        assert not _is_to_look(rig)
        assert not next_look.done()
    assert not rig.whole._watchers, "who does not watch any more is not told either"
