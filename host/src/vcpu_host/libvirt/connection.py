# SPDX-License-Identifier: Apache-2.0
"""A connection to a libvirt daemon, whose calls cannot hang: each has a deadline, and a thread of its own to hang in.

libvirt's calls block. They are made one after another in one thread of the connection's. One that does not come back in
its time ends the connection for its users; the thread, which nobody can end, stays behind and does nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ..core import codes
from ..core.reason import Origin, Reason
from ..core.text import printable
from ..errors import QemuGoneError
from ..qmp.in_turn import InTurn
from . import binding, words

T = TypeVar("T")

#: Another libvirt is given up if it leaves that many requests for a sign of life unanswered, one each so many seconds.
_KEEPALIVE_SECONDS, _KEEPALIVE_COUNT = 5, 3
#: How long an orderly end may take, in seconds.
_CLOSE = 1.0

_Job = Callable[[], None]


class Connection:
    """Made by ``open``. ``raw`` is libvirt's own object (virConnect), to be used in ``call`` alone."""

    def __init__(self, uri: str, call_timeout: float, *, readonly: bool = False) -> None:
        self.uri = uri
        self._readonly = readonly
        self.raw: Any = None
        #: The version of the daemon, as libvirt counts: 12_008_000 is 12.8.0.
        self.version = 0
        self._in_turn = InTurn(call_timeout)
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lost: Reason | None = None
        self._hears: list[Callable[[Reason], None]] = []
        threading.Thread(target=self._work, name=f"libvirt {uri}", daemon=True).start()

    @classmethod
    async def open(cls, uri: str, *, timeout: float, call_timeout: float, readonly: bool = False) -> Connection:
        """Open a connection within ``timeout`` seconds; ``call_timeout`` is for each call.

        One that is ``readonly`` can look at domains, and most users may have it.

        Raise RefusedError or QemuGoneError by what libvirt says, QemuGoneError "libvirt-silent" if it says nothing.
        """
        connection = cls(uri, call_timeout, readonly=readonly)
        try:
            async with asyncio.timeout(timeout):
                await connection._put(connection._open)
        except TimeoutError:
            connection._stuck(timeout)
            raise connection.gone() from None
        except BaseException:
            connection._jobs.put(None)
            raise
        return connection

    def _open(self) -> None:
        libvirt = binding.module()
        try:
            self.raw = (libvirt.openReadOnly if self._readonly else libvirt.open)(self.uri)
            self.version = self.raw.getLibVersion()
            self.raw.registerCloseCallback(self._closed, None)
            with contextlib.suppress(libvirt.libvirtError):  # the other end may be too old for it
                self.raw.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVE_COUNT)
        except libvirt.libvirtError as error:
            raise words.of_opening(error, self.uri) from error

    def on_loss(self, hear: Callable[[Reason], None]) -> None:
        """Have ``hear`` called, in the event loop, when the connection is lost."""
        self._hears.append(hear)

    async def call(self, what: str, function: Callable[..., T], *arguments: Any) -> T:
        """Return what the function returns, which is called in the connection's thread; ``what`` it does is for people.

        Raise what ``words.of_call`` makes of libvirt's error, QemuGoneError if the connection is lost or no answer
        comes: then it is not known what was done.
        """
        if self._lost is not None:
            raise self.gone()
        number = 0
        try:
            async with self._in_turn.bound() as number:
                answer = await self._put(lambda: self._called(what, function, arguments))
        except TimeoutError:
            self._stuck(self._in_turn.seconds, what)
            raise self.gone() from None
        self._in_turn.answered(number)
        return answer

    def _called(self, what: str, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        libvirt = binding.module()
        try:
            return function(*arguments)
        except libvirt.libvirtError as error:
            raise words.of_call(error, what) from error

    def gone(self) -> QemuGoneError:
        """Return the error that there is no connection (any more)."""
        return QemuGoneError(self._lost or words.lost(self.uri, "the connection was closed"))

    @property
    def lost(self) -> bool:
        """Whether the connection is of no use any more."""
        return self._lost is not None

    async def close(self) -> None:
        """End the connection: never hang, never raise; may be repeated.

        libvirt ends a connection only when no object of it is alive: whoever has domains and streams of it drops them
        first.
        """
        if self._lost is None:
            self._lose(words.lost(self.uri, "the connection was closed"))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE):
                    await self._put(self._close)
        self._jobs.put(None)

    def _close(self) -> None:
        libvirt = binding.module()
        raw, self.raw = self.raw, None
        with contextlib.suppress(libvirt.libvirtError):  # it is lost: then there is nothing to end
            raw.unregisterCloseCallback()
            raw.close()

    # --- the thread -------------------------------------------------------------------------------------------------

    async def _put(self, function: Callable[[], T]) -> T:
        """Have the thread call it, and return what it returns."""
        future: asyncio.Future[T] = self._loop.create_future()

        def job() -> None:
            try:
                answer = function()
            except BaseException as error:  # noqa: BLE001 - whoever waits is told
                self._tell(future.set_exception, future, error)
            else:
                self._tell(future.set_result, future, answer)

        self._jobs.put(job)
        return await future

    def _tell(self, settle: Callable[[Any], None], future: asyncio.Future[Any], what: object) -> None:
        def settled() -> None:
            if not future.done():
                settle(what)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(settled)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    # --- losing it --------------------------------------------------------------------------------------------------

    def _closed(self, raw: Any, reason: int, opaque: object) -> None:
        """The close callback, in the thread of events."""
        del raw, opaque
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._lose, words.lost(self.uri, words.closed_by(reason)))

    def _stuck(self, seconds: float, what: str = "the attempt to connect") -> None:
        text = f"libvirt ({printable(self.uri)}) has not answered to {what} within {seconds:g} s"
        hint = "see whether its daemon hangs, or the way there; then look again with vcpuctl list"
        self._lose(Reason(codes.LIBVIRT_SILENT, Origin.LIBVIRT, text, hint))
        self._jobs.put(None)

    def _lose(self, reason: Reason) -> None:
        if self._lost is None:
            self._lost = reason
            for hear in self._hears:
                hear(reason)
