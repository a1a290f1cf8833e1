# SPDX-License-Identifier: Apache-2.0
"""A connection to a libvirt daemon, whose calls cannot hang: each has a deadline, and a thread to hang in.

libvirt's calls block. Those of one user are made one after another, in a thread of the user's own. One that does not
come back in its time ends the connection for that user.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from ..core.reason import Reason
from ..errors import QemuGoneError, VcpuctlError
from . import binding, shared, words
from .shared import Raw
from .worker import Worker

T = TypeVar("T")

#: How long it may take to free what is left of a connection, in seconds.
_LETS_GO = 1.0


class Connection:
    """One user's. Made by ``open``."""

    def __init__(self, raw: Raw, call_timeout: float) -> None:
        self.uri = raw.uri
        #: The version of the daemon, as libvirt counts: 12_008_000 is 12.8.0.
        self.version = raw.version
        self._raw = raw
        self._worker = Worker(f"libvirt {raw.uri}")
        self._call_timeout = call_timeout
        self._one = asyncio.Lock()
        self._lost: Reason | None = None
        self._closed = False
        self._hears: list[Callable[[Reason], None]] = []
        raw.on_loss(self._lose)

    @classmethod
    async def open(
        cls, uri: str, *, timeout: float, call_timeout: float, readonly: bool = False, alone: bool = False
    ) -> Connection:
        """Open a connection within ``timeout`` seconds; ``call_timeout`` is for each call.

        One that is ``readonly`` can look at domains, and most users may have it. One that is ``alone`` is shared with
        nobody else in this process. Raise RefusedError or QemuGoneError by what libvirt says, QemuGoneError
        "libvirt-silent" if it says nothing.
        """
        return cls(await shared.take(uri, timeout=timeout, readonly=readonly, alone=alone), call_timeout)

    @property
    def raw(self) -> Any:
        """libvirt's own object (virConnect), to be used in ``call`` alone."""
        return self._raw.handle

    def on_loss(self, hear: Callable[[Reason], None]) -> None:
        """Have ``hear`` called, in the event loop, when the connection is lost."""
        self._hears.append(hear)

    async def call(self, what: str, function: Callable[..., T], *arguments: Any) -> T:
        """Return what the function returns, which is called in the user's thread; ``what`` it does is for people.

        The time of a call begins when it is its turn: what others do with the connection is no silence of libvirt's.
        Raise what ``words.of_call`` makes of libvirt's error, QemuGoneError if the connection is lost or no answer
        comes: then it is not known what was done.
        """
        async with self._one, self._raw.turns:
            if self._lost is not None:
                raise self.gone()
            try:
                async with asyncio.timeout(self._call_timeout):
                    return await self._worker.do(lambda: self._called(what, function, arguments))
            except TimeoutError:
                shared.avoid(self._raw)
                self._lose(words.silent(self.uri, self._call_timeout, what))
                raise self.gone() from None

    async def has_qemu(self) -> None:
        """Raise UsageError "bad-uri" if the libvirt has other domains than QEMU's."""
        kind = await self.call("ask what it manages", self.raw.getType)
        if kind != "QEMU":
            raise words.not_qemu(self.uri, kind)

    async def let_go(self, function: Callable[[], object]) -> None:
        """Call a function that frees what this process has of the connection, lost or not. Never hang, never raise.

        Once it is closed there is nothing of it to be freed, and no thread any more that would call.

        (Callbacks that stay registered keep a connection from being freed: seen with 9.0's module, an eventfd each.)
        """
        if self._closed:
            return
        with contextlib.suppress(TimeoutError, VcpuctlError):
            async with asyncio.timeout(_LETS_GO):
                await self._worker.do(lambda: self._called("let go of it", function, ()))

    def _called(self, what: str, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        libvirt = binding.module()
        try:
            return function(*arguments)
        except libvirt.libvirtError as error:
            raise words.of_call(error, what, alive=self._raw.alive()) from error

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
        if self._closed:
            return
        self._closed = True
        self._raw.forget(self._lose)
        if self._lost is None:
            self._lose(words.lost(self.uri, "the connection was closed"))
        self._worker.end()
        await shared.give_back(self._raw)

    def _lose(self, reason: Reason) -> None:
        if self._lost is None:
            self._lost = reason
            for hear in self._hears:
                hear(reason)
