# SPDX-License-Identifier: Apache-2.0
"""Holding a VM, and answering others meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from ..core import codes
from ..core.reason import Origin, Reason
from ..documents import Document, of_result
from ..errors import RefusedError
from ..local import directory
from ..local.lock import VmLock, busy
from ..local.names import known_by
from ..local.target import AnyTarget, checked
from ..vm.coordinator import Coordinator
from ..vm.open import SOMEBODY, opened
from .answers import Say, answer
from .calls import Call, Kind, Part
from .distinct import Recognise
from .hub import Hub, StandsBack
from .interruption import Interruption
from .logged import log, no_result
from .offer import Offer
from .shown import Views
from .taking import PATIENCE, ElsewhereError, Ended, Locks, Waits, nobody_hears

if TYPE_CHECKING:
    from ..core.operation.result import OperationResult


#: Answers what is asked of a VM's autoscaler.
Autoscale = Callable[[Call], Document]


class Held:
    """A VM that this process holds."""

    def __init__(
        self,
        vm: Coordinator,
        hub: Hub,
        target: AnyTarget,
        holder: str,
        offer: Offer,
        ended: Ended,
        autoscale: Autoscale,
    ) -> None:
        self.vm = vm
        self.views = Views()
        self._target = target
        self._holder = holder
        self._hub = hub
        self._offer = offer
        self._ended = ended
        self._autoscale = autoscale
        #: Set when the VM is let go: what asks it then asks somebody who has it no more.
        self.left = asyncio.Event()

    @property
    def asked(self) -> asyncio.Event:
        """Set when this process is to give way."""
        return self._hub.asked

    @property
    def operating(self) -> bool:
        """Whether somebody changes the VM now."""
        return self._hub.operating

    async def answer(self, call: Call, say: Say, interruption: Interruption | None = None) -> Document:
        """Answer a call, of this process or of another one; ``interruption`` ends the wait of an operation."""
        if call.kind is Kind.PROXY:
            return await self._offer.answer(say)
        if call.kind is Kind.AUTOSCALE:
            return self._autoscale(call)
        if call.kind is Kind.IDENTITY:
            return {"vm": [] if self.vm.identity is None else [*known_by(self.vm.identity)]}
        async with self._no_result(call):
            with (interruption or Interruption()).ends(self.vm.interrupt):
                log = partial(self._log, call)
                document = await answer(self.vm, call, say, self._target.place, log, self.views)
        if call.changes:
            self._ended(document)
        return document

    @asynccontextmanager
    async def operation(self, call: Call, interruption: Interruption | None = None) -> AsyncIterator[None]:
        """Change the VM for somebody else meanwhile. Raise RefusedError "vm-busy" if somebody changes it already."""
        with ExitStack() as stack:
            async with self._no_result(call):
                stack.enter_context(self._hub.operation(interruption))
            yield

    def let_go(self) -> None:
        """Give the VM up as soon as nobody changes it."""
        self._hub.let_go()

    async def last_words(self) -> None:
        """Have the operation that is under way end, and begin none (``Hub.last_words``)."""
        await self._hub.last_words()

    def _no_result(self, call: Call) -> AbstractAsyncContextManager[None]:
        async def write(result: OperationResult) -> None:
            await asyncio.to_thread(self._log, call, result)  # a journal that takes nothing is waited for
            self._ended(of_result(result))

        return no_result(call, write)

    def _log(self, call: Call, result: OperationResult) -> str:
        holder = f"{self._holder} (autoscale)" if call.autoscaler else self._holder
        return log(self._target, holder, result, self.vm, call.for_uid)


def no_autoscale(call: Call) -> Document:
    """Raise RefusedError "no-autoscale": this process does not keep the VM, so it has no autoscaler."""
    del call
    text = "no vcpuctl serve keeps this VM, so nothing scales it"
    raise RefusedError(Reason(codes.NO_AUTOSCALE, Origin.VCPUCTL, text, "systemctl start vcpuctl, or vcpuctl serve"))


@asynccontextmanager
async def hold(
    target: AnyTarget,
    part: Part,
    holder: str,
    *,
    patience: float = PATIENCE,
    insists: bool = False,
    waits: Waits = nobody_hears,
    ended: Ended = nobody_hears,
    autoscale: Autoscale = no_autoscale,
    stands_back: StandsBack | None = None,
    recognise: Recognise = nobody_hears,
) -> AsyncIterator[Held]:
    """Hold the VM, and answer others meanwhile. Raise as ``vm.open.opened``, or ElsewhereError.

    ``ended`` hears how each operation ended that was carried out here. ``autoscale`` answers for the autoscaler of this
    process, and ``stands_back`` ends what it does (``Hub``). ``recognise`` hears which VM it is, and raises what is
    raised then.

    A program that reads has to watch ``Held.asked``, and to end the context when it is set.
    """
    ready: asyncio.Future[Held] = asyncio.get_running_loop().create_future()

    async def answer_others(call: Call, say: Say, interruption: Interruption) -> Document:
        return await (await asyncio.shield(ready)).answer(call, say, interruption)

    hub = Hub(part, holder, answer_others, stands_back)
    locks = Locks(part, patience, waits, insists=insists)

    async def take(lock: VmLock) -> None:
        await locks.take(lock)
        try:
            await hub.listen(lock.address)
        except OSError as error:
            raise directory.unsafe(f"cannot listen on {lock.address}: {error.strerror}") from error

    try:
        async with opened(
            target, holder=holder, take=take, recognise=lambda identity: recognise(known_by(identity))
        ) as vm:
            offer = Offer(vm, hub)
            ready.set_result(Held(vm, hub, target, holder, offer, ended, autoscale))
            try:
                yield ready.result()
            finally:
                try:
                    await hub.leave()
                finally:
                    ready.result().left.set()
                await offer.close()
    finally:
        ready.cancel()
        await hub.close()


@asynccontextmanager
async def open_vm(
    target: AnyTarget, holder: str = SOMEBODY, *, patience: float = PATIENCE
) -> AsyncIterator[Coordinator]:
    """Open a VM, to look at it and to change it. Nobody else can open it while the context lasts.

    Others that only look are answered meanwhile. ``holder`` is what they are told of who has the VM. ``patience`` is
    how long a program that changes the VM is waited for, in seconds: one that looks gives way. Raise RefusedError
    "vm-busy" if somebody still has it then, UsageError for what is no VM, and what ``qmp.vmm.connect`` raises if there
    is no monitor. The agent is looked for when it is needed, so that its absence is no error here.
    """
    try:
        async with hold(checked(target), Part.WRITES, holder, patience=patience, insists=True) as held:
            yield held.vm
    except ElsewhereError as elsewhere:
        raise busy(elsewhere.holder) from elsewhere
