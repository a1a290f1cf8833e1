# SPDX-License-Identifier: Apache-2.0
"""Many VMs, each asked by itself: what one of them does, or does not do, changes nothing for the others."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from ..core import codes
from ..core.reason import Origin, Reason
from ..core.text import printable
from ..documents import Document
from ..errors import OutcomeLostError, RefusedError, UnreachableError, VcpuctlError
from .answers import Say
from .calls import Call
from .wire import Message

#: So many VMs are worked on at once, unless somebody says otherwise. One has about ten descriptors and 0.5 MB.
PARALLEL = 32
#: A VM that makes no progress for so many seconds is waited for beside those that are worked on at once.
STALLED = 3.0
#: So many are waited for so at most: on a busy host all seem to stall, and each that begins then slows the others.
MOST_STALLED = 64
#: A service has 96 places for one user's questions (``service.door``), and gives one back a moment after its answer: so
#: all others wait here for their turn, however many are wanted at once.
MOST_SERVED = 80
#: A VM of which nothing at all was heard for so many seconds is given up. (An operation tells each second how far it
#: is, and each question to QEMU or to the agent has a shorter limit. Another process that holds the VM has none.)
SILENT = 120.0
#: How long an operation whose wait was ended may take to say what is known, in seconds.
_LAST_WORDS = 5.0
#: The longest text of a failure that nobody foresaw, in characters.
_LONGEST = 1000


class Asks(Protocol):
    """What a VM is here (``sharing.vm.Vm``)."""

    async def ask(self, call: Call, say: Say) -> Document:
        """Return the answer. Raise VcpuctlError."""

    def interrupt(self) -> None:
        """End the wait of the operation under way; its answer says what is known."""

    @property
    def at_work(self) -> bool:
        """Whether there is an operation under way."""


class UnusableVm:
    """A VM that cannot be asked, and why."""

    at_work = False

    def __init__(self, error: VcpuctlError) -> None:
        self._error = error

    async def ask(self, call: Call, say: Say) -> Document:
        """Raise the error."""
        del call, say
        raise self._error

    def interrupt(self) -> None:
        """Do nothing: there is nothing to end."""


class Member(NamedTuple):
    """One VM, what it is asked, and after how many seconds it is given up; None: when it ends by itself."""

    name: str
    vm: Asks
    call: Call
    within: float | None = None


class Ended(NamedTuple):
    """How it ended for one VM: an answer, or an error. ``begun``: the VM may have been changed, or may change yet."""

    name: str
    answer: Document | None = None
    error: VcpuctlError | None = None
    begun: bool = False


#: Hears what is to be told of the VM with a name.
Hear = Callable[[str, Message], None]
#: Hears how it ended for each VM, when it does.
Tell = Callable[[Ended], None]


class UnforeseenError(VcpuctlError):
    """A mistake in vcpuctl, which ended its work on one VM."""


class Fleet:
    """Asks the members, ``parallel`` at once, and ``most`` with those that stall."""

    def __init__(
        self, members: Sequence[Member], hear: Hear, tell: Tell, parallel: int = PARALLEL, most: int | None = None
    ) -> None:
        self._members = members
        self._hear = hear
        self._tell = tell
        self._free = asyncio.Semaphore(parallel)
        self._room = asyncio.Semaphore(min(parallel + MOST_STALLED, most or sys.maxsize))
        loop = asyncio.get_running_loop()
        self._stop: asyncio.Future[None] = loop.create_future()
        self._now: asyncio.Future[None] = loop.create_future()

    async def to_end(self) -> list[Ended]:
        """Return how it ended for each member, in their order. Nothing that goes wrong with one is raised."""
        return await asyncio.gather(*(self._told(member) for member in self._members))

    def interrupt(self) -> None:
        """End all waits; what is known then is told. Asked a second time, do not wait for that either."""
        if not self._stop.done():
            self._stop.set_result(None)
        elif not self._now.done():
            self._now.set_result(None)

    async def _told(self, member: Member) -> Ended:
        ended = await self._in_turn(member)
        self._tell(ended)
        return ended

    async def _in_turn(self, member: Member) -> Ended:
        waiting = asyncio.ensure_future(self._taken())
        try:
            await _first(waiting, self._stop)
        except asyncio.CancelledError:
            waiting.cancel()
            raise
        if not waiting.done():
            waiting.cancel()
            return Ended(member.name, error=_not_begun())
        turn = _Turn(self._free)
        try:
            if self._stop.done():
                return Ended(member.name, error=_not_begun())
            return await self._asked(member, turn)
        finally:
            turn.over()
            self._room.release()

    async def _taken(self) -> None:
        """Wait for a place among those that are worked on, and for room beside those that stall."""
        await self._room.acquire()
        try:
            await self._free.acquire()
        except asyncio.CancelledError:
            self._room.release()
            raise

    async def _asked(self, member: Member, turn: _Turn) -> Ended:
        def say(message: Message) -> None:
            turn.hear(message)
            self._hear(member.name, message)

        working = asyncio.ensure_future(member.vm.ask(member.call, say))
        try:
            late = await self._end(working, member, turn)
            if not working.done():
                begun = await self._last_words(member, working)
                if not working.done() or working.cancelled():
                    return Ended(member.name, error=_given_up(late, begun=begun), begun=begun)
            return _ended(member, working, say)
        finally:
            working.cancel()

    async def _end(self, working: asyncio.Future[Document], member: Member, turn: _Turn) -> str:
        """Return when the work has ended, or is given up: then in words why, or nothing if ``interrupt`` was asked."""
        loop = asyncio.get_running_loop()
        until = math.inf if member.within is None else loop.time() + member.within
        while not working.done() and not self._stop.done():
            left = min(until, turn.heard + SILENT) - loop.time()
            if left <= 0:
                if turn.heard + SILENT < until:
                    return f"nothing was heard of it for {SILENT:g} s"
                return f"it has not ended in {member.within:g} s"
            await _first(working, self._stop, within=left)
        return ""

    async def _last_words(self, member: Member, working: asyncio.Future[Document]) -> bool:
        """Have the work end, with an answer if it gives one soon. Return whether an operation was under way."""
        begun = member.vm.at_work
        if begun:
            member.vm.interrupt()
            await _first(working, self._now, within=_LAST_WORDS)
        working.cancel()
        await _first(working, within=_LAST_WORDS)
        return begun


class _Turn:
    """A VM's place among those that are worked on at once. It passes on when the VM stalls, and when it ends."""

    def __init__(self, free: asyncio.Semaphore) -> None:
        self._free = free
        self._loop = asyncio.get_running_loop()
        #: When something was heard of the VM, by the loop's clock.
        self.heard = self._loop.time()
        self._progress: object = None
        self._stalls = self._timer()
        self._over = False

    def hear(self, message: Message) -> None:
        """Take note of it, and of progress."""
        self.heard = self._loop.time()
        if "progress" in message and message["progress"] != self._progress and not self._over:
            self._progress = message["progress"]
            self._stalls.cancel()
            self._stalls = self._timer()

    def over(self) -> None:
        """Let the next one begin."""
        if not self._over:
            self._over = True
            self._stalls.cancel()
            self._free.release()

    def _timer(self) -> asyncio.TimerHandle:
        return self._loop.call_later(STALLED, self.over)


