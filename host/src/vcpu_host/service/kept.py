# SPDX-License-Identifier: Apache-2.0
"""One VM of the service: held whenever it can be, and asked either way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import aclosing
from typing import Protocol

from .. import documents
from ..core.reason import Reason
from ..documents import Document
from ..errors import VcpuctlError
from ..local.lock import busy
from ..local.target import AnyTarget
from ..sharing.answers import Say
from ..sharing.calls import Call
from ..sharing.hold import Held, hold
from ..sharing.hub import Part
from ..sharing.taking import ElsewhereError
from ..sharing.vm import Vm

HOLDER = "vcpuctl serve"
#: How long a program that has the VM is waited for before that is told as a trouble, in seconds.
_PATIENCE = 60.0
#: How often a VM is looked at without having been heard of, in seconds. Each look costs the guest something, too.
_INTERVAL = 120.0
#: After how many seconds a VM that could not be held is tried again: at first, and at most.
_FIRST, _LONGEST = 0.25, 5.0


class Heard(Protocol):
    """Hears of all VMs, each by its name in vms.d."""

    def view(self, name: str, document: Document) -> None:
        """The VM was looked at (``documents.of_view``)."""

    def result(self, name: str, document: Document) -> None:
        """An operation has ended (``documents.of_result``)."""

    def gone(self, name: str, reason: Reason) -> None:
        """The VM could not be looked at, for this reason."""

    def sessions(self, name: str, more: int) -> None:
        """So many more link sessions were made with the agent."""

    def configured(self, names: Collection[str]) -> None:
        """These are the VMs now, and no others."""


class Kept:
    """A VM by its name in vms.d. ``held`` is None while it is not held, and ``trouble`` then says why."""

    def __init__(self, name: str, target: AnyTarget, heard: Heard) -> None:
        self.name = name
        self.target = target
        self.held: Held | None = None
        self.trouble: Reason | None = None
        self._heard = heard
        self._link_sessions = 0  # of those of ``held`` that were told

    async def keep(self) -> None:
        """Hold the VM, and again whenever it was lost or lent, until cancelled."""
        pause = _FIRST
        while True:
            try:
                async with hold(
                    self.target,
                    Part.KEEPS,
                    HOLDER,
                    patience=_PATIENCE,
                    ended=self._ended,
                ) as held:
                    pause = _FIRST
                    self.held, self.trouble, self._link_sessions = held, None, 0
                    await self._follow(held)
                continue  # it was asked for
            except ElsewhereError as elsewhere:
                trouble = busy(elsewhere.holder).reason
            except VcpuctlError as error:
                trouble = error.reason
            finally:
                self.held = None
            self.trouble = trouble
            self._heard.gone(self.name, trouble)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST)

    async def _follow(self, held: Held) -> None:
        """Look whenever something changes, until somebody needs the VM itself."""
        async with aclosing(held.vm.watch(stop=held.asked, interval=_INTERVAL)) as views:
            async for view in views:
                self._heard.view(self.name, documents.of_view(view))
                self._tell_sessions(held)

    def _tell_sessions(self, held: Held) -> None:
        if held.vm.link_sessions > self._link_sessions:
            self._heard.sessions(self.name, held.vm.link_sessions - self._link_sessions)
            self._link_sessions = held.vm.link_sessions

    def _ended(self, result: Document) -> None:
        self._heard.result(self.name, result)

    def elsewhere(self) -> Vm:
        """Return a way to the VM while it is not held here."""
        return Vm(self.target, HOLDER, ended=self._ended)

    def asked(self) -> Asked:
        """Return somebody's way to ask, once."""
        return Asked(self)


class Asked:
    """One call to a VM of the service, with its own way to be interrupted: nobody ends the wait of somebody else."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._interrupt: Callable[[], None] | None = None

    async def answer(self, call: Call, say: Say) -> Document:
        """Return the answer, as ``sharing.vm.Vm`` does."""
        held = self._kept.held
        if held is None:
            elsewhere = self._kept.elsewhere()
            self._interrupt = elsewhere.interrupt
            return await elsewhere.ask(call, say)
        if not call.changes:
            return await held.answer(call, say)
        with held.operation(call):
            self._interrupt = held.vm.interrupt
            try:
                return await held.answer(call, say)
            finally:
                self._interrupt = None

    def interrupt(self) -> None:
        """End the wait of the operation, if it was begun for this call."""
        if self._interrupt is not None:
            self._interrupt()
