# SPDX-License-Identifier: Apache-2.0
"""Who does not wait any longer for an operation ends it, however early, and whoever it waits for."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kit.until import DEADLINE, until
from vcpu_host.cli.operate import interruptible
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.documents import Document
from vcpu_host.errors import OutcomeLostError, RefusedError
from vcpu_host.local import directory, journald
from vcpu_host.local.lock import VmLock
from vcpu_host.local.target import Target
from vcpu_host.sharing import hub as hub_module
from vcpu_host.sharing import remote, taking
from vcpu_host.sharing import vm as module
from vcpu_host.sharing.answers import Say
from vcpu_host.sharing.calls import Call, Kind, Part
from vcpu_host.sharing.hold import Held
from vcpu_host.sharing.hub import Hub
from vcpu_host.sharing.interruption import Interruption
from vcpu_host.sharing.vm import Vm

_PLUG = Call(Kind.RUN, Request(Operation.PLUG, 1))


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where locks lie. Who has one is waited for without end."""
    monkeypatch.setattr(directory, "directory", lambda: tmp_path)
    monkeypatch.setattr(taking, "PATIENCE", 1e6)
    return tmp_path


@pytest.fixture(autouse=True)
def outcomes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the journal is told."""
    written: list[str] = []

    def log_operation(subject: object, caller: object, document: Mapping[str, Any], *counts: object) -> str:
        del subject, caller, counts
        written.append(document["outcome"])
        return "written"

    monkeypatch.setattr(journald, "log_operation", log_operation)
    return written


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """A VM."""
    return Target(str(tmp_path / "qmp"))


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Path]:
    """A socket on which somebody listens who never answers."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "silent"))
        listener.listen(64)
        yield tmp_path / "silent"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_while_another_program_has_the_vm_ends_the_operation_before_it_begins(
    target: Target, outcomes: list[str], number: signal.Signals
) -> None:
    other, said = VmLock(target.place, "another"), asyncio.Event()
    assert other.try_take()
    vm = Vm(target, "a test")
    with interruptible(vm.interrupt):
        asking = asyncio.ensure_future(vm.ask(_PLUG, lambda message: said.set()))
        async with asyncio.timeout(DEADLINE):
            await said.wait()  # it waits for the other one
        signal.raise_signal(number)
        with pytest.raises(RefusedError) as refused:
            await asyncio.wait_for(asking, DEADLINE)
    assert refused.value.reason.code == "interrupted"
    assert outcomes == ["refused"]
    other.release()


async def test_an_interrupt_that_comes_before_all_else_is_remembered(target: Target, outcomes: list[str]) -> None:
    vm = Vm(target, "a test")
    vm.interrupt()
    with pytest.raises(RefusedError) as refused:
        await vm.ask(_PLUG, lambda message: None)
    assert refused.value.reason.code == "interrupted"
    assert outcomes == ["refused"]


async def test_an_interrupt_while_qemu_is_dialled_ends_the_operation_before_it_begins(
    target: Target, outcomes: list[str]
) -> None:
    dialled, gone = asyncio.Event(), asyncio.Event()

    async def greet_nobody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.set()
        await reader.read()
        writer.close()
        gone.set()

    server = await asyncio.start_unix_server(greet_nobody, target.place)
    vm = Vm(target, "a test")
    asking = asyncio.ensure_future(vm.ask(_PLUG, lambda message: None))
    async with asyncio.timeout(DEADLINE):
        await dialled.wait()
        vm.interrupt()
        with pytest.raises(RefusedError) as refused:
            await asking
        await gone.wait()
    assert refused.value.reason.code == "interrupted"
    assert outcomes == ["refused"]
    server.close()


async def _held_by(target: Target, answer: Any, **more: Any) -> tuple[VmLock, Hub]:
    lock, hub = VmLock(target.place, "a keeper"), Hub(Part.KEEPS, "a keeper", answer, **more)
    assert lock.try_take()
    await hub.listen(lock.address)
    return lock, hub


async def test_the_second_interrupt_ends_the_wait_for_last_words_too(target: Target, outcomes: list[str]) -> None:
    begun = asyncio.Event()

    async def answer(call: Call, say: Say, interruption: Interruption) -> Document:
        del call, say, interruption
        begun.set()
        await asyncio.Event().wait()  # it has no last words
        return {}

    lock, hub = await _held_by(target, answer)
    vm = Vm(target, "a test")
    asking = asyncio.ensure_future(vm.ask(_PLUG, lambda message: None))
    async with asyncio.timeout(DEADLINE):
        await begun.wait()
        vm.interrupt()
        assert vm.at_work
        vm.interrupt()
        with pytest.raises(OutcomeLostError) as unknown:
            await asking
    assert unknown.value.reason.code == "interrupted"
    assert outcomes == [], "who carries it out writes that down"
    await hub.close()
    lock.release()


