# SPDX-License-Identifier: Apache-2.0
"""One VM of the service: held whenever it can be, and asked either way."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Protocol

from .. import documents
from ..core.reason import Reason
from ..documents import Document
from ..errors import VcpuctlError
from ..local.lock import busy
from ..local.target import Target
from ..sharing.answers import Say
from ..sharing.calls import Call
from ..sharing.hold import ElsewhereError, Held, hold
from ..sharing.hub import Part
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

    def gone(self, name: str) -> None:
        """The VM cannot be looked at any more."""


class Kept:
    """A VM by its name in vms.d. ``held`` is None while it is not held, and ``trouble`` then says why."""

    def __init__(self, name: str, target: Target, heard: Heard) -> None:
        self.name = name
        self.target = target
        self.held: Held | None = None
        self.trouble: Reason | None = None
        self._heard = heard
        self._elsewhere = Vm(target, HOLDER)

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
                    ended=lambda result: self._heard.result(self.name, result),
                ) as held:
                    pause = _FIRST
                    self.held, self.trouble = held, None
                    await self._follow(held)
                continue  # it was asked for
            except ElsewhereError as elsewhere:
                self.trouble = busy(elsewhere.holder).reason
            except VcpuctlError as error:
                self.trouble = error.reason
            finally:
                self.held = None
            self._heard.gone(self.name)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST)

    async def _follow(self, held: Held) -> None:
        """Look whenever something changes, until somebody needs the VM itself."""
        async with aclosing(held.vm.watch(stop=held.asked, interval=_INTERVAL)) as views:
            async for view in views:
                self._heard.view(self.name, documents.of_view(view))

    async def ask(self, call: Call, say: Say) -> Document:
        """Return the answer, as ``sharing.vm.Vm`` does."""
        held = self.held
        if held is None:
            return await self._elsewhere.ask(call, say)
        return await (held.order(call, say) if call.changes else held.answer(call, say))

    def interrupt(self) -> None:
        """End the wait of the operation under way."""
        if self.held is None:
            self._elsewhere.interrupt()
        else:
            self.held.vm.interrupt()
