# SPDX-License-Identifier: Apache-2.0
"""Joins what QEMU says with what the guest says, by firmware identity, into one map of slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from . import codes
from .guest import AgentInfo, GuestCpu, GuestView
from .intent import Intent, IntentKind
from .model import HostView, Slot, SlotState
from .platforms import Platform, platform_for
from .proof import unexplained
from .reason import Origin, Reason

if TYPE_CHECKING:
    from .workload.model import Programs

#: One for all of them: a machine may have thousands.
_EMPTY = Reason(codes.SLOT_EMPTY, Origin.VCPUCTL, "the slot is empty")


class ThreadView(NamedTuple):
    """One schedulable CPU of a slot: the guest CPU that bears its identity, and the host thread that runs it."""

    firmware_id: str
    cpu: GuestCpu | None
    host_tid: int | None

    @property
    def online(self) -> bool:
        """Whether the guest runs on it."""
        return self.cpu is not None and self.cpu.online

    @property
    def parked(self) -> bool:
        """Whether it is offline because the guest's SMT mode wants it so."""
        return self.cpu is not None and self.cpu.parked


@dataclass(frozen=True, slots=True)
class SlotView:
    """A slot, its state, and its threads. ``not_removable`` says why an unplug cannot work, or is None.

    ``pending`` is what was asked of QEMU for it before and has not come to its end.
    """

    slot: Slot
    state: SlotState
    threads: tuple[ThreadView, ...]
    not_removable: Reason | None
    pending: Intent | None = None

    @property
    def index(self) -> int:
        """The slot's index."""
        return self.slot.index

    @property
    def online_vcpus(self) -> int:
        """How many of its threads are online in the guest."""
        return sum(thread.online for thread in self.threads)

    @property
    def node(self) -> int | None:
        """The slot's NUMA node: QEMU's word, or else the guest's."""
        if self.slot.node is not None:
            return self.slot.node
        return next((t.cpu.node for t in self.threads if t.cpu is not None and t.cpu.node is not None), None)

    @property
    def firmware_ids(self) -> tuple[str, ...]:
        """The identities of its threads."""
        return tuple([thread.firmware_id for thread in self.threads])


class VmView(NamedTuple):
    """The whole map. ``strangers`` are guest CPUs that no filled slot explains: just removed, or made up.

    Those of them that no slot explains at all are ``unexplained``: they make every absence unproven (``core.proof``).
    ``identities`` are the names of all slots' threads in the guest. ``record_trouble`` says why it is not known what
    earlier operations left open. ``programs`` is what is known of the guest's programs, None if nobody asked.
    """

    host: HostView
    guest: GuestView | None
    agent: AgentInfo | None
    agent_trouble: Reason | None
    platform: Platform
    slots: tuple[SlotView, ...]
    strangers: tuple[GuestCpu, ...]
    record_trouble: Reason | None = None
    unexplained: tuple[GuestCpu, ...] = ()
    identities: frozenset[str] = frozenset()
    programs: Programs | None = None

    @property
    def guest_trouble(self) -> Reason | None:
        """Why the guest, whose agent answers, hears of no CPU that comes or is to go; None if that is not known."""
        return None if self.agent is None else self.platform.guest_is_deaf(self.agent)

    @property
    def unsettled(self) -> bool:
        """Whether the guest shows a CPU whose firmware name it does not know yet: another look may tell more."""
        return any(not cpu.firmware_id for cpu in self.unexplained)

    @property
    def possible_vcpus(self) -> int:
        """How many vCPUs the machine can ever have (``maxcpus``)."""
        return sum(slot.vcpus for slot in self.host.slots)

    @property
    def plugged_vcpus(self) -> int:
        """How many vCPUs QEMU has."""
        return sum(slot.vcpus for slot in self.host.slots if slot.filled)

    @property
    def online_vcpus(self) -> int | None:
        """How many vCPUs are online in the guest, counted by identity; None if that cannot be told.

        That is so without an agent, with one that is not understood, and while the guest shows CPUs that no slot
        explains.
        """
        misunderstood = self.agent is not None and not self.platform.understood_by(self.agent.platform)
        if self.guest is None or self.unexplained or misunderstood:
            return None
        return sum(view.online_vcpus for view in self.slots)


