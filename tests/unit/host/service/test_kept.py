# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from kit.fakes.adapters import PLUG
from kit.fakes.libvirt_api import FakeConnection, FakeError, FakeLibvirt
from kit.sim import views
from kit.until import DEADLINE, until
from vcpu_host.autoscale.budget import Budget
from vcpu_host.autoscale.settings import Settings
from vcpu_host.core import codes
from vcpu_host.core.identity import ProcessId, VmIdentity
from vcpu_host.core.reason import Reason
from vcpu_host.core.view import VmView
from vcpu_host.documents import Document
from vcpu_host.errors import RefusedError, UsageError
from vcpu_host.local import directory, processes
from vcpu_host.local.lock import VmLock, busy
from vcpu_host.local.names import of_place
from vcpu_host.local.target import Domain, Target
from vcpu_host.service import kept as module
from vcpu_host.service.kept import HostLimits, Kept
from vcpu_host.service.serve import Unheard
from vcpu_host.sharing.answers import Say
from vcpu_host.sharing.calls import Call, Kind
from vcpu_host.sharing.interruption import Interruption
from vcpu_host.sharing.shown import Views


class _Vm:
    def __init__(self) -> None:
        self.interrupted = asyncio.Event()

    def interrupt(self) -> None:
        self.interrupted.set()


class _Held:
    """One operation at a time, which lasts until it is interrupted."""

    def __init__(self) -> None:
        self.vm = _Vm()
        self.begun, self.left = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def operation(self, call: Call, interruption: Interruption) -> AsyncIterator[None]:
        del call, interruption
        if self.begun.is_set():
            raise busy("1 vcpuctl plug")
        self.begun.set()
        yield

    async def answer(self, call: Call, say: Say, interruption: Interruption) -> Document:
        del call, say
        with interruption.ends(self.vm.interrupt):
            await self.vm.interrupted.wait()
        return {}


async def test_who_is_refused_or_has_not_begun_does_not_end_the_wait_of_another() -> None:
    kept = Kept("web1", Target("/nowhere"), Unheard())
    held: Any = _Held()
    kept.held = held
    first, second, third = kept.asked(), kept.asked(), kept.asked()
    working = asyncio.ensure_future(first.answer(Call(Kind.RUN), lambda message: None))
    async with asyncio.timeout(DEADLINE):
        await held.begun.wait()
    with pytest.raises(RefusedError):
        await second.answer(Call(Kind.RUN), lambda message: None)
    second.interrupt()
    third.interrupt()
    assert not held.vm.interrupted.is_set()
    first.interrupt()
    assert await working == {}


async def test_who_leaves_while_the_autoscaler_still_has_the_vm_has_nothing_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = Kept("web1", Target("/nowhere"), Unheard())
    held: Any = _Held()
    kept.held = held
    asked = kept.asked()

    async def stands_back() -> None:
        asked.interrupt()

    monkeypatch.setattr(kept, "stands_back", stands_back)
    with pytest.raises(RefusedError) as refused:
        await asked.answer(Call(Kind.RUN), lambda message: None)
    assert refused.value.reason.code == codes.INTERRUPTED
    assert not held.vm.interrupted.is_set()


async def test_who_leaves_while_the_vm_is_not_held_ends_the_wait_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(directory, "directory", lambda: tmp_path)
    kept = Kept("web1", Target(str(tmp_path / "qmp")), Unheard())
    other, said = VmLock(kept.target.place, "another"), asyncio.Event()
    assert other.try_take()
    asked = kept.asked()
    work = asyncio.ensure_future(asked.answer(Call(Kind.RUN, PLUG), lambda message: said.set()))
    async with asyncio.timeout(DEADLINE):
        await said.wait()
        asked.interrupt()
        with pytest.raises(RefusedError) as refused:
            await work
    assert refused.value.reason.code == codes.INTERRUPTED
    other.release()


class _Looked:
    """It is looked at once, and held until ``asked`` is set."""

    link_sessions = 0

    def __init__(self, view: VmView, identity: VmIdentity | None = None) -> None:
        self.vm, self._view, self.identity = self, view, identity
        self.views = Views()
        self.asked = asyncio.Event()

    async def watch(self, stop: asyncio.Event, interval: float) -> AsyncGenerator[VmView, None]:
        del interval
        yield self._view
        await stop.wait()


