# SPDX-License-Identifier: Apache-2.0
"""Taking the locks of a VM: who waits for whom, and who asks the one who has it instead.

It loads nothing of what a VM is held with: most of the time of a command that another process answers would be that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from ..core import codes
from ..core.reason import Origin, Reason
from ..documents import Document
from ..errors import RefusedError
from ..local.lock import VmLock, busy
from ..local.target import AnyTarget
from .calls import Part
from .remote import HolderSilentError, asked_to_give_way

#: How long another program that holds the VM, and does not give way, is waited for, in seconds.
PATIENCE = 2.0
#: And one that has said that it gives way at once: on a busy host, letting go takes its time.
YIELDS = 10.0
#: How often is tried again where nobody says when the VM is free, in seconds.
_AGAIN = 0.02
#: Who waits longer, in seconds, is told for whom.
_MOMENT = 0.5

#: Hears for whom is waited: process id and command.
Waits = Callable[[str], None]


#: Hears how an operation ended (``documents.of_result``).
Ended = Callable[[Document], None]


def nobody_hears(what: object) -> None:
    """Do nothing: nobody wants to know."""
    del what


class ElsewhereError(Exception):
    """Another process holds the VM, and answers at ``path``."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(holder)
        self.path = path
        self.holder = holder


async def look_for_holder(target: AnyTarget, part: Part, holder: str, waits: Waits) -> None:
    """Return when the VM's monitor is nobody's. Raise as ``Locks.take`` does if it stays somebody's."""
    lock = VmLock(target.place, holder)
    await Locks(part, PATIENCE, waits).take(lock)
    lock.release()


class Locks:
    """The locks of one VM, which are taken for ``part``.

    ``insists``: a program that keeps the VM is to give way, too. ``waits`` hears for whom is waited, if that takes more
    than a moment.
    """

    def __init__(self, part: Part, patience: float, waits: Waits, *, insists: bool = False) -> None:
        self._part = part
        self._insists = insists
        self._patience = patience
        self._waits = waits

    async def take(self, lock: VmLock) -> None:
        """Take it. Raise ElsewhereError if its holder is to be asked instead, RefusedError "vm-busy" if it stays.

        Raise RefusedError "service-silent" if it only looks, and stays because it does not hear that it is asked.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience
        told = loop.call_later(_MOMENT, lambda: self._waits(lock.holder))
        try:
            await self._take(lock, until)
        finally:
            told.cancel()

    async def _take(self, lock: VmLock, until: float) -> None:
        loop = asyncio.get_running_loop()
        latest = until + YIELDS
        while not lock.try_take(looks=self._part is Part.READS):
            left = until - loop.time()
            if left <= 0:
                raise busy(lock.holder)
            try:
                if await self._ask(lock, left):
                    until = min(latest, loop.time() + self._patience)  # another one may have come first
            except HolderSilentError as error:
                # A writer is at work all the same: a program that uses the library may leave its loop standing.
                silent = lock.holder_looks and left >= _MOMENT
                raise (_silent(lock.holder) if silent else busy(lock.holder)) from error

    async def _ask(self, lock: VmLock, left: float) -> bool:
        """Have the holder let go of it. Return whether it gave way. Raise as ``take``, or HolderSilentError."""
        async with asked_to_give_way(lock.address, self._part, left, insists=self._insists) as other:
            if other is None:
                await asyncio.sleep(min(left, _AGAIN))  # it begins, or ends, or is of a version without a hub
                return False
            if self._part is Part.READS or (other.part == Part.KEEPS and not other.gives_way):
                raise ElsewhereError(lock.address, other.name)
            try:
                async with asyncio.timeout(max(left, YIELDS) if other.at_once else left):
                    await other.released()
            except TimeoutError as error:
                raise busy(other.name) from error
            return other.at_once


def _silent(holder: str) -> RefusedError:
    """Return the error that a holder does not answer that only looks: it is in nobody's way otherwise."""
    text = (
        f"a vcpuctl that only looks has this VM and does not answer, as if it were stopped (pid and command: {holder})"
    )
    hint = "have it go on (fg in its shell, or kill -CONT and its pid), or end it"
    return RefusedError(Reason(codes.SERVICE_SILENT, Origin.VCPUCTL, text, hint))
