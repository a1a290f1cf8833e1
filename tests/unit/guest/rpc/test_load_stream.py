# SPDX-License-Identifier: Apache-2.0
"""One stream of looks at the load: how often, and when not."""

from __future__ import annotations

import os
from contextlib import aclosing
from dataclasses import replace

import pytest
from vcpu_guest.core.load import CpuTimes, Load
from vcpu_guest.rpc.load_stream import MOST, ForbiddenError, LoadWatch, TooManyError

CALM = Load(10.0, (CpuTimes(0, 0, 0, 0, 0, 0),), 0, 0, 0)


class Source:
    """Looks that a test makes, and a pipe as the kernel's word."""

    def __init__(self, looks: list[Load], *, triggers: bool = False) -> None:
        self._looks = looks
        self._pipe = os.pipe() if triggers else None
        self.closed = False

    @property
    def descriptor(self) -> int | None:
        return None if self._pipe is None else self._pipe[0]

    def read(self) -> Load:
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]

    def tasks_wait(self) -> None:
        assert self._pipe is not None
        os.write(self._pipe[1], b"!")

    def quiet(self) -> None:
        assert self._pipe is not None
        os.set_blocking(self._pipe[0], False)
        try:
            os.read(self._pipe[0], 1)
        except BlockingIOError:
            return

    def close(self) -> None:
        self.closed = True
        for end in self._pipe or ():
            os.close(end)


def _later(load: Load, seconds: float, pressure: int = 0) -> Load:
    return replace(load, seconds=load.seconds + seconds, cpu_pressure=(load.cpu_pressure or 0) + pressure)


async def _pauses(watch: LoadWatch, count: int) -> list[float]:
    found = []
    async with aclosing(watch.looks(0.1, 0.1, 30.0)) as looks:
        async for _, pause in looks:
            found.append(pause)
            if len(found) == count:
                break
    return found


async def test_a_calm_guest_is_looked_at_as_seldom_as_the_host_says_and_a_busy_one_more_often() -> None:
    second = _later(CALM, 1.0)
    source = Source([CALM, second, _later(second, 1.0, 500_000)])
    watch = LoadWatch(lambda: source, lambda: False)
    found = []
    async with aclosing(watch.looks(0.2, 0.1, 0.3)) as looks:
        async for _, pause in looks:
            found.append(pause)
            if len(found) == 3:
                break
    assert found == [0.1, 0.2, 0.1]
    assert source.closed


async def test_the_kernels_word_ends_a_long_pause() -> None:
    second = _later(CALM, 1.0)
    source = Source([CALM, second, _later(second, 3600.0, 500_000)], triggers=True)
    found = []
    async with aclosing(LoadWatch(lambda: source, lambda: False).looks(0.1, 0.1, 60.0)) as looks:
        async for _, pause in looks:
            found.append(pause)
            if pause == 60.0:
                source.tasks_wait()
            if len(found) == 3:
                break
    assert found == [0.1, 60.0, 0.1]


async def test_nothing_is_looked_at_while_a_request_switches_cpus() -> None:
    source, asked = Source([CALM]), 0

    def at_work() -> bool:
        nonlocal asked
        asked += 1
        return asked <= 1

    assert len(await _pauses(LoadWatch(lambda: source, at_work), 2)) == 2
    assert asked == 2


async def test_an_administrators_word_is_final() -> None:
    watch = LoadWatch(None, lambda: False)
    assert not watch.allowed
    assert watch.support() is None
    with pytest.raises(ForbiddenError):
        await _pauses(watch, 1)


async def test_only_so_many_watch_at_once() -> None:
    watch = LoadWatch(lambda: Source([CALM]), lambda: False)
    streams = [watch.looks(0.1, 0.1, 0.1) for _ in range(MOST)]
    for stream in streams:
        await anext(stream)
    with pytest.raises(TooManyError):
        await _pauses(watch, 1)
    for stream in streams:
        await stream.aclose()
    assert await _pauses(watch, 1)


async def test_what_the_kernel_tells_is_told() -> None:
    bare = replace(CALM, cpu_pressure=None, cpus=(CpuTimes(0, 0, 0, 0, 0),))
    found = LoadWatch(lambda: Source([bare]), lambda: False).support()
    assert found is not None
    assert (found.pressure, found.run_queues, found.triggers) == (False, False, False)
    found = LoadWatch(lambda: Source([CALM], triggers=True), lambda: False).support()
    assert found is not None
    assert (found.pressure, found.run_queues, found.triggers) == (True, True, True)


def test_what_the_kernel_has_is_looked_at_once_and_again_only_if_it_could_not_be_read() -> None:
    opened: list[str] = []

    def open_source() -> Source:
        opened.append("x")
        if len(opened) == 1:
            raise OSError("not now")
        return Source([CALM], triggers=True)

    watch = LoadWatch(open_source, lambda: False)
    assert watch.support() is None
    found = watch.support()
    assert found is not None
    assert watch.support() is found
    assert len(opened) == 2
