# SPDX-License-Identifier: Apache-2.0
"""One look at programs at a time, in a thread of its own, whatever becomes of those who asked for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from kit.fakes.programs import FakePrograms, tasks_of, units_of
from kit.fakes.sysfs import FakeKernel
from kit.until import DEADLINE
from vcpu_guest.cpus.programs import Programs, looking_threads
from vcpu_guest.cpus.workload import Looker
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.process.urgency import Urgency


class _Slow(Looker):
    """Every look lasts until it may end."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Sysfs(folder / "sys"), "6.12.1", tasks_of(folder), units_of(folder))
        self.began, self.may_end = threading.Semaphore(0), threading.Semaphore(0)
        self.running = self.most = self.ended = 0
        self.threads_used: set[int] = set()
        self._count = threading.Lock()

    def threads(self, *args: object) -> object:  # type: ignore[override]
        with self._count:
            self.running += 1
            self.most = max(self.most, self.running)
            self.threads_used.add(threading.get_native_id())
        self.began.release()
        self.may_end.acquire()
        with self._count:
            self.running -= 1
            self.ended += 1
        return iter(())


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[_Slow]:
    kernel = FakeKernel(tmp_path / "sys", boot=(0, 1, 2, 3))
    FakePrograms(tmp_path)
    yield _Slow(tmp_path)
    kernel.close()


@pytest.fixture
async def programs(slow: _Slow) -> AsyncIterator[Programs]:
    programs = Programs(slow)
    yield programs
    slow.may_end.release(100)
    programs.close()


def _look(programs: Programs) -> asyncio.Task[object]:
    return asyncio.ensure_future(programs.look([3], use=False, broken=False, forgotten=False))


async def _in_pool(call: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        await asyncio.to_thread(call)


async def test_a_look_that_nobody_waits_for_any_more_is_over_before_the_next_one_begins(
    slow: _Slow, programs: Programs
) -> None:
    first = _look(programs)
    await _in_pool(slow.began.acquire)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = _look(programs)
    await asyncio.sleep(0)
    assert (slow.running, slow.most) == (1, 1)
    slow.may_end.release(2)
    await second
    assert (slow.most, slow.ended) == (1, 2)
    assert len(slow.threads_used) == 1


async def test_before_the_first_look_there_is_no_thread_for_it(slow: _Slow, programs: Programs) -> None:
    before = looking_threads()
    looking = _look(programs)
    await _in_pool(slow.began.acquire)
    assert len(looking_threads() - before) == 1
    slow.may_end.release()
    await looking


async def test_who_hurries_does_not_have_a_look_go_before_others(slow: _Slow, programs: Programs) -> None:
    looking = _look(programs)
    await _in_pool(slow.began.acquire)
    set_to: dict[int, int] = {}
    urgency = Urgency(lambda thread, policy, priority: set_to.update({thread: policy}), 3600, looking_threads)
    urgency.hurry()
    assert threading.get_native_id() in set_to
    assert not slow.threads_used & set_to.keys()
    slow.may_end.release()
    await looking


async def test_masks_are_put_back_after_a_change_that_was_given_up_too_and_not_by_an_agent_that_ends(
    slow: _Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = Programs(slow, keep=True)
    put: list[bool] = []
    monkeypatch.setattr(programs._masks, "put_back", lambda *, settled: put.append(settled))
    slow.may_end.release(100)

    async def given_up() -> None:
        async with programs.watching([3]):
            async with programs.watching([2]):
                pass
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await given_up()
    assert put == [False, True]
    async with programs.watching([3]):
        programs.close()
    assert len(put) == 2
