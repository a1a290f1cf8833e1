# SPDX-License-Identifier: Apache-2.0
"""What an operation will do, decided before anything is done: ``plan(view, request) -> Plan``.

A plan with refusals does nothing at all. Every choice is made here, so that ``vcpuctl plan`` shows what the others do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from .model import HostView, Reason, Slot, SlotState, Who, slot_id
from .select import SelectorError, select
from .view import SlotView, VmView


class Operation(StrEnum):
    """What was asked for."""

    PLUG = "plug"
    UNPLUG = "unplug"
    SCALE = "scale"
    ONLINE = "online"
    OFFLINE = "offline"


class StepKind(StrEnum):
    """What happens to one slot."""

    PLUG = "plug"  # device_add, then online
    ONLINE = "online"  # QEMU has it already: the guest's side alone
    UNPLUG = "unplug"  # offline, then device_del
    OFFLINE = "offline"  # the guest's side alone


@dataclass(frozen=True, slots=True)
class Request:
    """What the user wants. ``count`` counts vCPUs; for scale it is the goal. ``selectors`` exclude ``count``."""

    operation: Operation
    count: int | None = None
    selectors: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """As it stands in reports."""
        return {"count": self.count, "slots": list(self.selectors)}


@dataclass(frozen=True, slots=True)
class Step:
    """What will be done with one slot, why, and what happens if it cannot be finished."""

    kind: StepKind
    slot: Slot
    device_id: str
    firmware_ids: tuple[str, ...]
    why: str
    on_failure: str
    online_before: frozenset[str] = frozenset()  # the threads that are online to begin with: a way back restores these

    def to_json(self) -> dict[str, object]:
        """As ``vcpuctl plan -o json`` shows it."""
        return {
            "step": str(self.kind),
            "slot": self.slot.index,
            "id": self.device_id,
            "props": dict(self.slot.props),
            "vcpus": self.slot.vcpus,
            "firmware_ids": list(self.firmware_ids),
            "why": self.why,
            "on_failure": self.on_failure,
        }


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the operation, or its part for one slot, will not be tried."""

    reason: Reason
    slot: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order. If there are refusals no step is taken. ``already`` lists slots that are as wanted.

    ``one_at_a_time`` says that a plug waits until the guest has taken notice of the one before it.
    """

    request: Request
    steps: tuple[Step, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    already: tuple[SlotView, ...] = field(default=())
    one_at_a_time: bool = True

    @property
    def vcpus(self) -> int:
        """How many vCPUs the steps touch."""
        return sum(step.slot.vcpus for step in self.steps)

    def to_json(self) -> dict[str, object]:
        """As ``vcpuctl plan -o json`` shows it, without the schema's version."""
        return {
            "operation": str(self.request.operation),
            "requested": self.request.to_json(),
            "steps": [step.to_json() for step in self.steps],
            "refusals": [{"slot": refusal.slot, "reason": refusal.reason.to_json()} for refusal in self.refusals],
            "already": [view.index for view in self.already],
            "one_at_a_time": self.one_at_a_time,
        }


_KEEP = {
    StepKind.PLUG: "the slot is unplugged again; slots that came up stay",
    StepKind.ONLINE: "the slot stays plugged, as it was",
    StepKind.UNPLUG: "the CPU goes back online",
    StepKind.OFFLINE: "the CPU stays online",
}

_UP_LEFTOVERS = (SlotState.PLUGGED, SlotState.OFFLINE, SlotState.PARTIAL)


def plan(view: VmView, request: Request) -> Plan:
    """Decide. Raises SelectorError for selectors that name nothing, and ValueError for a count that is not positive."""
    if request.count is not None and request.count < 1:
        raise ValueError(f"a count of vCPUs is at least 1, not {request.count}")
    chosen = select(view.host, request.selectors) if request.selectors else ()
    obstacle = _obstacle(view, request.operation)
    if obstacle is not None:
        return Plan(request, refusals=(Refusal(obstacle),))
    if request.selectors:
        decided = _plan_selected(view, request, [view.slots[slot.index] for slot in chosen])
    elif request.count is not None and request.operation in _PLANNERS:
        decided = _PLANNERS[request.operation](view, request, request.count)
    else:
        needed = "a number of vCPUs or a slot" if request.operation in _PLANNERS else "slots"
        raise SelectorError(f"{request.operation} needs {needed}")
    unasked = view.guest is None and (view.agent is None or needs_guest(view.host, request))
    if unasked and not decided.refusals:
        # Last, so that what cannot work with any agent is refused for its own reason.
        return Plan(request, refusals=(Refusal(view.agent_trouble or _NO_AGENT),))
    return replace(decided, one_at_a_time=view.platform.one_at_a_time(view.host))


def needs_guest(host: HostView, request: Request) -> bool:
    """Whether the plan depends on how the guest's CPUs stand. That of plugging empty slots does not.

    Raises SelectorError as ``plan`` does.
    """
    if request.operation is not Operation.PLUG:
        return True
    if request.selectors:
        return any(slot.filled for slot in select(host, request.selectors))
    return any(slot.device_id == slot_id(slot.index) for slot in host.slots)  # it might have to be finished first


