# SPDX-License-Identifier: Apache-2.0
"""Following one VM for all that watch it: one look at each change, however many they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from .. import ports
from ..core.view import VmView
from .agent_session import Sessions
from .waiting import first_of, hear_agent, hear_vmm


class _Watcher:
    """One that watches: ``newest`` is what the last look showed, or came to, unless that was taken already."""

    def __init__(self, after: int) -> None:
        self.news = asyncio.Event()
        self._after = after  # looks up to this one had begun when it came: they may show what is no more
        self._newest: VmView | Exception | None = None

    def hears(self, look: int, came: VmView | Exception) -> None:
        """Have the newest view, or the error that there is instead; what was not taken before is forgotten."""
        if look > self._after:
            self._newest = came
            self.news.set()

    def take(self) -> VmView:
        """Return the newest view, once. Raise the error of the look."""
        came, self._newest = self._newest, None
        self.news.clear()
        if isinstance(came, Exception):
            raise came
        if came is None:
            raise AssertionError("news is set with each view")
        return came


class Follower:
    """Looks whenever something may have changed, while somebody watches, and shows it to all of them.

    ``look`` looks once. Each watcher sees a look that began after it came; who is slow misses views, but never the
    newest. A look that fails ends all that it was for.
    """

    def __init__(self, vmm: ports.Vmm, sessions: Sessions, look: Callable[[], Awaitable[VmView]]) -> None:
        self._vmm = vmm
        self._sessions = sessions
        self._look = look
        self._watchers: set[_Watcher] = set()
        self._following: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()  # something may have changed since the last look began
        self._looks = 0  # that were begun
        self._looking = False

    @property
    def watched(self) -> bool:
        """Whether anybody watches."""
        return bool(self._watchers)

    @property
    def is_to_look(self) -> bool:
        """Whether a look is due that has not begun."""
        return self._wanted.is_set()

    def look_anew(self) -> None:
        """Have those who watch see how the VM is now: somebody has learnt what no event tells."""
        if self._watchers:
            self._wanted.set()

    async def views(self, stop: asyncio.Event, until: float | None, interval: float) -> AsyncGenerator[VmView, None]:
        """Yield what ``Coordinator.watch`` says."""
        loop = asyncio.get_running_loop()
        watcher = self._join()
        try:
            await first_of(stop, watcher.news)
            while not stop.is_set():
                yield watcher.take()
                while not watcher.news.is_set() and not stop.is_set():
                    left = interval if until is None else min(interval, until - loop.time())
                    if left <= 0:
                        return
                    await first_of(stop, watcher.news, seconds=left)
                    if not self._looking:
                        self._wanted.set()
                if until is not None and loop.time() >= until:
                    return
        finally:
            await self._leave(watcher)

    def _join(self) -> _Watcher:
        watcher = _Watcher(self._looks)
        self._watchers.add(watcher)
        self._wanted.set()
        if self._following is None:
            self._following = asyncio.ensure_future(self._follow())
        return watcher

    async def _leave(self, watcher: _Watcher) -> None:
        self._watchers.discard(watcher)
        following = self._following
        if self._watchers or following is None:
            return
        self._following = None  # who comes from now on begins anew
        self._wanted.clear()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        listeners = {loop.create_task(hear_vmm(self._vmm.events(), self._wanted))}
        heard: ports.GuestAgent | None = None
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                came = await self._looked()
                for watcher in self._watchers:
                    watcher.hears(self._looks, came)
                current = self._sessions.current
                if current is not None and current is not heard:
                    heard = current
                    listener = loop.create_task(hear_agent(heard, self._wanted))
                    listeners.add(listener)
                    listener.add_done_callback(listeners.discard)  # sessions may come and go for as long as one watches
        finally:
            self._looking = False
            ended = list(listeners)
            for task in ended:
                task.cancel()
            await asyncio.gather(*ended, return_exceptions=True)

    async def _looked(self) -> VmView | Exception:
        self._looks += 1
        self._looking = True
        try:
            return await self._look()
        except Exception as error:  # noqa: BLE001 - each that watches raises it, whatever it is
            return error
        finally:
            self._looking = False
