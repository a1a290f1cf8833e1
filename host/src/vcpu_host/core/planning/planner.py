# SPDX-License-Identifier: Apache-2.0
"""Decides what an operation will do, before anything is done: ``plan(view, request) -> Plan``.

A plan with refusals does nothing at all. Every choice is made in this package (``by_count`` for an amount or a goal,
``placement`` for the order, ``selectors`` for named slots), so that ``vcpuctl plan`` shows what the others do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from .. import codes
from ..model import HostView, Recorded, Slot, SlotState
from ..proof import no_slot_explains
from ..reason import Origin, Reason
from ..run_states import not_running
from ..view import SlotView, VmView, in_guest
from .by_count import BEGUN, PLANNERS
from .obstacles import blocked, nameless, no_way_back, survives_replacing, too_many, unheard, unnamed
from .plan import Operation, Plan, Refusal, Request, Step, StepKind, step
from .selectors import GuestUnknownError, SelectorError, select
from .smt import dark, kept_offline, remedy

_NO_AGENT = Reason(codes.NO_AGENT, Origin.AGENT, "no guest agent answers", "see vcpuctl doctor")


def plan(view: VmView, request: Request, *, recovered: bool = False) -> Plan:
    """Decide. With ``recovered`` earlier operations' removals have had their chance, and are met as they stand.

    Raise SelectorError for selectors that name nothing.
    """
    try:
        chosen = _chosen(view, request)
    except GuestUnknownError:
        if request.without_agent or view.agent_trouble is None:
            raise
        return Plan(request, refusals=(_agent_missing(view),))
    obstacle = _obstacle(view, request)
    if obstacle is not None:
        return Plan(request, refusals=(Refusal(obstacle),))
    if request.selectors:
        decided = _plan_selected(view, request, [view.slots[slot.index] for slot in chosen])
    elif request.count is not None and request.operation in PLANNERS:
        decided = PLANNERS[request.operation](view, request, request.count)
    else:
        needed = "a number of vCPUs or a slot" if request.operation in PLANNERS else "slots"
        raise SelectorError(f"{request.operation} needs {needed}")
    barred = _barred(view, request, decided.steps)
    if barred is not None and not decided.refusals:
        decided = Plan(request, refusals=(Refusal(barred),))
    if request.without_agent:
        # No agent is asked about threads: their state is not known.
        steps = tuple(each._replace(firmware_ids=(), on_failure=_BLIND) for each in decided.steps)
        blind = decided._replace(steps=steps, one_at_a_time=view.platform.one_at_a_time(view.host))
        return _with_notes(view, blind)
    unasked = view.guest is None and (view.agent is None or needs_guest(view.host, request))
    if unasked and not decided.refusals:
        # Last, so that what cannot work with any agent is refused for its own reason.
        return Plan(request, refusals=(_agent_missing(view),))
    if view.unexplained and all(refusal.reason.code in _CURABLE for refusal in decided.refusals):
        return Plan(request, refusals=(Refusal(no_slot_explains(view.unexplained)),))
    curable = all(refusal.reason.code in _CURABLE for refusal in decided.refusals)
    recover = () if recovered or not curable else _recover(view, request)
    going = {each.slot.index for each in recover}
    steps = tuple(each for each in decided.steps if each.slot.index not in going)
    steps = _named(view, steps)
    if request.guest_alone or not survives_replacing(view, steps):
        steps = tuple(each._replace(replaceable=False) if each.replaceable else each for each in steps)
    whole = decided._replace(
        steps=steps,
        one_at_a_time=view.platform.one_at_a_time(view.host),
        recover=recover,
        smt_remedy="" if view.agent is None else remedy(view.agent.environment),
        record_alone=not view.host.qemu_seen,
    )
    return _with_notes(view, whole)


def by_index(view: VmView, request: Request) -> Request:
    """Return the request with its slots named by their indices.

    Other names of theirs may lead nowhere once CPUs have come or gone. Raise SelectorError as ``plan``.
    """
    return replace(request, selectors=tuple(str(slot.index) for slot in _chosen(view, request)))


def _chosen(view: VmView, request: Request) -> tuple[Slot, ...]:
    return select(view.host.slots, request.selectors, _guest_cpus(view)) if request.selectors else ()


def _agent_missing(view: VmView) -> Refusal:
    """Return the refusal that nobody answers for the guest.

    A port that another program holds is in use, not out of reach.
    """
    trouble = view.agent_trouble
    return Refusal(trouble or _NO_AGENT, unreachable=trouble is not None and trouble.code != codes.PORT_BUSY)


def _with_notes(view: VmView, decided: Plan) -> Plan:
    """Return the plan, with what it does to the guest's programs if that is asked for."""
    if view.programs is None:
        return decided
    from .programs import with_notes  # late: most plans have nothing to do with them

    return with_notes(view, decided)


