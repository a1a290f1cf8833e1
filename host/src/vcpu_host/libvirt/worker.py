# SPDX-License-Identifier: Apache-2.0
"""A thread for calls that block, and that may never come back."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """Makes calls one after another. Nobody can end one that hangs: its thread stays behind, and does no more."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def do(self, function: Callable[[], T]) -> T:
        """Return what the function returns, which is called in the thread. Who is cancelled leaves the call alone."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(partial(self._job, function, future))
        try:
            return await future
        finally:
            del future  # see below

    def _job(self, function: Callable[[], T], future: asyncio.Future[T]) -> None:
        try:
            answer = function()
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            self._tell(future.set_exception, future, error)
        else:
            self._tell(future.set_result, future, answer)
        finally:
            # An error has this frame, and the future has the error: in such a circle libvirt's objects would live on,
            # and with them their connection, until Python happens to look for circles.
            del future

    def end(self) -> None:
        """Have the thread end after what it has to do; may be repeated."""
        self._jobs.put(None)

    def later(self, what: Callable[..., None], *arguments: object) -> None:
        """Have this called in the event loop. It may be asked for in any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(what, *arguments)

    def _tell(self, settle: Callable[[Any], None], future: asyncio.Future[Any], what: object) -> None:
        def settled() -> None:
            if not future.done():
                settle(what)

        self.later(settled)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # it has libvirt's objects, and the next one may be long in coming
