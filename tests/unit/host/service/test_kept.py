# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kit.fakes.libvirt_api import FakeConnection, FakeError, FakeLibvirt
from vcpu_host.core.reason import Reason
from vcpu_host.documents import Document
from vcpu_host.errors import RefusedError
from vcpu_host.local import directory
from vcpu_host.local.lock import busy
from vcpu_host.local.target import Domain, Target
from vcpu_host.service.kept import Kept
from vcpu_host.service.serve import Unheard
from vcpu_host.sharing.answers import Say
from vcpu_host.sharing.calls import Call, Kind


class _Vm:
    def __init__(self) -> None:
        self.interrupted = asyncio.Event()

    def interrupt(self) -> None:
        self.interrupted.set()


class _Held:
    """One operation at a time, which lasts until it is interrupted."""

    def __init__(self) -> None:
        self.vm = _Vm()
        self.begun = asyncio.Event()

    @contextmanager
    def operation(self, call: Call) -> Iterator[None]:
        del call
        if self.begun.is_set():
            raise busy("1 vcpuctl plug")
        self.begun.set()
        yield

    async def answer(self, call: Call, say: Say) -> Document:
        del call, say
        await self.vm.interrupted.wait()
        return {}


async def test_who_is_refused_or_has_not_begun_does_not_end_the_wait_of_another() -> None:
    kept = Kept("web1", Target("/nowhere"), Unheard())
    held: Any = _Held()
    kept.held = held
    first, second, third = kept.asked(), kept.asked(), kept.asked()
    working = asyncio.ensure_future(first.answer(Call(Kind.RUN), lambda message: None))
    async with asyncio.timeout(60):
        await held.begun.wait()
    with pytest.raises(RefusedError):
        await second.answer(Call(Kind.RUN), lambda message: None)
    second.interrupt()
    third.interrupt()
    assert not held.vm.interrupted.is_set()
    first.interrupt()
    assert await working == {}


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
    async with asyncio.timeout(60):
        assert await gone.get() == ("db1", "libvirt-gone")
    assert kept.trouble is not None
    assert kept.held is None
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
