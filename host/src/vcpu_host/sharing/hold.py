# SPDX-License-Identifier: Apache-2.0
"""Taking hold of a VM: who waits for whom, who gives way, and who asks the one who has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..core import codes
from ..core.reason import Origin, Reason
from ..documents import Document, of_result
from ..errors import OutcomeLostError
from ..local import directory
from ..local.lock import VmLock, busy
from ..local.target import Target
from ..vm.coordinator import Coordinator
from ..vm.open import SOMEBODY, opened
from .answers import Say, answer
from .calls import Call, Kind
from .hub import Hub, Part
from .logged import log, no_result
from .offer import Offer
from .remote import asked_to_give_way

if TYPE_CHECKING:
    from ..core.operation.result import OperationResult

#: How long another program that holds the VM, and does not give way, is waited for, in seconds.
PATIENCE = 2.0
#: How often is tried again where nobody says when the VM is free, in seconds.
_AGAIN = 0.02
#: Who waits longer, in seconds, is told for whom.
_MOMENT = 0.5

#: Hears for whom is waited: process id and command.
Waits = Callable[[str], None]
#: Hears how an operation ended (``documents.of_result``).
Ended = Callable[[Document], None]


class ElsewhereError(Exception):
    """Another process holds the VM, and answers at ``path``."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(holder)
        self.path = path
        self.holder = holder


class Held:
    """A VM that this process holds."""

    def __init__(self, vm: Coordinator, hub: Hub, target: Target, holder: str, offer: Offer, ended: Ended) -> None:
        self.vm = vm
        self._target = target
        self._holder = holder
        self._hub = hub
        self._offer = offer
        self._ended = ended

    @property
    def asked(self) -> asyncio.Event:
        """Set when this process is to give way."""
        return self._hub.asked

    async def answer(self, call: Call, say: Say) -> Document:
        """Answer a call, of this process or of another one."""
        if call.kind is Kind.PROXY:
            return await self._offer.answer(say)
        with self._no_result(call):
            document = await answer(self.vm, call, say, self._target.qmp, partial(self._log, call))
        if call.changes:
            self._ended(document)
        return document

    @contextmanager
    def operation(self, call: Call) -> Iterator[None]:
        """Change the VM for somebody else meanwhile. Raise RefusedError "vm-busy" if somebody changes it already."""
        with ExitStack() as stack:
            with self._no_result(call):
                stack.enter_context(self._hub.operation())
            yield

    def _no_result(self, call: Call) -> AbstractContextManager[None]:
        def write(result: OperationResult) -> None:
            self._log(call, result)
            self._ended(of_result(result))

        return no_result(call, write)

    def _log(self, call: Call, result: OperationResult) -> str:
        return log(self._target, self._holder, result, self.vm, call.for_uid)


class _Taker:
    """Takes the locks of one VM for ``part``, one after the other, and listens beside each that it has.

    ``insists``: a program that keeps the VM is to give way, too. ``waits`` hears for whom it waits, if it does for more
    than a moment.
    """

    def __init__(self, hub: Hub, part: Part, patience: float, waits: Waits, *, insists: bool) -> None:
        self._hub = hub
        self._part = part
        self._insists = insists
        self._patience = patience
        self._waits = waits

    async def take(self, lock: VmLock) -> None:
        """Take it. Raise ElsewhereError if its holder is to be asked instead, RefusedError "vm-busy" if it stays."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience
        told = loop.call_later(_MOMENT, lambda: self._waits(lock.holder))
        try:
            await self._take(lock, until)
        finally:
            told.cancel()
        try:
            await self._hub.listen(lock.address)
        except OSError as error:
            raise directory.unsafe(f"cannot listen on {lock.address}: {error.strerror}") from error

    async def _take(self, lock: VmLock, until: float) -> None:
        loop = asyncio.get_running_loop()
        while not lock.try_take():
            left = until - loop.time()
            if left <= 0:
                raise busy(lock.holder)
            async with asked_to_give_way(lock.address, self._part, left, insists=self._insists) as other:
                if other is None:
                    await asyncio.sleep(min(left, _AGAIN))  # it begins, or ends, or is of a version without a hub
                    continue
                if self._part is Part.READS or (other.part == Part.KEEPS and not other.gives_way):
                    raise ElsewhereError(lock.address, other.name)
                try:
                    async with asyncio.timeout(left):
                        await other.released()
                except TimeoutError as error:
                    raise busy(other.name) from error


def nobody_hears(what: object) -> None:
    """Nobody wants to know."""
    del what


@asynccontextmanager
async def hold(
    target: Target,
    part: Part,
    holder: str,
    *,
    patience: float = PATIENCE,
    insists: bool = False,
    waits: Waits = nobody_hears,
    ended: Ended = nobody_hears,
) -> AsyncIterator[Held]:
    """Hold the VM, and answer others meanwhile. Raise as ``vm.open.opened``, or ElsewhereError.

    ``ended`` hears how each operation ended that was carried out here.

    A program that reads has to watch ``Held.asked``, and to end the context when it is set.
    """
    ready: asyncio.Future[Held] = asyncio.get_running_loop().create_future()

    async def answer_others(call: Call, say: Say) -> Document:
        return await (await asyncio.shield(ready)).answer(call, say)

    def interrupt() -> None:
        if ready.done() and not ready.cancelled():
            ready.result().vm.interrupt()

    hub = Hub(part, holder, answer_others, interrupt)
    taker = _Taker(hub, part, patience, waits, insists=insists)
    try:
        async with opened(target, holder=holder, take=taker.take) as vm:
            offer = Offer(vm, hub)
            ready.set_result(Held(vm, hub, target, holder, offer, ended))
            try:
                yield ready.result()
            finally:
                await hub.leave()
                await offer.close()
    finally:
        ready.cancel()
        await hub.close()


@asynccontextmanager
async def open_vm(target: Target, holder: str = SOMEBODY, *, patience: float = PATIENCE) -> AsyncIterator[Coordinator]:
    """Open a VM, to look at it and to change it. Nobody else can open it while the context lasts.

    Others that only look are answered meanwhile. ``holder`` is what they are told of who has the VM. ``patience`` is
    how long a program that changes the VM is waited for, in seconds: one that looks gives way. Raise RefusedError
    "vm-busy" if somebody still has it then, and what ``qmp.vmm.connect`` raises if there is no monitor. The agent is
    looked for when it is needed, so that its absence is no error here.
    """
    try:
        async with hold(target, Part.WRITES, holder, patience=patience, insists=True) as held:
            yield held.vm
    except ElsewhereError as elsewhere:
        raise busy(elsewhere.holder) from elsewhere


def lost() -> OutcomeLostError:
    """Return the error that the process which carried out an operation has ended in the middle of it."""
    return OutcomeLostError(
        Reason(
            codes.SERVICE_LOST,
            Origin.VCPUCTL,
            "the process that carried out the operation has ended in the middle of it: it is not known how far it came",
            "vcpuctl list shows how the VM stands and what is pending; the same scale, or --slot, goes on from there",
        )
    )
