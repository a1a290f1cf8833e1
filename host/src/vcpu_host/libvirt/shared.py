# SPDX-License-Identifier: Apache-2.0
"""libvirt's own connections: one to each libvirt for all that is looked at and changed there, and others alone.

To another host a connection is a process of ssh and some tenths of a second, so VMs of one libvirt share one. What
hangs a connection (a stream whose guest does not read) has one to itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from ..core.reason import Reason
from ..errors import QemuGoneError
from . import binding, words
from .worker import Worker

#: Another libvirt is given up if it leaves that many requests for a sign of life unanswered, one each so many seconds.
_KEEPALIVE_SECONDS, _KEEPALIVE_COUNT = 5, 3
#: How long an orderly end may take, in seconds.
_CLOSE = 1.0
#: So many connections to one host are opened at once. By ssh each is a login, and from ten of those under way on sshd
#: turns some away by chance (sshd_config(5), MaxStartups 10:30:100); libvirtd itself takes 20 (max_anonymous_clients).
_OPENING = 4
#: How often one that was turned away is tried, and how long it is waited before the next time, at first, in seconds.
_TRIES, _PAUSE = 6, 0.2
#: So many calls of one connection are under way at once. From 5 on (libvirtd.conf, max_client_requests) the daemon
#: reads nothing more of it, and that is keepalive's answers, too: calls that wait for a domain would end all others.
_CALLS = 4


class Raw:
    """A virConnect that is being opened, or is open. ``handle`` is libvirt's object, ``version`` the daemon's.

    libvirt counts versions so: 12_008_000 is 12.8.0.
    """

    def __init__(self, uri: str, *, readonly: bool, gate: asyncio.Semaphore, timeout: float) -> None:
        """``gate`` lets so many be opened at once. If it is turned away, it is tried again for ``timeout`` seconds."""
        self.uri = uri
        self.readonly = readonly
        self.handle: Any = None
        self.version = 0
        self.lost: Reason | None = None
        self.users = 0
        #: Held by each call that is under way.
        self.turns = asyncio.Semaphore(_CALLS)
        self._hears: list[Callable[[Reason], None]] = []
        self._worker = Worker(f"libvirt {uri}")
        until = asyncio.get_running_loop().time() + timeout
        self._opening = asyncio.ensure_future(self._begin(gate, until))
        self._opening.add_done_callback(self._opening_ended)

    async def _begin(self, gate: asyncio.Semaphore, until: float) -> None:
        pause = _PAUSE
        for left in reversed(range(_TRIES)):
            try:
                async with gate:
                    return await self._worker.do(self._open)
            except QemuGoneError as error:
                over = asyncio.get_running_loop().time() + pause > until
                if not left or over or not words.turned_away(error.reason.text):
                    raise
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that many do not come again at once
            pause *= 2
        raise AssertionError("the last try ends it")

    async def lives(self) -> bool:
        """Return whether it can be used, or may come to be."""
        if self.failed or not self._opening.done():
            return not self.failed
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE):
                return await self._worker.do(self.alive)
        return False

    async def opened(self) -> None:
        """Return when it is open. Raise what ``words.of_opening`` makes of libvirt's error."""
        await asyncio.shield(self._opening)

    @property
    def failed(self) -> bool:
        """Whether it is of no use, now or ever."""
        broken = self._opening.done() and (self._opening.cancelled() or self._opening.exception() is not None)
        return broken or self.lost is not None

    def alive(self) -> bool:
        """Return whether the connection lives, as far as this end knows: nothing is sent. In a thread of it."""
        handle, libvirt = self.handle, binding.module()
        try:
            return handle is not None and handle.isAlive() != 0
        except libvirt.libvirtError:
            return False

    def on_loss(self, hear: Callable[[Reason], None]) -> None:
        """Have ``hear`` called, in the event loop, when the connection is lost."""
        self._hears.append(hear)

    def forget(self, hear: Callable[[Reason], None]) -> None:
        """Do not call it any more."""
        self._hears.remove(hear)

    def _open(self) -> None:
        libvirt = binding.module()
        try:
            self.handle = (libvirt.openReadOnly if self.readonly else libvirt.open)(self.uri)
            self.version = self.handle.getLibVersion()
            self.handle.registerCloseCallback(self._closed, None)
            with contextlib.suppress(libvirt.libvirtError):  # the other end may be too old for it
                self.handle.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVE_COUNT)
        except libvirt.libvirtError as error:
            self._close()
            raise words.of_opening(error, self.uri) from error

    def _opening_ended(self, opening: asyncio.Future[None]) -> None:
        """Leave no thread behind if the opening failed. That is no news where nobody waited for it."""
        if opening.cancelled() or opening.exception() is not None:
            self._worker.end()

    def _closed(self, handle: Any, reason: int, opaque: object) -> None:
        """Hear the close callback, in the thread of events."""
        del handle, opaque
        self._worker.later(self.lose, words.lost(self.uri, words.closed_by(reason)))

    def lose(self, reason: Reason) -> None:
        """Tell all users that it is lost."""
        if self.lost is None:
            self.lost = reason
            for hear in list(self._hears):
                hear(reason)

    async def close(self) -> None:
        """End it, within a moment or in its own time. libvirt ends it when nobody has an object of it any more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE):
                await self._worker.do(self._close)
        self._worker.end()

    def _close(self) -> None:
        libvirt = binding.module()
        handle, self.handle = self.handle, None
        if handle is not None:
            for end in (handle.unregisterCloseCallback, handle.close):
                with contextlib.suppress(libvirt.libvirtError):  # there is no callback yet, or nothing to end
                    end()


class _Pool:
    """The connections of one event loop: those that are shared, and those of lone users that came to no end."""

    def __init__(self) -> None:
        self.shared: dict[tuple[str, bool], Raw] = {}
        self.spare: dict[tuple[str, bool], list[Raw]] = {}
        self._gates: dict[str, asyncio.Semaphore] = {}

    def new(self, uri: str, *, readonly: bool, timeout: float) -> Raw:
        """Return a connection that is being opened; so many at once to one host."""
        gate = self._gates.setdefault(urlsplit(uri).netloc, asyncio.Semaphore(_OPENING))
        return Raw(uri, readonly=readonly, gate=gate, timeout=timeout)


_POOLS: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = WeakKeyDictionary()


async def take(uri: str, *, timeout: float, readonly: bool, alone: bool) -> Raw:
    """Return an open connection, within ``timeout`` seconds: a shared one, or one ``alone``.

    Raise as ``Raw.opened``, or QemuGoneError "libvirt-silent". An attempt that hangs is waited for by whoever comes
    next, so that a libvirt that is silent for long does not cost a thread for each attempt.
    """
    pool = _POOLS.setdefault(asyncio.get_running_loop(), _Pool())
    key = (uri, readonly)
    if alone:
        spares = pool.spare.setdefault(key, [])
        raw = await _spare(spares) or pool.new(uri, readonly=readonly, timeout=timeout)
    else:
        found = pool.shared.get(key)
        if found is None or found.failed:
            found = pool.shared[key] = pool.new(uri, readonly=readonly, timeout=timeout)
        raw = found
    raw.users += 1
    try:
        async with asyncio.timeout(timeout):
            await raw.opened()
    except BaseException as error:
        raw.users -= 1
        if alone and not raw.failed:
            spares.append(raw)
        if isinstance(error, TimeoutError):
            raise QemuGoneError(words.silent(uri, timeout, "the attempt to connect")) from None
        raise
    return raw


async def _spare(spares: list[Raw]) -> Raw | None:
    """Return one that nobody has, if there is one that was not lost meanwhile."""
    while spares:
        raw = spares.pop()
        if await raw.lives():
            return raw
        await raw.close()
    return None


async def give_back(raw: Raw) -> None:
    """End the connection if nobody else uses it."""
    raw.users -= 1
    if raw.users == 0:
        pool = _POOLS.setdefault(asyncio.get_running_loop(), _Pool())
        key = (raw.uri, raw.readonly)
        if pool.shared.get(key) is raw:
            del pool.shared[key]
        await raw.close()


def avoid(raw: Raw) -> None:
    """Let nobody else share the connection: a call of it hangs."""
    pool = _POOLS.setdefault(asyncio.get_running_loop(), _Pool())
    if pool.shared.get((raw.uri, raw.readonly)) is raw:
        del pool.shared[raw.uri, raw.readonly]