def join(
    host: HostView,
    guest: GuestView | None,
    *,
    agent: AgentInfo | None = None,
    agent_trouble: Reason | None = None,
) -> VmView:
    """Return the map of one VM, as both sides show it at this moment."""
    platform = platform_for(host)
    by_identity = {cpu.firmware_id: cpu for cpu in guest.cpus if cpu.firmware_id} if guest else {}
    asked = guest is not None and (agent is None or platform.understood_by(agent.platform))
    names = {slot.index: platform.firmware_ids(host, slot) for slot in host.slots}
    identities = frozenset(name for each in names.values() for name in each) | platform.unheld(host)
    foreign = unexplained(guest.cpus, identities) if guest and asked and identities else ()
    proves = asked and not foreign
    views = tuple(
        _slot_view(host, slot, names[slot.index], asked, proves, by_identity, platform) for slot in host.slots
    )
    explained = {thread.firmware_id for view in views if view.slot.filled for thread in view.threads}
    # Names of another machine's making, or none at all, say nothing of any slot.
    named = guest.cpus if guest and asked and identities else ()
    strangers = tuple(cpu for cpu in named if cpu.firmware_id not in explained)
    return VmView(
        host,
        guest,
        agent,
        agent_trouble,
        platform,
        views,
        strangers,
        unexplained=foreign,
        identities=identities,
    )


def _slot_view(
    host: HostView,
    slot: Slot,
    named: tuple[str, ...],
    asked: bool,  # noqa: FBT001 - private, and always given by position next to what it qualifies
    proves: bool,  # noqa: FBT001 - likewise
    by_identity: dict[str, GuestCpu],
    platform: Platform,
) -> SlotView:
    identities = named or ("",) * slot.vcpus
    if not slot.filled:
        empty = tuple([ThreadView(identity, None, None) for identity in identities])
        if slot.leaving:
            return SlotView(slot, SlotState.UNPLUGGING, empty, removal_stuck(slot))
        return SlotView(slot, SlotState.EMPTY, empty, _EMPTY)
    tids = [thread.thread_id for thread in slot.threads]
    tids_or_none: list[int | None] = [*tids, *([None] * (len(identities) - len(tids)))]
    threads = tuple(
        ThreadView(identity, by_identity.get(identity), tid)
        for identity, tid in zip(identities, tids_or_none, strict=False)
    )
    state = _state(threads, asked=asked and bool(named), absence_proven=proves)
    return SlotView(slot, state, threads, _not_removable(host, slot, threads, platform))


def in_guest(state: SlotState) -> str:
    """Return how such a slot's CPU stands in the guest, in words."""
    if state is SlotState.PLUGGED:
        return "unknown to the guest"
    return f"{state} in the guest"


def removal_stuck(slot: Slot) -> Reason:
    """Return the reason that QEMU shows the slot as empty, and has not got rid of what was in it."""
    names = ", ".join(str(thread.cpu_index) for thread in slot.leaving)
    return Reason(
        codes.REMOVAL_STUCK,
        Origin.QEMU,
        f"QEMU has emptied slot {slot.index}, but its vCPU (cpu-index {names}) has not ended",
        "if that stays so, QEMU hangs in the removal, and mostly the guest with it: start the VM anew",
    )


def with_pending(view: VmView, intents: Sequence[Intent]) -> VmView:
    """Return the map with what is still open of earlier operations (``core.operation.record.settle``)."""
    by_slot = {intent.slot: intent for intent in intents}
    return view._replace(slots=tuple(_pending(slot, by_slot.get(slot.index)) for slot in view.slots))


def _pending(slot: SlotView, intent: Intent | None) -> SlotView:
    if intent is None:
        return slot
    state = SlotState.UNPLUGGING if intent.kind is IntentKind.UNPLUG else slot.state
    return replace(slot, state=state, pending=intent)


def _state(threads: tuple[ThreadView, ...], *, asked: bool, absence_proven: bool) -> SlotState:
    shown = [thread for thread in threads if thread.cpu is not None]
    if not asked or (len(shown) < len(threads) and not absence_proven):
        return SlotState.UNKNOWN
    if not shown:
        return SlotState.PLUGGED
    online = [thread for thread in shown if thread.online]
    if not online:
        return SlotState.OFFLINE
    if all(thread.online or thread.parked for thread in threads):
        return SlotState.ONLINE
    return SlotState.PARTIAL


def _not_removable(host: HostView, slot: Slot, threads: tuple[ThreadView, ...], platform: Platform) -> Reason | None:
    if slot.fixed is not None:
        return platform.cannot_unplug(host, slot) or slot.fixed
    for thread in threads:
        if thread.cpu is not None and thread.cpu.online and thread.cpu.cannot_offline is not None:
            return platform.cannot_unplug(host, slot) or thread.cpu.cannot_offline
    return platform.cannot_unplug(host, slot)