async def _first(*awaited: asyncio.Future[Any], within: float | None = None) -> None:
    """Return when one of them is there, or after so many seconds. None of them is cancelled by this."""
    await asyncio.wait(awaited, timeout=within, return_when=asyncio.FIRST_COMPLETED)


def _ended(member: Member, working: asyncio.Future[Document], say: Say) -> Ended:
    error = asyncio.CancelledError() if working.cancelled() else working.exception()
    if error is None:
        return Ended(member.name, working.result())
    if isinstance(error, VcpuctlError):
        return Ended(member.name, error=error, begun=isinstance(error, OutcomeLostError))
    import traceback

    say({"log": {"event": "unforeseen", "traceback": "".join(traceback.format_exception(error))}})
    text = f"vcpuctl failed by a mistake in it: {printable(repr(error), _LONGEST)}"
    hint = "report what -v logs; vcpuctl list shows how the VM stands"
    reason = Reason(codes.UNFORESEEN, Origin.VCPUCTL, text, hint)
    return Ended(member.name, error=UnforeseenError(reason), begun=member.call.changes)


def _not_begun() -> VcpuctlError:
    text = "the wait was ended before this VM's turn came: nothing was changed"
    return RefusedError(Reason(codes.INTERRUPTED, Origin.VCPUCTL, text))


def _given_up(late: str, *, begun: bool) -> VcpuctlError:
    """Return why there is no answer."""
    known = "it is not known how far the operation came" if begun else "nothing was changed"
    hint = "vcpuctl list shows how the VM stands and what is pending" if begun else ""
    if late:
        hint = hint or "vcpuctl doctor looks for why"
        return UnreachableError(Reason(codes.VM_OVERDUE, Origin.VCPUCTL, f"{late}: {known}", hint))
    return RefusedError(Reason(codes.INTERRUPTED, Origin.VCPUCTL, f"the wait was ended: {known}", hint))