async def test_who_leaves_before_the_service_has_begun_has_nothing_changed(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Interruption] = []

    class Seen(Interruption):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(hub_module, "Interruption", Seen)
    waits, go, carried_out = asyncio.Event(), asyncio.Event(), []

    async def answer(call: Call, say: Say, interruption: Interruption) -> Document:
        del say, interruption
        carried_out.append(call)
        return {}

    async def stands_back() -> None:
        waits.set()
        await go.wait()

    lock, hub = await _held_by(target, answer, stands_back=stands_back)
    vm = Vm(target, "a test")
    asking = asyncio.ensure_future(vm.ask(_PLUG, lambda message: None))
    async with asyncio.timeout(DEADLINE):
        await waits.wait()
        vm.interrupt()
        await made[0].asked.wait()
        go.set()
        with pytest.raises(RefusedError) as refused:
            await asking
    assert refused.value.reason.code == "interrupted"
    assert carried_out == []
    await hub.close()
    lock.release()


async def test_the_loop_goes_on_while_a_journal_takes_no_entry_of_what_was_refused(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, takes = threading.Event(), threading.Event()

    def log_operation(*entry: object) -> str:
        del entry
        begun.set()
        assert takes.wait(60), "the loop stood still"
        return "written"

    monkeypatch.setattr(journald, "log_operation", log_operation)
    vm = Vm(target, "a test")
    vm.interrupt()
    refusing = asyncio.ensure_future(vm.ask(_PLUG, lambda message: None))
    await until(begun.is_set)
    takes.set()
    with pytest.raises(RefusedError):
        await refusing
    begun.clear()
    takes.clear()
    held: Any = Held(
        SimpleNamespace(identity=None, name="web1"),  # type: ignore[arg-type] # of a VM no more is needed
        Hub(Part.WRITES, "a test", _no_answer),
        target,
        "a test",
        *[None] * 3,  # type: ignore[arg-type]
    )
    held._ended = lambda document: None

    async def refused() -> None:
        async with held.operation(_PLUG):
            raise AssertionError("it is held for writing")

    refusing_too = asyncio.ensure_future(refused())
    await until(begun.is_set)
    takes.set()
    with pytest.raises(RefusedError):
        await refusing_too


async def _no_answer(call: Call, say: Say, interruption: Interruption) -> Document:
    raise AssertionError("nobody asks")


@pytest.mark.parametrize("call", [Call(Kind.LIST), Call(Kind.WATCH), _PLUG], ids=["list", "watch", "plug"])
async def test_a_service_that_never_answers_is_named_and_given_up(
    target: Target, silent: Path, monkeypatch: pytest.MonkeyPatch, call: Call, outcomes: list[str]
) -> None:
    monkeypatch.setenv("VCPUCTL_SOCKET", str(silent))
    monkeypatch.setattr(module, "_may_use_locks_of_service", lambda: False)
    monkeypatch.setattr(remote, "HEARS", 0.1)
    said: list[Any] = []
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(RefusedError) as refused:
            await Vm(target, "a test").ask(call, said.append)
    reason = refused.value.reason
    assert reason.code == "service-silent"
    assert f"vcpuctl serve, at {silent}," in reason.text
    assert reason.hint
    assert outcomes == (["refused"] if call.changes else [])


def _ended() -> int:
    """The id of a process that is no more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize("listener", [lambda: 1, _ended], ids=["systemd", "one that has ended"])
async def test_a_service_that_systemd_is_starting_gets_the_time_of_a_start(
    target: Target, silent: Path, monkeypatch: pytest.MonkeyPatch, listener: Callable[[], int]
) -> None:
    monkeypatch.setenv("VCPUCTL_SOCKET", str(silent))
    monkeypatch.setattr(module, "_may_use_locks_of_service", lambda: False)
    monkeypatch.setattr(remote, "peer", lambda sock: listener())
    monkeypatch.setattr(remote, "HEARS", 0.01)
    monkeypatch.setattr(remote, "STARTS", 0.2)
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(RefusedError, match=r"has said nothing for 0\.2 s"):
            await Vm(target, "a test").ask(Call(Kind.LIST), lambda message: None)


async def test_who_waits_for_an_answer_is_told_for_whom(
    target: Target, silent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCPUCTL_SOCKET", str(silent))
    monkeypatch.setattr(module, "_may_use_locks_of_service", lambda: False)
    said: asyncio.Queue[Any] = asyncio.Queue()
    asking = asyncio.ensure_future(Vm(target, "a test").ask(Call(Kind.LIST), said.put_nowait))
    async with asyncio.timeout(DEADLINE):
        assert str(silent) in (await said.get())["holder"]
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_the_service_itself_never_asks_the_service(
    target: Target, silent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCPUCTL_SOCKET", str(silent))
    monkeypatch.setattr(module, "_may_use_locks_of_service", lambda: False)
    vm = Vm(target, "vcpuctl serve", service=False)
    assert vm._of_service(_PLUG) is None
    assert Vm(target, "vcpuctl list")._of_service(_PLUG) is not None
