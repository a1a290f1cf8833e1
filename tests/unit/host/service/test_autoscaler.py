# SPDX-License-Identifier: Apache-2.0
"""The loop of one VM: what it takes of looks and of others' operations, and why there is no load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest
from kit.sim import views
from kit.until import DEADLINE
from vcpu_host.autoscale.budget import Budget
from vcpu_host.autoscale.sample import LoadSample
from vcpu_host.autoscale.settings import Mode, Settings
from vcpu_host.core import codes
from vcpu_host.core.guest import LoadSupport
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.view import VmView, with_pending
from vcpu_host.documents import of_view
from vcpu_host.service import autoscaler
from vcpu_host.service.autoscaler import Autoscaler, _ended, not_told
from vcpu_host.service.serve import Unheard
from vcpu_host.sharing.calls import Call, Kind


def _loop(budget: Budget | None = None) -> Autoscaler:
    settings = Settings(max=4, min=1, mode=Mode.ACT, operator_hold=60.0)
    return Autoscaler("web1", "/run/web1", settings, budget or Budget(), 1.0, Unheard())


def _code(loop: Autoscaler, switch: str = "") -> Any:
    return loop.answer(Call(Kind.AUTOSCALE, switch=switch))["decision"]["code"]


async def test_before_the_first_look_and_after_the_vm_has_gone_it_holds_with_the_reason() -> None:
    loop = _loop()
    assert _code(loop) == codes.NO_LOAD
    loop.gone(Reason(codes.QEMU_GONE, Origin.QEMU, "QEMU has ended"))
    assert _code(loop) == codes.QEMU_GONE


async def test_a_vm_that_others_have_changed_is_theirs_for_a_while() -> None:
    loop = _loop()
    loop.looked(of_view(views.vm(8, online=(0,))))
    assert _code(loop) == codes.NO_LOAD
    loop.looked(of_view(views.vm(8, online=(0, 1))))
    assert _code(loop) == codes.OPERATOR_HOLDS
    assert _code(loop, "on") == codes.NO_LOAD


@pytest.mark.parametrize(("kind", "held"), [(IntentKind.PLUG, codes.NO_LOAD), (IntentKind.UNPLUG, codes.PENDING)])
async def test_what_a_killed_holder_left_open_is_waited_for_only_where_it_can_end_by_itself(
    kind: IntentKind, held: str
) -> None:
    loop = _loop()
    view = with_pending(views.vm(8, online=(0,), offline=(1,)), [Intent(kind, 1, "vcpu-1", 1e9)])
    loop.looked(of_view(view))
    assert _code(loop) == held


async def test_somebodys_operation_counts_also_where_it_changed_nothing() -> None:
    loop = _loop()
    loop.looked(of_view(views.vm(8, online=(0,))))
    loop.operated()
    assert _code(loop) == codes.OPERATOR_HOLDS


async def test_another_vm_in_its_place_is_nobodys_change() -> None:
    loop = _loop()
    loop.looked(of_view(views.vm(8, online=(0,))))
    loop.gone(Reason(codes.QEMU_GONE, Origin.QEMU, "QEMU has ended"))
    loop.looked(of_view(views.vm(8, online=(0, 1))))
    assert _code(loop) == codes.QEMU_GONE  # of the load nothing was heard since


async def test_a_removal_that_ends_late_is_nobodys_change() -> None:
    loop = _loop()
    leaving = with_pending(views.vm(8, online=(0,), offline=(1,)), [Intent(IntentKind.UNPLUG, 1, "vcpu-1", 1e9)])
    loop.looked(of_view(leaving))
    loop.looked(of_view(views.vm(8, online=(0,))))
    assert _code(loop) == codes.NO_LOAD


async def test_a_look_that_began_before_the_loops_own_operation_ended_is_nobodys_change() -> None:
    loop = _loop()
    loop.looked(of_view(views.vm(8, online=(0,))))
    loop._own_ended = loop._now
    loop.looked(of_view(views.vm(8, online=(0, 1))))
    assert _code(loop) == codes.NO_LOAD


async def test_one_that_takes_another_ones_place_is_somebodys_change() -> None:
    loop = _loop()
    loop.looked(of_view(views.vm(8, online=(0, 1))))
    loop.looked(of_view(views.vm(8, online=(0, 2))))
    assert _code(loop) == codes.OPERATOR_HOLDS


async def test_a_trouble_that_no_look_ends_costs_one_look_and_not_one_for_each_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(autoscaler, "_LEAST", 0.0)
    bad = views.vm(8, online=(0,))._replace(record_trouble=Reason(codes.BAD_RECORD, Origin.VCPUCTL, "no record"))
    looks, ended = [], asyncio.Event()

    class Told:
        """An agent in a VM that is held: it tells the load five times, and then nothing."""

        operating = False
        load, tells_load = LoadSupport(allowed=True, pressure=True), True

        def __init__(self) -> None:
            self.vm = self.info = self

        async def session(self) -> Told:
            return self

        async def look(self) -> VmView:
            looks.append(1)
            return bad

        async def watch_load(self, *rates: float) -> AsyncGenerator[LoadSample, None]:
            del rates
            for second in range(5):
                yield LoadSample(guest_time=float(second), boot="b", cpus=())
            ended.set()
            await asyncio.Event().wait()

    loop, held = _loop(), Told()
    watching = asyncio.ensure_future(loop._watch(cast("Any", held)))
    async with asyncio.timeout(DEADLINE):
        await ended.wait()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert looks == [1]


async def test_an_operation_that_has_not_quite_begun_is_told_again_to_end() -> None:
    class Held:
        def __init__(self) -> None:
            self.vm, self.interrupts, self.heard = self, 0, asyncio.Event()

        def interrupt(self) -> None:
            self.interrupts += 1
            if self.interrupts == 2:
                self.heard.set()

    held: Any = Held()

    async def work() -> None:
        await held.heard.wait()

    await _ended(asyncio.ensure_future(work()), held)
    assert held.interrupts == 2


@pytest.mark.parametrize(
    ("support", "can", "code"),
    [
        (None, False, codes.LOAD_UNSUPPORTED),
        (LoadSupport(allowed=False), False, codes.LOAD_FORBIDDEN),
        (LoadSupport(allowed=True), False, codes.LOAD_UNSUPPORTED),
    ],
)
def test_why_a_guest_tells_no_load_is_known_beforehand(support: LoadSupport | None, can: bool, code: str) -> None:
    why = not_told(support, can=can)
    assert why is not None
    assert why.code == code
    assert why.hint


def test_a_guest_that_tells_its_load_is_asked() -> None:
    assert not_told(LoadSupport(allowed=True, pressure=True), can=True) is None
