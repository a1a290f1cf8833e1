# SPDX-License-Identifier: Apache-2.0
"""The loop of one VM: what counts for its maximum and for the host's budget, whatever the guest or the time says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from kit.sim import views
from vcpu_host.autoscale.budget import Budget
from vcpu_host.autoscale.settings import Mode, Settings
from vcpu_host.core import codes
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.view import VmView
from vcpu_host.documents import Document, of_view
from vcpu_host.errors import OutcomeLostError, QemuGoneError
from vcpu_host.service.autoscaler import Autoscaler
from vcpu_host.service.serve import Unheard
from vcpu_host.sharing.calls import Call, Kind

_SILENT = Reason(codes.QEMU_SILENT, Origin.QEMU, "no answer")


class Held:
    """A VM that grows as it is told. ``silent``: then its QEMU does not answer any more."""

    operating = False

    def __init__(self, *, silent: bool) -> None:
        self.vm = self
        self._silent = silent
        self._vcpus = 1

    @asynccontextmanager
    async def operation(self, call: Call) -> AsyncIterator[None]:
        del call
        yield

    async def answer(self, call: Call, say: object) -> Document:
        del say
        assert call.request is not None
        self._vcpus = call.request.count or 0
        if self._silent:
            raise OutcomeLostError(_SILENT)
        return {"outcome": "done", "reason": None, "slots": []}

    async def look(self) -> VmView:
        if self._silent:
            raise QemuGoneError(_SILENT)
        return views.vm(8, online=range(self._vcpus))


def _loop(budget: Budget, *, least: int = 4) -> Autoscaler:
    """One that grows to its minimum, which takes no load."""
    return Autoscaler("a", "/run/a", Settings(max=4, min=least, mode=Mode.ACT), budget, 1.0, Unheard())


async def _grown(budget: Budget, *, silent: bool) -> Autoscaler:
    """It has grown from one vCPU to four, beside another VM that has one."""
    budget.keep(["a", "b"])
    budget.has("b", 1)
    loop = _loop(budget)
    loop.looked(of_view(views.vm(8, online=(0,))))
    loop._held = cast("Any", Held(silent=silent))
    loop._consider()
    assert loop._working is not None
    assert budget.left == 0, "from the moment on in which it begins"
    await loop._working
    return loop


async def test_what_a_vm_has_grown_to_counts_before_anybody_else_looks_at_it() -> None:
    budget = Budget(5)
    await _grown(budget, silent=False)
    assert budget.left == 0


async def test_what_a_vm_was_growing_to_counts_until_its_qemu_answers_again() -> None:
    budget = Budget(5)
    loop = await _grown(budget, silent=True)
    loop.gone(_SILENT)
    assert budget.left == 0, "device_add may have been done"
    loop.looked(of_view(views.vm(8, online=(0, 1))))
    assert budget.left == 2


def _parked(slots: Iterable[int]) -> Document:
    """Four vCPUs are plugged, and the guest says that its SMT mode keeps some of them offline."""
    wanted = frozenset(slots)
    document = of_view(views.vm(8, online=set(range(4)) - wanted, offline=wanted))
    for slot in document["slots"]:
        for thread in slot["threads"]:
            thread["parked"] = slot["slot"] in wanted
    return document


@pytest.mark.parametrize(
    ("parked", "code"), [((1, 2, 3), codes.AT_MAXIMUM), ((), codes.NO_LOAD)], ids=["parked", "all online"]
)
async def test_vcpus_that_the_guest_calls_parked_are_plugged_all_the_same(parked: tuple[int, ...], code: str) -> None:
    loop = _loop(Budget())
    loop.looked(_parked(parked))
    decision = loop.answer(Call(Kind.AUTOSCALE))["decision"]
    assert (decision["code"], decision["goal"]) == (code, 4 - len(parked))
