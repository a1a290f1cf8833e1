# SPDX-License-Identifier: Apache-2.0
"""A VM to ask, wherever it is held: by nobody yet, by this process, or by another one."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import codes
from ..documents import Document, of_result, without_descriptors
from ..errors import UsageError
from ..local import directory
from ..local.lock import busy
from ..local.target import AnyTarget
from .answers import Say
from .calls import Call, Kind, Part
from .interruption import Interruption
from .logged import log, no_result
from .remote import Asking, lost, not_waited_for
from .taking import ElsewhereError, Ended, look_for_holder, nobody_hears
from .wire import Message

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from ..core.operation.result import OperationResult
    from .distinct import Recognise
    from .hold import Held

#: How long a reader that gave way lets others come first, in seconds: it would take the VM from the one who asked.
_AFTER_YOU = 0.1
#: How long one question may be cut off again and again, in seconds. WATCH and PROXY have no such bound.
_ENOUGH = 30.0
#: What takes long to load, the first time: who holds a VM needs it, and not who asks that one.
_HOLD = f"{__package__}.hold"


@dataclass(slots=True)
class _Order:
    """How far an operation is: nobody has begun it (``waiting``), or who did tells of its end (``told_elsewhere``)."""

    waiting: bool = True
    told_elsewhere: bool = False


class Vm:
    """A VM by its sockets.

    ``holder`` is what others are told of who has it. ``ended`` hears how each operation ended that another process has
    not carried out (``documents.of_result``). ``service``: the service may be asked for it, which who is the service
    itself must not do. ``interruption`` is what else ends the wait of its one operation. ``recognise`` hears which VM
    it is before it is asked anything, and raises what is raised then.
    """

    def __init__(
        self,
        target: AnyTarget,
        holder: str,
        *,
        loaded: Callable[[], None] | None = None,
        ended: Ended = nobody_hears,
        service: bool = True,
        interruption: Interruption | None = None,
        recognise: Recognise | None = None,
    ) -> None:
        self._target = target
        self._holder = holder
        self._loaded = loaded
        self._ended = ended
        self._service = service
        self._interruption = interruption or Interruption()
        self._recognise = recognise
        self._given_up = asyncio.Event()

    async def ask(self, call: Call, say: Say) -> Document:
        """Return the answer, and say what there is to tell before it.

        Raise RefusedError "vm-busy" if another program changes the VM for too long, and what opening and asking raise.
        """
        call = self._by_file(call)
        if call.changes:
            return await self._order(call, say)
        return await self._question(call, say)

    def _by_file(self, call: Call) -> Call:
        """Have the call say what the VM's file says: whoever holds the VM may have it by another name."""
        request = call.request
        if request is None or request.workload is not None or self._target.workload == "warn":
            return call
        from ..core.planning.plan import OnWorkload

        return call._replace(request=replace(request, workload=OnWorkload(self._target.workload)))

    @property
    def at_work(self) -> bool:
        """Whether an operation is under way, which ``interrupt`` would end."""
        return self._interruption.at_work

    def interrupt(self) -> None:
        """End the wait of the operation; its answer says what is known. One that has not begun does not begin.

        The second time, do not wait for that answer either.
        """
        if self._interruption.asked.is_set():
            self._given_up.set()
        self._interruption.interrupt()

    async def _order(self, call: Call, say: Say) -> Document:
        """Carry out an operation, once, and return its answer.

        If it was begun, and how it ended is not told, that is an error.
        """
        order = _Order()
        async with no_result(call, partial(self._write, call), begun=lambda: order.told_elsewhere):
            self._interruption.check()
            working = asyncio.ensure_future(self._ordered(order, call, say))
            try:
                await _first(working, self._interruption.asked)
                if not working.done() and not order.waiting:
                    await _first(working, self._given_up)
            finally:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
            if not working.cancelled():
                return working.result()
            if order.waiting:
                self._interruption.check()
            raise not_waited_for()

    async def _ordered(self, order: _Order, call: Call, say: Say) -> Document:
        loop = asyncio.get_running_loop()
        until = loop.time() + _ENOUGH
        asking: Asking | None = self._of_service(call)
        while True:
            if asking is not None:
                await self._recognised(asking, say)
                answer = await self._carried_out(order, asking, say)
                if answer is not None:
                    return answer
            try:
                async with await self._hold(Part.WRITES, say) as held:
                    self._has_loaded()
                    order.waiting, order.told_elsewhere = False, True
                    try:
                        return await held.answer(call, say, self._interruption)
                    except asyncio.CancelledError:
                        order.told_elsewhere = False
                        raise
            except ElsewhereError as elsewhere:
                if asking is not None and loop.time() > until:  # it has been asked, and cuts everybody off
                    raise busy(elsewhere.holder) from elsewhere
                await asyncio.sleep(0 if asking is None else _AFTER_YOU)
                asking = Asking(elsewhere.path, call, elsewhere.holder)

    async def _carried_out(self, order: _Order, asking: Asking, say: Say) -> Document | None:
        """Return the answer of another process; None if it did not begin.

        Raise OutcomeLostError "service-lost" if it has begun, and ended before it gave an answer.
        """
        order.waiting = False
        with self._interruption.ends(asking.interrupt):
            try:
                answer = await asking.answer(say)
            finally:
                order.told_elsewhere = asking.begun
        if answer is None and asking.begun:
            order.told_elsewhere = False
            raise lost()
        order.waiting = True
        return answer

    async def _write(self, call: Call, result: OperationResult) -> None:
        await asyncio.to_thread(log, self._target, self._holder, result, None, call.for_uid)
        self._ended(of_result(result))

    async def _question(self, call: Call, say: Say) -> Document:
        """Return the answer to a question.

        A question changes nothing, so it may be asked again: of whoever holds the VM then.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        say = OnlyChanges(say)
        endless = call.kind in (Kind.WATCH, Kind.PROXY)
        while True:
            left = call
            if call.timeout is not None:
                if loop.time() - began >= call.timeout:
                    return {}
                left = call._replace(timeout=call.timeout - (loop.time() - began))
            answer = await self._asked_once(left, say)
            if answer is not None:
                return answer
            if call.kind is Kind.PROXY:
                say({"proxy": None})  # it is with the next holder
            if not endless and loop.time() - began > _ENOUGH:
                raise busy(f"one after another for {_ENOUGH:.0f} s")
            await asyncio.sleep(_AFTER_YOU)

    async def _asked_once(self, call: Call, say: Say) -> Document | None:
        """Return the answer; None if this process gave way, or the one that was asked has lost the VM."""
        service = self._of_service(call)
        if service is not None:
            await self._recognised(service, say)
            answer = await service.answer(say)
            if answer is not None or (service.reached and not service.unknown):
                return answer
        try:
            async with await self._hold(Part.READS, say) as held:
                self._has_loaded()
                return await unless_set(held.asked, held.answer(call, say))
        except ElsewhereError as elsewhere:
            asking = Asking(elsewhere.path, call, elsewhere.holder)
            await self._recognised(asking, say)
            return await asking.answer(say)

    async def _recognised(self, asking: Asking, say: Say) -> None:
        """Learn from the process that is to be asked which VM it has; one of an earlier version does not tell."""
        if self._recognise is None:
            return
        try:
            answer = await asking.instead(Call(Kind.IDENTITY)).answer(say)
        except UsageError as error:
            if error.reason.code != codes.BAD_CALL:
                raise
            return
        if answer is not None:
            self._recognise([str(each) for each in answer["vm"]])

    async def _hold(self, part: Part, say: Say) -> AbstractAsyncContextManager[Held]:
        """Return a hold to enter, which raises ElsewhereError, or RefusedError "vm-busy".

        So does this, before what that needs is loaded.
        """
        waits = _teller(say)
        if _HOLD not in sys.modules:
            await look_for_holder(self._target, part, self._holder, waits)
        from .hold import hold

        recognise = self._recognise or nobody_hears
        return hold(self._target, part, self._holder, waits=waits, ended=self._ended, recognise=recognise)

    def _of_service(self, call: Call) -> Asking | None:
        """Return what asks the service for the VM, if it has that; None if the service is not to be asked.

        It is where this user may use the service, but not the locks of its user.
        """
        if not self._service or not asks_service():
            return None
        path = Path(directory.service_socket())
        return Asking(path, call, f"vcpuctl serve, at {path},", monitor=self._target.place)

    def _has_loaded(self) -> None:
        if self._loaded is not None:
            self._loaded()


def asks_service() -> bool:
    """Return whether this user's commands ask the service first: it may use that, but not the locks of its user."""
    return not _may_use_locks_of_service() and os.access(directory.service_socket(), os.W_OK)


def _may_use_locks_of_service() -> bool:
    """Return whether its locks lie where this user's do, and so lead to it."""
    return os.geteuid() == 0


def _teller(say: Say) -> Callable[[str], None]:
    return lambda holder: say({"holder": holder})


async def _first(work: asyncio.Future[Any], event: asyncio.Event) -> None:
    """Return when the work has ended, or the event is set."""
    heard = asyncio.ensure_future(event.wait())
    waits: set[asyncio.Future[Any]] = {work, heard}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        heard.cancel()


async def unless_set(event: asyncio.Event, asking: Coroutine[Any, Any, Document | None]) -> Document | None:
    """Return the answer; None if the event is set before it is there."""
    work = asyncio.ensure_future(asking)
    try:
        await _first(work, event)
        return work.result() if work.done() else None
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


class OnlyChanges:
    """Passes on what is said, but no view that is as the one before: each holder begins with one."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._shown: Document | None = None

    def __call__(self, message: Message) -> None:
        """Pass it on, unless it is such a view."""
        if "view" in message:
            shown, self._shown = self._shown, message["view"]
            if shown is not None and without_descriptors(shown) == without_descriptors(message["view"]):
                return
        self._say(message)