def _obstacle(view: VmView, operation: Operation) -> Reason | None:
    """What stands in the way of any such operation on this VM."""
    host = view.host
    if host.no_hotplug is not None and operation not in (Operation.ONLINE, Operation.OFFLINE):
        return host.no_hotplug
    if not host.running:
        return Reason(
            "vm-not-running",
            Who.VCPUCTL,
            f"the VM is not running (status: {host.status}), so its guest cannot do its part",
            "let it run (cont, or power it on), then try again",
        )
    return None


def _step(kind: StepKind, view: SlotView, why: str) -> Step:
    device_id = view.slot.device_id or (slot_id(view.index) if kind is StepKind.PLUG else "")
    online = frozenset(thread.firmware_id for thread in view.threads if thread.online)
    return Step(kind, view.slot, device_id, view.firmware_ids, why, _KEEP[kind], online)


def _plan_selected(view: VmView, request: Request, chosen: Sequence[SlotView]) -> Plan:
    steps: list[Step] = []
    refusals: list[Refusal] = []
    already: list[SlotView] = []
    decide = _SELECTED[request.operation]
    for slot in chosen:
        decision = decide(view, slot)
        if isinstance(decision, Step):
            steps.append(decision)
        elif isinstance(decision, Reason):
            refusals.append(Refusal(decision, slot.index))
        else:
            already.append(slot)
    if request.operation in (Operation.UNPLUG, Operation.OFFLINE):
        steps.reverse()
    return Plan(request, () if refusals else tuple(steps), tuple(refusals), tuple(already))


def _select_plug(view: VmView, slot: SlotView) -> Step | Reason | None:
    if not slot.slot.filled:
        never = view.platform.cannot_plug(view.host, slot.slot)
        return never or _step(StepKind.PLUG, slot, "asked for by name")
    if slot.slot.device_id != slot_id(slot.index):
        holder = f"the device {slot.slot.device_id!r}" if slot.slot.device_id else "a CPU that was there at start"
        return Reason(
            "slot-occupied",
            Who.VCPUCTL,
            f"slot {slot.index} is occupied by {holder}",
            "choose an empty slot (vcpuctl list), or use vcpuctl online for a CPU that is there",
        )
    if slot.state is SlotState.ONLINE:
        return None
    return _step(StepKind.ONLINE, slot, f"asked for by name; it is plugged already, and {slot.state} in the guest")


def _select_unplug(view: VmView, slot: SlotView) -> Step | Reason | None:
    del view
    if not slot.slot.filled:
        return None
    return slot.not_removable or _step(StepKind.UNPLUG, slot, "asked for by name")


def _nameless(view: VmView, slot: SlotView) -> Reason:
    """Without an identity nobody can tell which guest CPU is meant."""
    text = f"vcpuctl does not know how {view.host.arch} {view.host.machine} guests name the CPU of slot {slot.index}"
    return Reason("unknown-platform", Who.VCPUCTL, text, "switch it in the guest by hand")


def _select_online(view: VmView, slot: SlotView) -> Step | Reason | None:
    if not slot.slot.filled:
        return Reason("slot-empty", Who.VCPUCTL, f"slot {slot.index} is empty", "plug it: vcpuctl plug --slot ...")
    if not all(slot.firmware_ids):
        return _nameless(view, slot)
    return None if slot.state is SlotState.ONLINE else _step(StepKind.ONLINE, slot, "asked for by name")


def _select_offline(view: VmView, slot: SlotView) -> Step | Reason | None:
    if not slot.slot.filled:
        return Reason("slot-empty", Who.VCPUCTL, f"slot {slot.index} is empty", "see vcpuctl list")
    if not all(slot.firmware_ids):
        return _nameless(view, slot)
    if slot.state in (SlotState.OFFLINE, SlotState.PLUGGED):
        return None
    for thread in slot.threads:
        if thread.online and thread.cpu is not None and thread.cpu.cannot_offline is not None:
            return thread.cpu.cannot_offline
    return _step(StepKind.OFFLINE, slot, "asked for by name")


def _plan_plug(view: VmView, request: Request, count: int) -> Plan:
    steps, missing = _grow(view, count)
    if missing is not None:
        return Plan(request, refusals=(Refusal(missing),))
    return Plan(request, steps)


def _plan_unplug(view: VmView, request: Request, count: int) -> Plan:
    steps, missing = _shrink(view, count)
    if missing is not None:
        return Plan(request, refusals=(Refusal(missing),))
    return Plan(request, steps)


