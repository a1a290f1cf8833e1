# SPDX-License-Identifier: Apache-2.0
"""For how long a VM's holder is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from vcpu_host.core import codes
from vcpu_host.errors import RefusedError
from vcpu_host.local import directory
from vcpu_host.local.lock import VmLock
from vcpu_host.sharing import taking
from vcpu_host.sharing.calls import Part
from vcpu_host.sharing.remote import Holder
from vcpu_host.sharing.taking import Locks, nobody_hears

#: Seconds of patience, and of a holder that takes longer to let go.
_PATIENCE, _SLOW = 0.5, 0.7


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VmLock:
    """A VM that another process has."""
    monkeypatch.setattr(directory, "directory", lambda: tmp_path)
    lock = VmLock("/somewhere/qmp", "another")
    assert lock.try_take()
    return lock


def _answered(monkeypatch: pytest.MonkeyPatch, held: VmLock, *, at_once: bool) -> None:
    """Have its holder answer so, and let go of the VM later than anybody is waited for who does not give way."""

    class Slow(Holder):
        async def released(self) -> None:
            await asyncio.sleep(_SLOW)
            held.release()

    @asynccontextmanager
    async def asked(path: Path, part: Part, seconds: float, *, insists: bool) -> AsyncIterator[Holder]:
        del path, part, seconds, insists
        yield Slow(
            {"part": "writes", "holder": "another", "gives_way": True, "at_once": at_once}, asyncio.StreamReader()
        )

    monkeypatch.setattr(taking, "asked_to_give_way", asked)


async def test_a_holder_that_gives_way_at_once_may_take_its_time_to_let_go(
    held: VmLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answered(monkeypatch, held, at_once=True)
    lock = VmLock("/somewhere/qmp", "we")
    await Locks(Part.WRITES, _PATIENCE, nobody_hears).take(lock)
    lock.release()


async def test_a_holder_that_gives_way_after_its_operation_is_waited_for_no_longer_than_patience_lasts(
    held: VmLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answered(monkeypatch, held, at_once=False)
    with pytest.raises(RefusedError) as refused:
        await Locks(Part.WRITES, _PATIENCE, nobody_hears).take(VmLock("/somewhere/qmp", "we"))
    assert refused.value.reason.code == codes.VM_BUSY
    held.release()
