# SPDX-License-Identifier: Apache-2.0
"""Which slots make up a number of vCPUs: the part of planning in which the user names no slots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from .. import codes
from ..model import SlotState
from ..reason import Origin, Reason
from ..text import some_vcpus
from ..view import SlotView, VmView, in_guest
from .obstacles import blocked, nameless
from .placement import Choice, to_plug, to_unplug
from .plan import Operation, Plan, Refusal, Request, Step, StepKind, step
from .smt import dark

_UP_LEFTOVERS = (SlotState.PLUGGED, SlotState.OFFLINE, SlotState.PARTIAL)


#: Why a removal that is open comes first.
BEGUN = "its removal was begun by an earlier operation"
_IDLE = "{}: nothing runs on it"
_SPARED = "highest slot whose CPUs no program of the guest needs"
_HURTS = "programs of the guest need its CPUs, and no other slot is left"
_WHY_FIRST = {SlotState.UNPLUGGING: BEGUN, SlotState.PARTIAL: "partial in the guest: it is not whole"}
_MAXCPUS_HINT = "the VM's -smp ...,maxcpus=N sets the limit, from its next start on"


def _plan_plug(view: VmView, request: Request, count: int) -> Plan:
    steps, missing = _grow(view, request, count)
    if missing is not None:
        return _refused(request, missing)
    return Plan(request, steps)


def _plan_unplug(view: VmView, request: Request, count: int) -> Plan:
    steps, missing = _shrink(view, request, count)
    if missing is not None:
        return _refused(request, missing)
    return Plan(request, steps)


def _plan_scale(view: VmView, request: Request, goal: int) -> Plan:
    """Return the plan for every plugged vCPU online, and exactly ``goal`` of them.

    Leftovers of interrupted operations go first.
    """
    if request.in_guest:
        return _plan_in_guest(view, request, goal)
    if goal > view.possible_vcpus:
        text = f"{goal} vCPUs are more than the {view.possible_vcpus} that this VM can have"
        return _refused(request, Reason(codes.OVER_MAX, Origin.VCPUCTL, text, _MAXCPUS_HINT))
    leaving = [s for s in view.slots if s.state is SlotState.UNPLUGGING]
    if leaving:
        return _see_out(view, request, goal, leaving)
    # What the guest's SMT mode keeps offline makes up no goal.
    have = sum(s.slot.vcpus for s in view.slots if s.slot.filled and not dark(s))
    return _scale_up(view, request, goal - have) if goal >= have else _scale_down(view, request, goal, have - goal)


def _see_out(view: VmView, request: Request, goal: int, leaving: Sequence[SlotView]) -> Plan:
    """Return the plan that sees removals to their end: CPUs on their way out count no more."""
    staying = view._replace(slots=tuple(s for s in view.slots if s.state is not SlotState.UNPLUGGING))
    rest = _plan_scale(staying, request, goal)
    gone = (step(StepKind.UNPLUG, s, BEGUN) for s in reversed(leaving))
    return rest if rest.refusals else rest._replace(steps=(*gone, *rest.steps))


def _scale_up(view: VmView, request: Request, lacking: int) -> Plan:
    """Return the plan that brings online what is plugged, and plugs ``lacking`` vCPUs more."""
    already = tuple(_healthy(view))
    if lacking == 0:
        return Plan(request, _mend(view), already=already)
    fresh, missing = _grow(view, request, lacking, leftovers=False)
    if missing is not None:
        return _refused(request, missing)
    return Plan(request, (*_mend(view), *fresh), already=already)


def _scale_down(view: VmView, request: Request, goal: int, surplus: int) -> Plan:
    """Return the plan that unplugs ``surplus`` vCPUs and brings the rest online.

    Those go first that the guest's SMT mode keeps offline.
    """
    forbidden = _nothing_goes(view, view.slots)
    if forbidden is not None:
        return _refused(request, forbidden)
    stuck = [s for s in view.slots if s.slot.filled and s.not_removable is not None]
    floor = sum(s.slot.vcpus for s in stuck)
    if goal < floor:
        why = "; ".join(f"slot {s.index}: {s.not_removable.text}" for s in stuck[:4] if s.not_removable)
        text = f"cannot go below {some_vcpus(floor)}: {why}"
        return _refused(request, Reason(codes.UNDER_MIN, Origin.VCPUCTL, text, f"scale to {floor} or more"))
    idle = sum(s.slot.vcpus for s in view.slots if dark(s) and s.not_removable is None)
    steps, missing = _shrink(view, request, surplus + idle)
    if missing is not None:
        return _refused(request, missing)
    going = frozenset(each.slot.index for each in steps)
    already = tuple(s for s in _healthy(view) if s.index not in going)
    return Plan(request, (*_mend(view, going), *steps), already=already)


def _refused(request: Request, reason: Reason) -> Plan:
    return Plan(request, refusals=(Refusal(reason),))


def _healthy(view: VmView) -> list[SlotView]:
    return [s for s in view.slots if s.slot.filled and s.state is SlotState.ONLINE]


def _mend(view: VmView, but: frozenset[int] = frozenset()) -> tuple[Step, ...]:
    """Return the steps that bring online what is plugged and is not, but for these slots."""
    return tuple(
        step(StepKind.ONLINE, s, f"plugged already, and {in_guest(s.state)}")
        for s in view.slots
        if s.slot.filled and s.index not in but and _mendable(s)
    )


def _mendable(slot: SlotView) -> bool:
    """Return whether it is filled, not online, and could be."""
    return slot.state in _UP_LEFTOVERS and not dark(slot)


def _grow(
    view: VmView, request: Request, count: int, *, leftovers: bool = True
) -> tuple[tuple[Step, ...], Reason | None]:
    """Return slots for ``count`` more online vCPUs.

    What is plugged and not online comes first, then empty ones by the policy.
    """
    where = _there(view, request)
    if isinstance(where, Reason):
        return (), where
    candidates: list[Step] = []
    if leftovers:
        candidates += [
            step(StepKind.ONLINE, s, f"plugged already, and {in_guest(s.state)}: finished first")
            for s in where
            if s.slot.filled and _mendable(s) and s.slot.managed
        ]
    out_of_reach = blocked(view)
    empty = {s.index: s for s in where if not s.slot.filled and s.index not in out_of_reach}
    never = [out_of_reach[s.index] for s in where if s.index in out_of_reach]
    used = [s.index for s in view.slots if s.slot.filled and s.state is not SlotState.UNPLUGGING]
    candidates += [
        step(StepKind.PLUG, empty[choice.slot], choice.why)
        for choice in to_plug(view.host.slots, used, empty, request.placement)
    ]
    if not candidates and never:
        return (), never[0]
    steps, missing = _take(candidates, count, "plug", _elsewhere(view, request) or _MAXCPUS_HINT, _on(request))
    return steps, _with_never(missing, never)


def _with_never(missing: Reason | None, never: Sequence[Reason]) -> Reason | None:
    """Return why there are too few. Where there are slots that cannot be had, that is why, more than maxcpus is."""
    if missing is None or missing.code != codes.NOT_ENOUGH or not never:
        return missing
    which = "one empty slot" if len(never) == 1 else f"{len(never)} empty slots"
    text = f"{missing.text}; {which} cannot be filled: {never[0].text}"
    return missing._replace(text=text, hint=never[0].hint or missing.hint)


def _shrink(view: VmView, request: Request, count: int) -> tuple[tuple[Step, ...], Reason | None]:
    """Return slots to give up ``count`` vCPUs.

    What is plugged and not online goes first, then removable ones by the policy.
    """
    where = _there(view, request)
    if isinstance(where, Reason):
        return (), where
    forbidden = _nothing_goes(view, where)
    if forbidden is not None:
        return (), forbidden
    removable = [s for s in where if s.slot.filled and s.not_removable is None]
    in_use = (SlotState.ONLINE, SlotState.UNKNOWN)
    leftovers = [s for s in removable if s.state not in in_use]
    online = {s.index: s for s in removable if s.state in in_use}
    going = {s.index for s in leftovers}
    spare, why = _spared(view, request, leftovers, [*online.values()])
    used = [s.index for s in view.slots if s.slot.filled and s.index not in going]
    candidates = [
        *(
            step(StepKind.UNPLUG, s, _WHY_FIRST.get(s.state, _IDLE.format(in_guest(s.state))))
            for s in reversed(leftovers)
        ),
        *(
            step(StepKind.UNPLUG, online[choice.slot], why.get(choice.slot, choice.why))
            for choice in (to_unplug(view.host.slots, used, online, request.placement) if spare is None else spare)
        ),
    ]
    hint = "the other CPUs were there at start, or the guest cannot let them go"
    return _take(candidates, count, "unplug", hint, _on(request))


def _spared(
    view: VmView, request: Request, going: Sequence[SlotView], online: Sequence[SlotView]
) -> tuple[list[Choice] | None, dict[int, str]]:
    """Return the order in which these slots go for the programs' sake, with what is said of those that come last.

    None for the policy's own order: that was asked for, or nobody knows of programs.
    """
    if view.programs is None or not request.spares_programs:
        return None, {}
    from .programs import spared  # late: most plans are made without a look at programs

    order, hurting = spared(view, going, sorted(online, key=lambda slot: -slot.index))
    why = _SPARED if hurting else "highest removable slot"
    return [Choice(slot.index, why) for slot in order], dict.fromkeys(hurting, _HURTS)


def _nothing_goes(view: VmView, where: Sequence[SlotView]) -> Reason | None:
    """Return the machine's own reason if none of these slots can be unplugged.

    Return None if one can, or the boot CPU is all.
    """
    filled = [s for s in where if s.slot.filled]
    if any(s.not_removable is None for s in filled):
        return None
    # Of the slot that would go first: what it says of what else can be done with it is true of the others, too.
    never = (s.slot.fixed or view.platform.cannot_unplug(view.host, s.slot) for s in reversed(filled))
    return next((reason for reason in never if reason is not None and reason.code != codes.BOOT_CPU), None)


def _there(view: VmView, request: Request) -> tuple[SlotView, ...] | Reason:
    """Return the slots that the request is about, or why there are none."""
    if request.node is None:
        return view.slots
    nodes = sorted({s.slot.node for s in view.slots if s.slot.node is not None})
    if not nodes:
        text = f"no slot of this VM says which NUMA node it is of, so there is no node {request.node}"
        hint = "give the VM nodes at its next start (-numa node,nodeid=N and -numa cpu,...), or leave the node out"
        return Reason(codes.NO_NODES, Origin.VCPUCTL, text, hint)
    if request.node not in nodes:
        text = f"this VM has no node {request.node} with CPU slots: it has {', '.join(map(str, nodes))}"
        return Reason(codes.NO_SUCH_NODE, Origin.VCPUCTL, text, "see the nodes in vcpuctl list")
    return tuple(s for s in view.slots if s.slot.node == request.node)


def _on(request: Request) -> str:
    return "" if request.node is None else f" on node {request.node}"


def _elsewhere(view: VmView, request: Request) -> str:
    """Return where there is room, when the node that was asked for has none."""
    if request.node is None:
        return ""
    room: Counter[int] = Counter()
    for s in view.slots:
        if not s.slot.filled and s.slot.node not in (None, request.node):
            room[s.slot.node] += s.slot.vcpus
    return "; ".join(f"node {node} has room for {vcpus}" for node, vcpus in sorted(room.items()))


def _take(
    candidates: Iterable[Step], count: int, verb: str, hint: str, where: str = ""
) -> tuple[tuple[Step, ...], Reason | None]:
    """Return the first candidates that make up exactly ``count`` vCPUs, or why there are none."""
    return _take_vcpus([(candidate, candidate.slot.vcpus) for candidate in candidates], count, verb, hint, where)


def _take_vcpus(
    candidates: Sequence[tuple[Step, int]], count: int, verb: str, hint: str, where: str = ""
) -> tuple[tuple[Step, ...], Reason | None]:
    """Return as ``_take`` does, of steps with the number of vCPUs that each of them changes."""
    chosen = _fitting([vcpus for _, vcpus in candidates], count)
    if chosen is not None:
        return tuple(candidates[place][0] for place in chosen), None
    available = sum(vcpus for _, vcpus in candidates)
    if available < count:
        left = "none is left" if available == 0 else f"only {available} {'is' if available == 1 else 'are'} left"
        return (), Reason(codes.NOT_ENOUGH, Origin.VCPUCTL, f"cannot {verb} {some_vcpus(count)}{where}: {left}", hint)
    units = sorted({vcpus for _, vcpus in candidates})
    if len(units) > 1:
        text = (
            f"what this VM has to {verb} comes in parts of {units[0]} to {units[-1]} vCPUs, which {count} is no sum of"
        )
        return (), Reason(codes.GRANULARITY, Origin.VCPUCTL, text, "ask for one vCPU more or less")
    text = f"this VM takes {units[0]} vCPUs at a time, so {count} cannot be had"
    return (), Reason(codes.GRANULARITY, Origin.VCPUCTL, text, f"ask for a multiple of {units[0]}")


def _fitting(sizes: Sequence[int], count: int) -> list[int] | None:
    """Return the places of sizes that make up exactly ``count``, the earliest ones that do; None if none do."""
    if sum(sizes) < count:
        return None
    mask = (1 << count + 1) - 1
    #: Bit n of entry i: whether n can be made of the sizes from i on.
    sums = [1]
    for size in reversed(sizes):
        sums.append((sums[-1] | sums[-1] << size) & mask)
    sums.reverse()
    if not sums[0] >> count & 1:
        return None
    chosen = []
    for place, size in enumerate(sizes):
        if size <= count and sums[place + 1] >> (count - size) & 1:
            chosen.append(place)
            count -= size
    return chosen


def _plan_in_guest(view: VmView, request: Request, goal: int) -> Plan:
    """Return the plan for exactly ``goal`` vCPUs online of those that are plugged.

    The lowest ones come, the highest ones go.
    """
    if goal > view.plugged_vcpus:
        text = f"{goal} vCPUs are more than the {view.plugged_vcpus} that this VM has plugged"
        hint = "plug some first (vcpuctl plug), where the machine can"
        return Plan(request, refusals=(Refusal(Reason(codes.OVER_MAX, Origin.VCPUCTL, text, hint)),))
    staying = [s for s in view.slots if s.state is not SlotState.UNPLUGGING]
    shown = [s for s in staying if s.slot.filled and all(s.firmware_ids)]
    if not shown and any(s.slot.filled for s in staying):
        return _refused(request, nameless(view))
    lacking = goal - sum(s.online_vcpus for s in staying)
    if lacking >= 0:
        gains = [
            (
                step(StepKind.ONLINE, s, "lowest slot that is not online"),
                sum(not (t.online or t.parked) for t in s.threads),
            )
            for s in shown
            if _mendable(s)
        ]
        steps, missing = _take_vcpus(gains, lacking, "bring online", "see vcpuctl list")
    else:
        losses = [
            (step(StepKind.OFFLINE, s, "highest slot that the guest can let go"), s.online_vcpus)
            for s in _highest_first(view, request, shown)
            if s.online_vcpus and not any(t.online and t.cpu and t.cpu.cannot_offline for t in s.threads)
        ]
        steps, missing = _take_vcpus(losses, -lacking, "take offline", "the guest cannot do without the others")
    if missing is not None:
        return _refused(request, missing)
    return Plan(request, steps, already=tuple(s for s in shown if s.state is SlotState.ONLINE))


def _highest_first(view: VmView, request: Request, slots: Sequence[SlotView]) -> Sequence[SlotView]:
    """Return the slots in the order in which they go, those last that programs need."""
    order, _ = _spared(view, request, (), slots)
    return slots[::-1] if order is None else [view.slots[choice.slot] for choice in order]


PLANNERS: dict[Operation, Callable[[VmView, Request, int], Plan]] = {
    Operation.PLUG: _plan_plug,
    Operation.UNPLUG: _plan_unplug,
    Operation.SCALE: _plan_scale,
}