def _plan_scale(view: VmView, request: Request, goal: int) -> Plan:
    """Every plugged vCPU online, and exactly ``goal`` of them: leftovers of interrupted operations go first."""
    if goal > view.possible_vcpus:
        text = f"{goal} vCPUs are more than the {view.possible_vcpus} that this VM can have"
        return Plan(request, refusals=(Refusal(Reason("over-max", Who.VCPUCTL, text, _MAXCPUS_HINT)),))
    stuck = [s for s in view.slots if s.slot.filled and s.not_removable is not None]
    healthy = [s for s in view.slots if s.slot.filled and s.state is SlotState.ONLINE]
    surplus = view.plugged_vcpus - goal
    already = tuple(healthy)
    if surplus <= 0:
        mend = tuple(
            _step(StepKind.ONLINE, s, f"plugged already, and {s.state} in the guest")
            for s in view.slots
            if s.slot.filled and s.state in _UP_LEFTOVERS
        )
        if surplus == 0:
            return Plan(request, mend, already=already)
        fresh, missing = _grow(view, -surplus, leftovers=False)
        if missing is not None:
            return Plan(request, refusals=(Refusal(missing),))
        return Plan(request, (*mend, *fresh), already=already)
    floor = sum(s.slot.vcpus for s in stuck)
    if goal < floor:
        why = "; ".join(f"slot {s.index}: {s.not_removable.text}" for s in stuck[:4] if s.not_removable)
        text = f"cannot go below {floor} vCPUs: {why}"
        return Plan(request, refusals=(Refusal(Reason("under-min", Who.VCPUCTL, text, f"scale to {floor} or more")),))
    steps, missing = _shrink(view, surplus)
    if missing is not None:
        return Plan(request, refusals=(Refusal(missing),))
    going = {step.slot.index for step in steps}
    mend = tuple(
        _step(StepKind.ONLINE, s, f"plugged already, and {s.state} in the guest")
        for s in view.slots
        if s.slot.filled and s.index not in going and s.state in _UP_LEFTOVERS
    )
    return Plan(request, (*mend, *steps), already=tuple(s for s in healthy if s.index not in going))


_NO_AGENT = Reason("no-agent", Who.AGENT, "no guest agent answers", "see vcpuctl doctor")

_MAXCPUS_HINT = "the VM's -smp ...,maxcpus=N sets the limit, from its next start on"


def _grow(view: VmView, count: int, *, leftovers: bool = True) -> tuple[tuple[Step, ...], Reason | None]:
    """Slots for ``count`` more online vCPUs: what is plugged and not online first, then the lowest empty ones."""
    candidates: list[Step] = []
    if leftovers:
        candidates += [
            _step(StepKind.ONLINE, s, f"plugged already, and {s.state} in the guest: finished first")
            for s in view.slots
            if s.slot.filled and s.state in _UP_LEFTOVERS and s.slot.device_id == slot_id(s.index)
        ]
    never: list[Reason] = []
    for s in view.slots:
        if s.slot.filled:
            continue
        reason = view.platform.cannot_plug(view.host, s.slot)
        if reason is None:
            candidates.append(_step(StepKind.PLUG, s, "lowest empty slot"))
        else:
            never.append(reason)
    if not candidates and never:
        return (), never[0]
    return _take(candidates, count, "plug", _MAXCPUS_HINT)


def _shrink(view: VmView, count: int) -> tuple[tuple[Step, ...], Reason | None]:
    """Slots to give up ``count`` vCPUs: what is plugged and not online first, then the highest removable ones."""
    removable = [s for s in view.slots if s.slot.filled and s.not_removable is None]
    leftovers = [s for s in removable if s.state is not SlotState.ONLINE]
    online = [s for s in removable if s.state is SlotState.ONLINE]
    candidates = [
        *(_step(StepKind.UNPLUG, s, f"{s.state} in the guest: nothing runs on it") for s in reversed(leftovers)),
        *(_step(StepKind.UNPLUG, s, "highest removable slot") for s in reversed(online)),
    ]
    return _take(candidates, count, "unplug", "the other CPUs were there at start, or the guest cannot let them go")


def _take(candidates: Iterable[Step], count: int, verb: str, hint: str) -> tuple[tuple[Step, ...], Reason | None]:
    """The first candidates that make up exactly ``count`` vCPUs, or why there are none."""
    chosen: list[Step] = []
    have = 0
    available = 0
    for step in candidates:
        available += step.slot.vcpus
        if have + step.slot.vcpus <= count:
            chosen.append(step)
            have += step.slot.vcpus
    if have == count:
        return tuple(chosen), None
    if available < count:
        left = "none is left" if available == 0 else f"only {available} {'is' if available == 1 else 'are'} left"
        return (), Reason("not-enough", Who.VCPUCTL, f"cannot {verb} {count} vCPUs: {left}", hint)
    unit = chosen[0].slot.vcpus if chosen else next(iter(candidates)).slot.vcpus
    text = f"this VM plugs {unit} vCPUs at a time, so {count} cannot be had"
    return (), Reason("granularity", Who.VCPUCTL, text, f"ask for a multiple of {unit}")


_PLANNERS: dict[Operation, Callable[[VmView, Request, int], Plan]] = {
    Operation.PLUG: _plan_plug,
    Operation.UNPLUG: _plan_unplug,
    Operation.SCALE: _plan_scale,
}

_SELECTED: dict[Operation, Callable[[VmView, SlotView], Step | Reason | None]] = {
    Operation.PLUG: _select_plug,
    Operation.UNPLUG: _select_unplug,
    Operation.ONLINE: _select_online,
    Operation.OFFLINE: _select_offline,
}