def _barred(view: VmView, request: Request, steps: Sequence[Step]) -> Reason | None:
    """Return why these steps are not taken, although each of them could be."""
    deaf = None if request.without_agent else unheard(view, steps) or unnamed(view, steps)
    barred = _misunderstood(view) or deaf or too_many(view, steps)
    return no_way_back(view, steps) if barred is None and request.atomic else barred


def _named(view: VmView, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Return the steps; where a CPU's identity follows from the order of plugging, plugs get theirs by their order."""
    if not view.platform.numbers_plugs(view.host):
        return steps
    plugs = [each.slot for each in steps if each.kind is StepKind.PLUG]
    names = iter(view.platform.arriving(view.host, plugs))
    return tuple(each._replace(firmware_ids=next(names)) if each.kind is StepKind.PLUG else each for each in steps)


def _misunderstood(view: VmView) -> Reason | None:
    """Return the reason that an agent names CPUs by another machine's rules: it is asked for nothing."""
    if view.agent is None or view.platform.understood_by(view.agent.platform):
        return None
    return view.platform.misunderstanding(view.agent)


def _guest_cpus(view: VmView) -> dict[int, int] | None:
    """Return the slot's index by the number of its CPU in the guest; None if the guest has not been asked."""
    if view.guest is None:
        return None
    return {thread.cpu.number: slot.index for slot in view.slots for thread in slot.threads if thread.cpu is not None}


def _recover(view: VmView, request: Request) -> tuple[Step, ...]:
    """Return the steps that end removals of an earlier operation: what comes up anew is not to meet them.

    An unplug does not ask for that: it takes them up itself, before any other slot. A guest that does not hear of them
    cannot end them.
    """
    if request.operation not in (Operation.PLUG, Operation.SCALE) or request.guest_alone or view.guest_trouble:
        return ()
    return tuple(
        step(StepKind.UNPLUG, slot, BEGUN)
        for slot in reversed(view.slots)
        if slot.state is SlotState.UNPLUGGING and slot.not_removable is None
    )


def removal_pending(slot: SlotView) -> Reason:
    """Return the reason that the CPU may go at any moment: nothing can be built on it."""
    return Reason(
        codes.REMOVAL_PENDING,
        Origin.GUEST,
        f"slot {slot.index} is being removed: device_del was sent, and the CPU has not gone, nor was a refusal heard",
        "wait until the slot is empty (vcpuctl list); or unplug it once more, which tells how the guest stands to it",
    )


#: Refusals that may be none any more when an earlier operation's removals have come to their end.
_CURABLE = frozenset(
    {codes.REMOVAL_PENDING, codes.NOT_ENOUGH, codes.SLOT_OCCUPIED, codes.GRANULARITY, codes.GUEST_POSSIBLE}
)
_BLIND = "the slot is left as QEMU shows it"


def needs_guest(host: HostView, request: Request) -> bool:
    """Return whether the plan depends on how the guest's CPUs stand. That of plugging empty slots does not."""
    if request.without_agent:
        return False
    if request.operation is not Operation.PLUG:
        return True
    if request.selectors:
        try:
            return any(slot.filled for slot in select(host.slots, request.selectors))
        except SelectorError:
            return True  # the guest's own number of a CPU may name the slot
    return any(slot.managed for slot in host.slots)  # it might have to be finished first


def _obstacle(view: VmView, request: Request) -> Reason | None:
    """Return what stands in the way of any such operation on this VM."""
    host = view.host
    if host.no_hotplug is not None and not request.guest_alone:
        return host.no_hotplug
    if host.owner is not None and host.owner.refuses is not None and not request.guest_alone:
        return host.owner.refuses
    if view.record_trouble is not None:
        return view.record_trouble
    if not host.running:
        return not_running(host)
    if request.config and (host.owner is None or not host.owner.definition):
        return _no_definition(host)
    if host.migrating:
        return Reason(
            codes.MIGRATING,
            Origin.VCPUCTL,
            f"the VM is being migrated (query-migrate: {host.migration}): the other side is to have the same vCPUs",
            "repeat it when that has ended, on the side that runs",
        )
    return None


def _no_definition(host: HostView) -> Reason:
    """Return the reason that --config has nothing to be written into."""
    if host.owner is None:
        text, hint = "nobody keeps a definition of this VM", "leave --config out, and change what starts QEMU (-smp)"
    else:
        text = f"{host.owner.name} keeps no definition of this domain: it is transient"
        hint = "virsh define XML gives it one"
    return Reason(codes.NO_DEFINITION, Origin.VCPUCTL, text, hint)


def _plan_selected(view: VmView, request: Request, chosen: Sequence[SlotView]) -> Plan:
    steps: list[Step] = []
    refusals: list[Refusal] = []
    already: list[SlotView] = []
    decide = _SELECTED[request.operation]
    out_of_reach = blocked(view) if request.operation is Operation.PLUG else {}
    for slot in chosen:
        decision = out_of_reach.get(slot.index) or decide(view, slot)
        if isinstance(decision, Step) and decision.kind is StepKind.ONLINE and dark(slot):
            decision = kept_offline(view)[slot.index]
        if request.without_agent and isinstance(decision, Step) and decision.kind is StepKind.ONLINE:
            decision = None  # QEMU has it, and more cannot be known
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
        return step(StepKind.PLUG, slot, "asked for by name")
    if slot.state is SlotState.UNPLUGGING:
        return removal_pending(slot)
    if slot.slot.recorded is Recorded.BEHIND and slot.slot.fixed is not None:
        return slot.slot.fixed
    if not slot.slot.managed:
        holder = f"the device {slot.slot.device_id!r}" if slot.slot.device_id else "a CPU that was there at start"
        return Reason(
            codes.SLOT_OCCUPIED,
            Origin.VCPUCTL,
            f"slot {slot.index} is occupied by {holder}",
            "choose an empty slot (vcpuctl list), or use vcpuctl online for a CPU that is there",
        )
    if slot.state is SlotState.ONLINE:
        return None
    return step(StepKind.ONLINE, slot, f"asked for by name; it is plugged already, and {in_guest(slot.state)}")


def _select_unplug(view: VmView, slot: SlotView) -> Step | Reason | None:
    del view
    if not slot.slot.filled and not slot.slot.leaving:
        return None
    return slot.not_removable or step(StepKind.UNPLUG, slot, "asked for by name")


def _not_shown(slot: SlotView) -> Reason:
    """Return the reason of a CPU that the guest does not show now.

    It may come up at the next moment: that is not the same as offline.
    """
    return Reason(
        codes.GUEST_UNAWARE,
        Origin.GUEST,
        f"QEMU has a CPU in slot {slot.index} that the guest does not show; it may come up yet, so it is not known "
        "to be offline",
        f"repeat it in a moment if the CPU was plugged just now; vcpuctl unplug --slot {slot.index} takes one out that "
        "the guest never shows",
    )


def _select_online(view: VmView, slot: SlotView) -> Step | Reason | None:
    if not slot.slot.filled:
        return Reason(
            codes.SLOT_EMPTY, Origin.VCPUCTL, f"slot {slot.index} is empty", "plug it: vcpuctl plug --slot ..."
        )
    if slot.state is SlotState.UNPLUGGING:
        return removal_pending(slot)
    if not all(slot.firmware_ids):
        return nameless(view)
    return None if slot.state is SlotState.ONLINE else step(StepKind.ONLINE, slot, "asked for by name")


def _select_offline(view: VmView, slot: SlotView) -> Step | Reason | None:
    if not slot.slot.filled:
        return Reason(codes.SLOT_EMPTY, Origin.VCPUCTL, f"slot {slot.index} is empty", "see vcpuctl list")
    if slot.state is SlotState.UNPLUGGING:
        return removal_pending(slot)
    if not all(slot.firmware_ids):
        return nameless(view)
    if slot.state is not SlotState.UNKNOWN and any(thread.cpu is None for thread in slot.threads):
        return _not_shown(slot)
    if slot.state is SlotState.OFFLINE:
        return None
    for thread in slot.threads:
        if thread.online and thread.cpu is not None and thread.cpu.cannot_offline is not None:
            return thread.cpu.cannot_offline
    return step(StepKind.OFFLINE, slot, "asked for by name")


_SELECTED: dict[Operation, Callable[[VmView, SlotView], Step | Reason | None]] = {
    Operation.PLUG: _select_plug,
    Operation.UNPLUG: _select_unplug,
    Operation.ONLINE: _select_online,
    Operation.OFFLINE: _select_offline,
}
