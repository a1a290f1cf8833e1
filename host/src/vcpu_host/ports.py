# SPDX-License-Identifier: Apache-2.0
"""The roles that the coordinator needs filled.

Adapters (``qmp``, ``libvirt``, ``agent``, ``local``) fill them, tests put fakes there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .core.guest import AgentInfo, CpuResult, GuestCpu, GuestView
from .core.identity import VmIdentity
from .core.intent import Intent
from .core.model import HostView, Slot
from .core.reason import Reason
from .core.vm_events import VmEvent

if TYPE_CHECKING:
    from .autoscale.sample import LoadSample
    from .core.workload.model import Workload


class Arrived(NamedTuple):
    """A CPU that was waited for is present in the guest now."""

    cpu: GuestCpu


SetOnlineAnswer = Arrived | CpuResult | GuestView


class Vmm(Protocol):
    """The machine monitor. Every method ends within the adapter's timeout; QemuGoneError if the connection is lost."""

    async def identity(self) -> VmIdentity:
        """Return which QEMU this is."""

    async def look(self) -> HostView:
        """Return the whole of QEMU's side, in one consistent look."""

    async def look_slots(self, view: HostView) -> HostView:
        """Return ``view`` with its slots, threads and status looked at again: cheap, for use while waiting."""

    async def queues(self) -> Mapping[str, tuple[int, ...]]:
        """Return how many queues the devices have that get them by -smp: by class and property, one number a device."""

    async def plug(self, slot: Slot, device_id: str = "") -> str:
        """Plug a CPU into ``slot``, by that id or else by the slot's own, and return its id.

        Raise QemuError with QEMU's words.
        """

    async def unplug(self, slot: Slot, not_after: float | None = None) -> None:
        """Ask for the removal of the slot's CPU; returning means asked, not gone. Raise QemuError.

        Raise TooLateError, and do nothing, if that cannot be sent by ``not_after``, on the loop's clock.
        """

    async def mend(self, view: HostView) -> None:
        """Have the owner's record follow what ``view`` shows, where it is behind and that can be done."""

    async def keep(self, slots: Mapping[int, bool], *, whole: bool = False) -> Mapping[int, Reason]:
        """Have the VM start next time with a CPU in each of these slots (True), or with none (False).

        What is so already stays as it is, but for a CPU that could not be removed then, as the owner defines it: it is
        to be one that can. ``whole``: these are all CPUs that it is to have, so one that the definition
        has elsewhere goes. (Its maximum may be above today's, if it was raised for the next start.) Return those for
        which that failed, and why.
        """

    def events(self) -> AsyncIterator[VmEvent]:
        """Return the events from the moment of this call on, until QemuGone."""

    async def close(self) -> None:
        """End the connection."""


class Preconfig(Protocol):
    """A QEMU that may have been started with --preconfig. Errors and time limits are those of :class:`Vmm`."""

    async def commands(self) -> frozenset[str]:
        """Return the names of all commands that this QEMU has. Raise RefusedError if it is too old for any of this."""

    async def waits(self) -> bool:
        """Return whether the machine is still to be made."""

    async def slots(self) -> tuple[Slot, ...]:
        """Return the slots, in slot order, with the node that each is of so far."""

    async def nodes(self, slots: Sequence[Slot], candidates: Collection[int]) -> tuple[int, ...]:
        """Return those of the candidates that there are, in ascending order, while it waits; nothing is set."""

    async def set_node(self, slot: Slot, node: int) -> None:
        """Give a slot its node. Raise QemuError with QEMU's words."""

    async def leave(self) -> None:
        """Have the machine made. Raise QemuGoneError if QEMU ends of that, as it does when it cannot be."""


class GuestAgent(Protocol):
    """One link session with the agent. AgentGoneError when it ends; a new one is made by :class:`AgentDialer`."""

    @property
    def info(self) -> AgentInfo:
        """What the agent has said of itself and of its guest: when the session began, or later (``renew_info``)."""

    @property
    def session(self) -> str:
        """The session's token: confirmations count only within one (promise 2)."""

    @property
    def ended(self) -> bool:
        """Whether the session is over."""

    async def renew_info(self, since: float) -> None:
        """Ask anew for ``info``, unless that was done at or after ``since``, on the loop's clock."""

    async def check(self) -> None:
        """Return when the agent has shown that it lives, now or a moment ago."""

    async def list_cpus(self) -> GuestView:
        """Return every present CPU."""

    def watch(self) -> AsyncIterator[GuestView]:
        """Yield a snapshot at once, then one after every change."""

    def watch_load(self, calm: float, busy: float, quiet: float) -> AsyncGenerator[LoadSample, None]:
        """Yield the guest's load, again and again, until the session ends.

        The arguments say how often, in seconds: while no task waits for a CPU, while some do, and while none do in a
        guest whose kernel tells when some begin to. Raise VcpuctlError if the agent does not tell it.
        """

    def set_online(
        self,
        firmware_ids: Sequence[str],
        *,
        online: bool,
        wait: bool,
        brief: bool,
        timeout: float,
        for_eject: bool = False,
        watch: bool = False,
    ) -> AsyncIterator[SetOnlineAnswer]:
        """Bring CPUs on- or offline in order; yield answers as they come, a GuestView last. ``timeout`` is in seconds.

        With ``brief`` there are results only, and a GuestView if one of them is not as wanted. ``for_eject``: what goes
        offline is to be ejected, which an agent that keeps an eject gate agrees to by its result. ``watch``: the agent
        is to remember the masks of threads, so that ``workload`` can tell what became of them.
        """

    async def workload(
        self, going: Sequence[str], *, use: bool = False, broken: bool = False, forgotten: bool = False
    ) -> Workload:
        """Return what programs of the guest make of its CPUs: asked only if ``info.sees_programs``.

        ``going`` are CPUs of which any may go, by identity: who would be left without one is looked for. ``use``: what
        keeps CPUs from being used; ``broken``: what became of those that were watched; ``forgotten``: whose masks the
        kernel forgets at any change. Raise VcpuctlError.
        """

    async def lost(self) -> str:
        """Return, with words, when the session has ended."""

    async def close(self) -> None:
        """End the session."""


class AgentDialer(Protocol):
    """Makes sessions."""

    async def dial(self, host: HostView, timeout: float) -> GuestAgent:
        """Return a new session, within ``timeout`` seconds.

        ``host`` is a fresh look, for what it says of the agent's port. Raise AgentGoneError that says what is the
        matter: no port, closed in the guest, held by another client, silent, or of a protocol that this version does
        not speak.
        """


class Journal(Protocol):
    """The write-ahead record of one VM. Nothing is asked of QEMU before ``save`` has returned."""

    @property
    def shared(self) -> bool:
        """Whether others write it, too, whom this host's locks do not keep out: those on other hosts."""

    async def load(self) -> tuple[Intent, ...]:
        """Return what is recorded. Raise RefusedError if it cannot be understood."""

    async def save(self, intents: Sequence[Intent]) -> None:
        """Replace the record, for good. Raise RefusedError if that cannot be done."""


class NoJournal:
    """For looking, and for tests: nothing outlives the process."""

    shared = False

    def __init__(self) -> None:
        self._intents: tuple[Intent, ...] = ()

    async def load(self) -> tuple[Intent, ...]:
        """Return what this very process recorded."""
        return self._intents

    async def save(self, intents: Sequence[Intent]) -> None:
        """Keep it in memory."""
        self._intents = tuple(intents)
