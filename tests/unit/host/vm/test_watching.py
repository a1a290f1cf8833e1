# SPDX-License-Identifier: Apache-2.0
"""Whoever watches a VM: they share the looks, and the failures of others tell of a QEMU that does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

import pytest
from kit.fakes.adapters import BRISK, PLUG, Agent, Rig, no_task_left
from kit.until import DEADLINE, until
from vcpu_host.core import vm_events as ev
from vcpu_host.core.guest import GuestView
from vcpu_host.core.model import HostView, Ost
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
    return rig.whole._follower.is_to_look


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
    assert not rig.whole._follower.watched, "who does not watch any more is not told either"


# --- many that watch --------------------------------------------------------------------------------------------------


def _counted(rig: Rig) -> list[int]:
    """How many slots each of QEMU's looks saw filled, from now on."""
    seen: list[int] = []
    look = rig.vmm.look

    async def counted() -> HostView:
        view = await look()
        seen.append(sum(slot.filled for slot in view.slots))
        return view

    rig.vmm.look = counted  # type: ignore[method-assign]
    return seen


def _all_are(values: list[int], value: int) -> bool:
    return set(values) == {value}


async def test_all_that_watch_share_one_look_at_each_change(rig: Rig) -> None:
    looks = _counted(rig)
    newest = [0] * 20
    stop = asyncio.Event()

    async def watches(one: int) -> None:
        async for view in rig.whole.watch(stop, interval=1e6):
            newest[one] = view.plugged_vcpus

    with no_task_left():
        watching = [asyncio.ensure_future(watches(one)) for one in range(20)]
        await until(lambda: all(newest))
        begun = len(looks)
        for filled in (1, 2, 3):
            rig.vm.filled.add(filled)
            rig.vmm.hub.put(ev.OstReported(filled, Ost(1, 0)))
            await until(partial(_all_are, newest, filled + 1))
        stop.set()
        await asyncio.gather(*watching)
    assert begun <= 3, "those that come together are shown the same"
    assert len(looks) - begun < len(newest), "QEMU and the agent tell of each change, and each may cost two looks"


async def test_who_is_slow_gets_the_newest_view_and_holds_nobody_up(rig: Rig) -> None:
    async with aclosing(rig.whole.watch(interval=1e6)) as slow, aclosing(rig.whole.watch(interval=1e6)) as quick:
        await anext(slow)
        await anext(quick)
        for filled in (1, 2, 3):
            rig.vm.filled.add(filled)
            rig.vmm.hub.put(ev.OstReported(filled, Ost(1, 0)))
            while (await anext(quick)).plugged_vcpus != filled + 1:
                pass
        assert (await anext(slow)).plugged_vcpus == 4


async def test_who_leaves_and_who_comes_meanwhile_are_in_nobodys_way(rig: Rig) -> None:
    with no_task_left():
        async with aclosing(rig.whole.watch(interval=1e6)) as stays:
            await anext(stays)
            for filled in (1, 2, 3):
                async with aclosing(rig.whole.watch(interval=1e6)) as leaves:
                    rig.vm.filled.add(filled)
                    assert (await anext(leaves)).plugged_vcpus == filled + 1, "it sees no look from before it came"
                while (await anext(stays)).plugged_vcpus != filled + 1:
                    pass


async def test_a_look_that_fails_ends_all_that_watch(rig: Rig) -> None:
    with no_task_left():
        watching = [asyncio.ensure_future(_to_the_end(rig)) for _ in range(5)]
        await until(lambda: rig.whole._follower.watched)
        _fails(rig, QemuGoneError(_SILENT))
        rig.vmm.hub.put(ev.OstReported(1, Ost(1, 0)))
        ended = await asyncio.gather(*watching, return_exceptions=True)
    assert [type(error) for error in ended] == [QemuGoneError] * 5


async def _to_the_end(rig: Rig) -> None:
    async for _ in rig.whole.watch(interval=1e6):
        pass
