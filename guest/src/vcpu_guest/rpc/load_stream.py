# SPDX-License-Identifier: Apache-2.0
"""One WatchLoad stream: a look at the load, now and then, more often while tasks wait.

A look costs a guest of few CPUs a tenth of a millisecond. Nothing is read, open or timed while no host watches.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from vcpu_guest.core.load import Load, LoadSupport, bounded, is_busy
from vcpu_guest.kernel.load import LoadSource

#: While a request switches CPUs, looks come this seldom, in seconds: each would take the guest's time just then.
_ASIDE = 1.0
#: So many hosts, or programs of one, may watch at once.
MOST = 4


class TooManyError(Exception):
    """So many watch already."""


class ForbiddenError(Exception):
    """The guest's administrator does not let the agent tell the load."""


class LoadWatch:
    """Looks at the load for those who watch it.

    `open_source` opens the kernel's files, and raises OSError; None: the administrator forbids it. `at_work` says
    whether a request switches CPUs now.
    """

    def __init__(self, open_source: Callable[[], LoadSource] | None, at_work: Callable[[], bool]) -> None:
        self._open_source = open_source
        self._at_work = at_work
        self._watching = 0
        self._support: LoadSupport | None = None  # once it is known: a kernel keeps what it has

    @property
    def allowed(self) -> bool:
        """Say whether the administrator lets the agent tell the load."""
        return self._open_source is not None

    def support(self) -> LoadSupport | None:
        """Return what the kernel tells; None if nothing, or if nobody may ask.

        May block for a millisecond, once: a PSI trigger is tried, which the kernel may start a thread for (psi.c).
        """
        if self._support is None and self._open_source is not None:
            self._support = _support_of(self._open_source)
        return self._support

    async def looks(self, calm: float, busy: float, quiet: float) -> AsyncGenerator[tuple[Load, float], None]:
        """Yield looks, each with the seconds within which the next one comes.

        The arguments are what the host asked for, in seconds. Raise TooManyError, ForbiddenError or OSError.
        """
        if self._open_source is None:
            raise ForbiddenError("the administrator forbids it (load = false in vcpud.conf)")
        if self._watching >= MOST:
            raise TooManyError(f"{MOST} programs watch the load already")
        source = self._open_source()
        self._watching += 1
        try:
            last: Load | None = None
            woken = False
            while True:
                load = source.read()
                periods = bounded(calm, busy, quiet, len(load.cpus))
                # What the kernel has just told of is little beside all the time since the last look.
                rests = last is not None and not woken and not is_busy(last, load)
                triggers = rests and source.descriptor is not None
                pause = periods.quiet if triggers else periods.calm if rests else periods.busy
                yield load, pause
                last = load
                woken = await self._until_next(source, pause, may_wake=triggers)
        finally:
            self._watching -= 1
            source.close()

    async def _until_next(self, source: LoadSource, pause: float, *, may_wake: bool) -> bool:
        """Wait for the pause to end, and longer while a request switches CPUs. Return whether the kernel ended it."""
        woken = False
        if may_wake and source.descriptor is not None:
            woken = await _readable(source.descriptor, pause)
            source.quiet()
        else:
            await asyncio.sleep(pause)
        while self._at_work():  # noqa: ASYNC110 - seldom and short: the writer need not tell when it ends
            await asyncio.sleep(_ASIDE)
        return woken


async def _readable(descriptor: int, seconds: float) -> bool:
    """Return when the descriptor is readable, or after so many seconds; say which."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        async with asyncio.timeout(seconds):
            return await ready.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)


def _support_of(open_source: Callable[[], LoadSource]) -> LoadSupport | None:
    try:
        source = open_source()
    except OSError:
        return None
    try:
        now = source.read()
    except OSError:
        return None
    finally:
        triggers = source.descriptor is not None
        source.close()
    return LoadSupport(now.cpu_pressure is not None, any(cpu.waited is not None for cpu in now.cpus), triggers)