async def test_a_vm_that_nothing_scales_counts_in_the_budget_as_well_and_one_that_is_off_has_none() -> None:
    budget = Budget(8)
    budget.keep(["web1"])
    kept = Kept("web1", Target("/nowhere"), Unheard(), HostLimits(budget))
    held: Any = _Looked(views.vm(8, online=(0, 1), offline=(2,)))
    held.asked.set()
    await kept._kept(held)
    assert budget.left == 5
    keeping = asyncio.ensure_future(kept.keep())
    await until(lambda: kept.trouble)
    assert kept.trouble is not None
    assert kept.trouble.code == codes.NO_SUCH_SOCKET
    assert budget.left == 8
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_a_vm_whose_socket_went_counts_with_what_it_had_until_its_qemu_has_ended() -> None:
    budget = Budget(8)
    budget.keep(["web1"])
    kept = Kept("web1", Target("/nowhere"), Unheard(), HostLimits(budget))
    qemu = await asyncio.create_subprocess_exec("sleep", "600")
    held: Any = _Looked(views.vm(8, online=(0, 1)), VmIdentity(cast("ProcessId", processes.process_id(qemu.pid))))
    held.asked.set()
    await kept._kept(held)
    keeping = asyncio.ensure_future(kept.keep())
    await until(lambda: kept.trouble)
    assert budget.left == 6, "it may run as before"
    qemu.kill()
    await qemu.wait()
    await until(lambda: budget.left == 8)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_a_second_name_of_a_vm_takes_nothing_of_the_budget() -> None:
    budget = Budget(8)
    budget.keep(["web1", "web2"])
    limits = HostLimits(budget)
    limits.distinct.claim("web1", (of_place("/nowhere"),))
    budget.has("web1", 3)
    kept = Kept("web2", Target("/nowhere"), Unheard(), limits)
    keeping = asyncio.ensure_future(kept.keep())
    await until(lambda: kept.trouble)
    assert kept.trouble is not None
    assert kept.trouble.code == codes.SAME_NAMES
    assert (budget.left, budget.unseen) == (5, 0)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


def test_a_vm_whose_file_was_renamed_is_no_second_one_of_the_name_that_it_had() -> None:
    limits = HostLimits()
    kept = Kept("web1", Target("/nowhere"), Unheard(), limits)
    limits.distinct.claim("web1", ("a VM",))
    kept.retire(None)
    limits.distinct.claim("web2", ("a VM",))
    with pytest.raises(UsageError):
        limits.distinct.claim("web3", ("a VM",))


async def test_a_fault_of_ours_with_its_load_leaves_the_vm_held_and_is_in_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_LONGEST", 0.0)
    kept = Kept("web1", Target("/nowhere", autoscale=Settings(max=4)), Unheard())
    held: Any = _Looked(views.vm(8, online=(0,)))
    runs = []

    async def run(held: object) -> None:
        runs.append(held)
        if len(runs) < 3:
            raise ZeroDivisionError
        await asyncio.Event().wait()

    monkeypatch.setattr(kept.autoscaler, "run", run)
    keeping = asyncio.ensure_future(kept._kept(held))
    await until(lambda: len(runs) == 3)
    assert not keeping.done()
    assert capsys.readouterr().err.count("web1: a fault of vcpuctl's own") == 2
    held.asked.set()
    await keeping


async def test_a_fault_of_ours_with_one_vm_is_its_trouble_and_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_LONGEST", 0.0)
    tries = []

    def broken(*words: object, **more: object) -> None:
        tries.append(words)
        raise ZeroDivisionError

    monkeypatch.setattr(module, "hold", broken)
    kept = Kept("web1", Target("/nowhere"), Unheard())
    keeping = asyncio.ensure_future(kept.keep())
    await until(lambda: len(tries) > 2)
    assert kept.trouble is not None
    assert kept.trouble.code == codes.FAULT
    assert "ZeroDivisionError" in capsys.readouterr().err
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_a_table_that_comes_changes_and_goes_leaves_the_vm_held_and_what_was_switched_off_stays_off() -> None:
    kept = Kept("web1", Target("/nowhere"), Unheard())
    held: Any = _Looked(views.vm(8, online=(0,)))
    keeping = asyncio.ensure_future(kept._kept(held))
    kept.configure(Target("/nowhere", autoscale=Settings(max=4)))
    first = kept.autoscaler
    assert first is not None
    await until(lambda: first._held is held)
    assert kept.autoscale(Call(Kind.AUTOSCALE, switch="off"))["enabled"] is False
    kept.configure(Target("/nowhere", autoscale=Settings(max=6)))
    assert kept.autoscaler is first
    found = kept.autoscale(Call(Kind.AUTOSCALE))
    assert (found["enabled"], found["settings"]["max"]) == (False, 6)
    kept.configure(Target("/nowhere"))
    await until(lambda: first._held is None)
    assert not keeping.done()
    held.asked.set()
    await keeping


async def test_a_domain_whose_libvirt_is_not_reached_is_a_trouble_by_the_vms_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Away(FakeLibvirt):
        def open(self, uri: str) -> FakeConnection:
            raise FakeError(38, f"Failed to connect to {uri}: No such file or directory")

    Away().take_the_place(monkeypatch)
    monkeypatch.setattr(directory, "directory", lambda: tmp_path)
    gone: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    class Hears(Unheard):
        def gone(self, name: str, reason: Reason) -> None:
            gone.put_nowait((name, reason.code))

    kept = Kept("db1", Domain("qemu:///system", "db", "db1"), Hears())
    keeping = asyncio.ensure_future(kept.keep())
    async with asyncio.timeout(DEADLINE):
        assert await gone.get() == ("db1", "libvirt-gone")
    assert kept.trouble is not None
    assert kept.held is None
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
