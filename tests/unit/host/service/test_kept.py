# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from vcpu_host.documents import Document
from vcpu_host.errors import RefusedError
from vcpu_host.local.lock import busy
from vcpu_host.local.target import Target
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
