# SPDX-License-Identifier: Apache-2.0
"""One VM of the service: held whenever it can be, and asked either way."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from .. import documents
from ..autoscale.budget import Budget
from ..core import codes
from ..core.reason import Origin, Reason
from ..core.text import printable
from ..documents import Document
from ..errors import RefusedError, VcpuctlError
from ..local.lock import busy
from ..local.target import AnyTarget
from ..sharing.answers import Say
from ..sharing.calls import Call, Kind
from ..sharing.hold import Held, hold
from ..sharing.hub import Part
from ..sharing.interruption import Interruption
from ..sharing.taking import ElsewhereError
from ..sharing.vm import Vm

if TYPE_CHECKING:
    from ..autoscale.decision import Decision
    from ..autoscale.history import Entry
    from ..autoscale.settings import Settings
    from .autoscaler import Autoscaler


@dataclass(frozen=True, slots=True)
class HostLimits:
    """What all VMs of the host share: the budget of vCPUs, and the host's own pressure above which nothing grows."""

    budget: Budget = field(default_factory=Budget)
    pressure: float = 0.5


def _autoscaler(name: str, target: AnyTarget, settings: Settings, heard: Heard, host: HostLimits) -> Autoscaler:
    # Late: most VMs have none.
    from .autoscaler import Autoscaler

    return Autoscaler(name, target.told, settings, host.budget, host.pressure, heard)


HOLDER = "vcpuctl serve"
#: Of these, QEMU does not run, so that the VM has no vCPUs.
_OFF = (codes.QEMU_GONE, codes.NO_SUCH_SOCKET, codes.DOMAIN_OFF)
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

    def decided(self, name: str, decision: Decision, mode: str) -> None:
        """The autoscaler has decided; ``mode`` says whether that is done."""

    def changed(self, name: str, place: str, entry: Entry, mode: str) -> None:
        """The autoscaler is to change the VM, or would."""

    def configured(self, names: Collection[str]) -> None:
        """These are the VMs now, and no others."""


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
        self._link_sessions = 0  # of those of ``held`` that were told

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
                    autoscale=self.autoscale,
                    stands_back=self.stands_back,
                ) as held:
                    pause = _FIRST
                    self.held, self.trouble, self._link_sessions = held, None, 0
                    await self._kept(held)
                continue  # it was asked for
            except ElsewhereError as elsewhere:
                trouble = busy(elsewhere.holder).reason
            except VcpuctlError as error:
                trouble = error.reason
            except Exception as error:  # noqa: BLE001 - a fault of ours with one VM leaves the others alone
                trouble, pause = _fault(self.name, error), _LONGEST
            finally:
                self.held = None
            self.trouble = trouble
            self._heard.gone(self.name, trouble)
            if trouble.code in _OFF:
                self._host.budget.has(self.name, 0)
            else:
                self._host.budget.unknown(self.name)
            if self.autoscaler is not None:
                self.autoscaler.gone(trouble)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST)

    async def _kept(self, held: Held) -> None:
        """Follow the VM, and its load if that is wanted, until somebody needs the VM itself."""
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
                _fault(self.name, ended)
                await asyncio.sleep(_LONGEST)

    async def _follow(self, held: Held) -> None:
        """Look whenever something changes, until somebody needs the VM itself."""
        async with aclosing(held.vm.watch(stop=held.asked, interval=_INTERVAL)) as views:
            async for view in views:
                document = documents.of_view(view)
                self._heard.view(self.name, document)
                self._host.budget.has(self.name, document["vm"]["plugged_vcpus"])
                if self.autoscaler is not None:
                    self.autoscaler.looked(document)
                self._tell_sessions(held)

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

    def asked(self) -> Asked:
        """Return somebody's way to ask, once."""
        return Asked(self)


def _fault(name: str, error: Exception) -> Reason:
    """Tell the service's log of a fault of its own, and return the reason for others."""
    sys.stderr.write(f"{name}: a fault of vcpuctl's own\n")
    traceback.print_exception(error)
    text = f"a fault of vcpuctl's own: {printable(repr(error))}"
    return Reason(codes.FAULT, Origin.VCPUCTL, text, "the service's log has more; please report it")


class Asked:
    """One call to a VM of the service, with its own way to be interrupted: nobody ends the wait of somebody else."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._interruption = Interruption()

    async def answer(self, call: Call, say: Say) -> Document:
        """Return the answer, as ``sharing.vm.Vm`` does."""
        if call.kind is Kind.AUTOSCALE:
            return self._kept.autoscale(call)
        held = self._kept.held
        if held is None:
            return await self._kept.elsewhere(self._interruption).ask(call, say)
        if not call.changes:
            return await held.answer(call, say)
        await self._kept.stands_back()
        async with held.operation(call):
            return await held.answer(call, say, self._interruption)

    def interrupt(self) -> None:
        """End the wait of the operation that is carried out for this call, or keep it from beginning."""
        self._interruption.interrupt()
