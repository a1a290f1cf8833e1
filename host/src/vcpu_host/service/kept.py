# SPDX-License-Identifier: Apache-2.0
"""One VM of the service: held whenever it can be, and asked either way."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ..autoscale.budget import Budget
from ..core import codes
from ..core.identity import ProcessId, VmIdentity
from ..core.reason import Origin, Reason
from ..documents import Document
from ..errors import RefusedError, UsageError, VcpuctlError
from ..local import processes
from ..local.lock import busy
from ..local.names import of_place
from ..local.target import AnyTarget
from ..sharing import fault
from ..sharing.answers import Say
from ..sharing.calls import Call, Kind, Part
from ..sharing.distinct import Distinct
from ..sharing.hold import Held, hold
from ..sharing.hub import LAST_WORDS
from ..sharing.interruption import Interruption
from ..sharing.shown import Views
from ..sharing.taking import ElsewhereError
from ..sharing.vm import OnlyChanges, Vm, unless_set
from ..sharing.wire import Message

if TYPE_CHECKING:
    from ..autoscale.decision import Decision
    from ..autoscale.history import Entry
    from ..autoscale.settings import Settings
    from .autoscaler import Autoscaler


@dataclass(frozen=True, slots=True)
class HostLimits:
    """What all VMs of the host share: the budget of vCPUs, and the host's own pressure above which nothing grows.

    And which name each VM came by: of two files that lead to one VM, the second is told as that.
    """

    budget: Budget = field(default_factory=Budget)
    pressure: float = 0.5
    distinct: Distinct = field(default_factory=Distinct)


def _autoscaler(name: str, target: AnyTarget, settings: Settings, heard: Heard, host: HostLimits) -> Autoscaler:
    # Late: most VMs have none.
    from .autoscaler import Autoscaler

    return Autoscaler(name, target.told, settings, host.budget, host.pressure, heard)


HOLDER = "vcpuctl serve"
#: Of these, nobody is where the VM's QEMU would be.
_OFF = (codes.QEMU_GONE, codes.NO_SUCH_SOCKET, codes.DOMAIN_OFF)
#: How long a program that has the VM is waited for before that is told as a trouble, in seconds.
_PATIENCE = 60.0
#: How often a VM is looked at without having been heard of, in seconds. Each look costs the guest something, too.
INTERVAL = 180.0
#: The time that is left to a question which is asked again, at least, in seconds.
_LEAST = 0.001
#: After how many seconds a VM that could not be held is tried again: at first, and at most.
_FIRST, _LONGEST = 0.25, 5.0


class Heard(Protocol):
    """Hears of all VMs, each by its name in vms.d."""

    def view(self, name: str, document: Document) -> None:
        """Hear that the VM was looked at (``documents.of_view``)."""

    def result(self, name: str, document: Document) -> None:
        """Hear that an operation has ended (``documents.of_result``)."""

    def gone(self, name: str, reason: Reason) -> None:
        """Hear that the VM could not be looked at, for this reason."""

    def sessions(self, name: str, more: int) -> None:
        """Hear that so many more link sessions were made with the agent."""

    def decided(self, name: str, decision: Decision, mode: str) -> None:
        """Hear that the autoscaler has decided; ``mode`` says whether that is done."""

    def changed(self, name: str, place: str, entry: Entry, mode: str) -> None:
        """Hear that the autoscaler is to change the VM, or would."""

    def configured(self, names: Collection[str]) -> None:
        """Hear that these are the VMs now, and no others; also those whose files name none (``Keeper.broken``)."""


class Kept:
    """A VM by its name in vms.d. ``held`` is None while it is not held, and ``trouble`` then says why."""

    def __init__(self, name: str, target: AnyTarget, heard: Heard, host: HostLimits | None = None) -> None:
        self.name = name
        self.target = target
        self.held: Held | None = None
        self.trouble: Reason | None = None
        self._heard = heard
        self._host = host or HostLimits()
        self.autoscaler: Autoscaler | None = None
        self._configured = asyncio.Event()
        self.configure(target)
        self._qemu: VmIdentity | None = None  # that was held last
        self._link_sessions = 0  # of those of ``held`` that were told
        self._stops = False
        self._orders: dict[asyncio.Task[Any], Interruption] = {}  # of those who ask for a change here
        self.retired = asyncio.Event()
        #: What those are shown who ask for the VM while another process has it.
        self.views = Views()
        self._successor: Kept | None = None

    def configure(self, target: AnyTarget) -> None:
        """Take what the VM's file says now. It names the same VM; what is under way goes on."""
        self.target = target
        if self.held is not None:
            self.held.vm.workload = target.workload
        if self.autoscaler is not None and target.autoscale is not None:
            self.autoscaler.reconfigure(target.autoscale)
            return
        wanted = target.autoscale
        self.autoscaler = None if wanted is None else _autoscaler(self.name, target, wanted, self._heard, self._host)
        self._configured.set()

    async def keep(self) -> None:
        """Hold the VM, and again whenever it was lost or lent, until cancelled or retired."""
        try:
            await self._keep()
        finally:
            self._host.distinct.forget(self.name)

    async def _keep(self) -> None:
        pause = _FIRST
        is_this = partial(self._host.distinct.claim, self.name)
        while not self.retired.is_set():
            try:
                is_this((of_place(self.target.place),))
                async with hold(
                    self.target,
                    Part.KEEPS,
                    HOLDER,
                    patience=_PATIENCE,
                    ended=self._ended,
                    autoscale=self.autoscale,
                    stands_back=self.stands_back,
                    recognise=is_this,
                ) as held:
                    pause = _FIRST
                    self.held, self.trouble, self._link_sessions = held, None, 0
                    await self._kept(held)
                continue  # it was asked for
            except ElsewhereError as elsewhere:
                trouble = busy(elsewhere.holder).reason
            except VcpuctlError as error:
                trouble = error.reason
                self._host.distinct.forget(self.name)  # whatever comes next is another one
            except Exception as error:  # noqa: BLE001 - a fault of ours with one VM leaves the others alone
                trouble, pause = fault.logged(self.name, error), _LONGEST
            finally:
                self.held = None
            if self.retired.is_set():
                return
            self.trouble = trouble
            self._heard.gone(self.name, trouble)
            if self._has_none(trouble):
                self._host.budget.is_off(self.name)
            if self.autoscaler is not None:
                self.autoscaler.gone(trouble)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST)

    def _has_none(self, trouble: Reason) -> bool:
        """Return whether no vCPUs count for this name.

        A socket can go alone: a QEMU that was seen has to have ended.
        """
        if trouble.code == codes.SAME_NAMES:
            return True
        by = None if self._qemu is None else self._qemu.by
        return trouble.code in _OFF and (not isinstance(by, ProcessId) or processes.ended(by))

    async def _kept(self, held: Held) -> None:
        """Follow the VM, and its load if that is wanted, until somebody needs the VM itself."""
        self._qemu = held.vm.identity
        scaling = asyncio.ensure_future(self._scaling(held))
        try:
            await self._follow(held)
        finally:
            scaling.cancel()
            await asyncio.gather(scaling, return_exceptions=True)

    async def _scaling(self, held: Held) -> None:
        """Have the VM's load followed while its file wants that. Whatever becomes of it, the VM stays held."""
        while True:
            self._configured.clear()
            if self.autoscaler is None:
                await self._configured.wait()
                continue
            running = asyncio.ensure_future(self.autoscaler.run(held))
            changed = asyncio.ensure_future(self._configured.wait())
            try:
                await asyncio.wait({running, changed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (running, changed):
                    task.cancel()
                ended, _ = await asyncio.gather(running, changed, return_exceptions=True)
            if isinstance(ended, Exception):
                fault.logged(self.name, ended)
                await asyncio.sleep(_LONGEST)

    async def _follow(self, held: Held) -> None:
        """Look whenever something changes, until somebody needs the VM itself."""
        async with aclosing(held.vm.watch(stop=held.asked, interval=INTERVAL)) as views:
            async for view in views:
                if self.retired.is_set():
                    continue  # its name stands for another one, or for none: that is told of
                document = held.views.of(view)
                self._heard.view(self.name, document)
                self._host.budget.has(self.name, document["vm"]["plugged_vcpus"])
                if self.autoscaler is None:
                    self._host.budget.grows(self.name, None)
                else:
                    self.autoscaler.looked(document)
                self._tell_sessions(held)

    def retire(self, successor: Kept | None) -> bool:
        """Keep the VM no longer; who asks is answered by ``successor`` then, which its name stands for now.

        Return whether it is held: then it is let go as soon as nobody changes it. Else there is nothing to wait for.
        """
        self._successor = successor
        self.retired.set()
        # Its file may have another name now: that one waits for the VM, and counts with what it has.
        self._host.distinct.forget(self.name)
        if self.held is None:
            return False
        self.held.let_go()
        return True

    @property
    def newest(self) -> Kept:
        """The VM that the name stands for now. Raise UsageError "no-such-vm" if it stands for none any more."""
        kept = self
        while kept.retired.is_set():
            if kept._successor is None:
                text = f"vcpuctl serve keeps no VM of the name {self.name!r:.100} any more"
                raise UsageError(Reason(codes.NO_SUCH_VM, Origin.VCPUCTL, text, "vcpuctl vms shows the VMs"))
            kept = kept._successor
        return kept

    async def last_words(self) -> None:
        """Have all that changes the VM end with what is known, and begin nothing. It takes ``hub.LAST_WORDS``."""
        self._stops = True
        for interruption in self._orders.values():
            interruption.interrupt()
        ends = [self.stands_back()]
        if self.held is not None:
            ends.append(self.held.last_words())
        await asyncio.gather(*ends)
        if self._orders:
            await asyncio.wait(set(self._orders), timeout=LAST_WORDS)

    @contextmanager
    def order(self, interruption: Interruption) -> Iterator[None]:
        """Note that somebody asks for a change meanwhile, whose wait ``interruption`` ends."""
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("asyncio runs this as a task")
        if self._stops:
            interruption.interrupt()
        self._orders[task] = interruption
        try:
            yield
        finally:
            del self._orders[task]

    async def stands_back(self) -> None:
        """Have the autoscaler leave the VM to somebody else."""
        if self.autoscaler is not None:
            await self.autoscaler.stands_back()

    def _tell_sessions(self, held: Held) -> None:
        if held.vm.link_sessions > self._link_sessions:
            self._heard.sessions(self.name, held.vm.link_sessions - self._link_sessions)
            self._link_sessions = held.vm.link_sessions

    def _ended(self, result: Document) -> None:
        self._heard.result(self.name, result)
        if self.autoscaler is not None:
            self.autoscaler.operated()

    def autoscale(self, call: Call) -> Document:
        """Answer for the VM's autoscaler. Raise RefusedError "no-autoscale" if it has none."""
        if self.autoscaler is None:
            text = "this VM's file in vms.d has no [autoscale], so nothing scales it"
            hint = 'add [autoscale] with max = VCPUS; it then says what it would do, until it is told mode = "act"'
            raise RefusedError(Reason(codes.NO_AUTOSCALE, Origin.VCPUCTL, text, hint))
        return self.autoscaler.answer(call)

    def elsewhere(self, interruption: Interruption | None = None) -> Vm:
        """Return a way to the VM while it is not held here; ``interruption`` ends the wait of an operation."""
        return Vm(self.target, HOLDER, ended=self._ended, service=False, interruption=interruption)

    async def shared(self, call: Call, say: Say) -> Document:
        """Ask who has the VM elsewhere; of the same view all that ask have the same document."""

        def says(message: Message) -> None:
            say({"view": self.views.shown(message["view"])} if "view" in message else message)

        answer = await self.elsewhere().ask(call, says)
        return self.views.shown(answer) if call.kind is Kind.LIST else answer

    def asked(self) -> Asked:
        """Return somebody's way to ask, once."""
        return Asked(self)


class Asked:
    """One call to a VM of the service, with its own way to be interrupted: nobody ends the wait of somebody else."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._interruption = Interruption()

    async def answer(self, call: Call, say: Say) -> Document:
        """Return the answer, as ``sharing.vm.Vm`` does."""
        if call.kind is Kind.AUTOSCALE:
            return self._kept.newest.autoscale(call)
        if not call.changes:
            return await self._question(call, say)
        kept = self._kept.newest
        with kept.order(self._interruption):
            if kept.held is not None:
                await kept.stands_back()
            held = kept.held
            if held is None or held.left.is_set():
                return await kept.elsewhere(self._interruption).ask(call, say)
            async with held.operation(call, self._interruption):
                return await held.answer(call, say, self._interruption)

    async def _question(self, call: Call, say: Say) -> Document:
        """Ask again whoever has the VM then, if it is let go meanwhile: a question changes nothing."""
        loop = asyncio.get_running_loop()
        until = None if call.timeout is None else loop.time() + call.timeout
        say = OnlyChanges(say)
        while True:
            kept = self._kept.newest
            held = kept.held
            if held is None or held.left.is_set():
                lost, work = kept.retired, kept.shared(call, say)
            else:
                lost, work = held.left, held.answer(call, say)
            try:
                answer = await unless_set(lost, work)
            except VcpuctlError:
                if not lost.is_set():
                    raise
                answer = None  # it was about the VM as it was let go
            if answer is not None:
                return answer
            if until is not None:
                call = call._replace(timeout=max(until - loop.time(), _LEAST))

    def interrupt(self) -> None:
        """End the wait of the operation that is carried out for this call, or keep it from beginning."""
        self._interruption.interrupt()
