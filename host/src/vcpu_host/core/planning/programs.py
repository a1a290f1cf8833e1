# SPDX-License-Identifier: Apache-2.0
"""What a plan does to the guest's programs: notes, refusals, and which slots are passed over for their sake.

The guest's word decides nothing but that: among slots that the user left open, and whether to refuse (promise 6).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from .. import codes
from ..finding import Level
from ..reason import Origin, Reason
from ..view import SlotView, VmView
from ..workload import cpus
from ..workload.hurt import forgotten, hurt, to_be_spared
from ..workload.model import Note, Workload
from ..workload.unused import unused
from .plan import Plan, Refusal, Step, StepKind

_DOWN = (StepKind.UNPLUG, StepKind.OFFLINE)
#: How to do it all the same.
_ANYWAY = "--workload warn does it all the same"


def _numbers_online(slot: SlotView) -> tuple[int, ...]:
    return tuple(thread.cpu.number for thread in slot.threads if thread.cpu is not None and thread.online)


def spared(view: VmView, going: Iterable[SlotView], candidates: Sequence[SlotView]) -> tuple[list[SlotView], set[int]]:
    """Return the candidates with those last whose going hurts somebody, and the indices of these.

    ``going`` are slots that go in any case. Otherwise the order stays.
    """
    programs = view.programs
    if programs is None or programs.workload is None:
        return list(candidates), set()
    gone = cpus.of(number for slot in going for number in _numbers_online(slot))
    hurting = to_be_spared(programs.workload, gone, [_numbers_online(slot) for slot in candidates])
    first = [slot for place, slot in enumerate(candidates) if place not in hurting]
    last = [slot for place, slot in enumerate(candidates) if place in hurting]
    return first + last, {slot.index for slot in last}


def candidates(view: VmView, decided: Plan) -> tuple[str, ...]:
    """Return the identities of the CPUs that may go: those of the plan, or of all slots that it may choose among.

    Removals of earlier operations count (``Plan.recover``): they are seen to their end before anything else.
    """
    slots = [view.slots[step.slot.index] for step in _going(decided)]
    kinds = {step.kind for step in decided.steps}
    if not decided.request.selectors and kinds.intersection(_DOWN):
        # What is taken offline alone may be a CPU that no machine could unplug.
        every = StepKind.OFFLINE in kinds
        slots += [slot for slot in view.slots if slot.slot.filled and (every or slot.not_removable is None)]
    return tuple(dict.fromkeys(_online(slots)))


def unasked(view: VmView, decided: Plan) -> tuple[SlotView, ...]:
    """Return the slots that the plan takes, and whose CPUs the agent was not asked about when it looked at programs."""
    programs = view.programs
    if programs is None or programs.workload is None or programs.asked is None:
        return ()
    slots = (view.slots[step.slot.index] for step in _going(decided))
    return tuple(slot for slot in slots if not programs.asked.issuperset(_online([slot])))


def _online(slots: Iterable[SlotView]) -> Iterator[str]:
    for slot in slots:
        yield from (thread.firmware_id for thread in slot.threads if thread.online and thread.firmware_id)


def _going(decided: Plan) -> Iterator[Step]:
    """Yield the steps that take CPUs away, those first that end what earlier operations began."""
    return (step for step in (*decided.recover, *decided.steps) if goes_down(step))


def does_something(decided: Plan) -> bool:
    """Return whether anything would be sent: for the request, or to end what earlier operations began."""
    return bool(decided.steps or decided.recover)


def goes_down(step: Step) -> bool:
    """Return whether the step takes CPUs away from the guest."""
    return step.kind in _DOWN


def takes(decided: Plan) -> bool:
    """Return whether the plan takes CPUs away, or sees to the end what earlier operations began to."""
    return any(_going(decided))


def brings(decided: Plan) -> bool:
    """Return whether the plan brings CPUs online."""
    return any(not goes_down(step) for step in decided.steps)


def with_notes(view: VmView, decided: Plan) -> Plan:
    """Return the plan with what it does to programs; refused if it hurts some and that is to be refused."""
    programs = view.programs
    if programs is None or not does_something(decided):
        return decided
    if programs.workload is None:
        notes: tuple[Note, ...] = (unseen(programs.trouble),) if programs.trouble is not None else ()
    else:
        notes = tuple(_notes(view, programs.workload, decided))
    decided = decided._replace(notes=notes)
    against = [note for note in notes if note.hurts or (takes(decided) and note.code == codes.WORKLOAD_UNSEEN)]
    if not (programs.refuses and against):
        return decided
    return Plan(decided.request, refusals=tuple(_refusals(against)), already=decided.already, notes=notes)


def _refusals(against: Iterable[Note]) -> Iterator[Refusal]:
    """Yield the refusals. A slot is refused for one reason; further ones are about the whole."""
    told: set[int] = set()
    for note in against:
        hint = f"{note.hint}; {_ANYWAY}" if note.hint else _ANYWAY
        slot = note.slots[0] if len(note.slots) == 1 and note.slots[0] not in told else None
        told.update(note.slots)
        # Of what nobody has seen the guest has said nothing.
        who = Origin.VCPUCTL if note.code == codes.WORKLOAD_UNSEEN else Origin.GUEST
        yield Refusal(Reason(note.code, who, note.text, hint), slot)


def _notes(view: VmView, workload: Workload, decided: Plan) -> Iterator[Note]:
    slot_of = numbers(view)
    going = cpus.of(number for step in _going(decided) for number in _numbers_online(view.slots[step.slot.index]))
    yield from hurt(workload, going, slot_of)
    yield from forgotten(workload)
    coming = sum(_gains(view, step) for step in decided.steps)
    if coming:
        online = (workload.online & ~going).bit_count() + coming
        yield from unused(workload, online, 0)
    missed = [f"slot {slot.index}" for slot in unasked(view, decided)]
    if workload.unseen or missed:
        yield _incomplete((*missed, *workload.unseen))


def numbers(view: VmView) -> Mapping[int, int]:
    """Return the slot of each guest CPU, by the CPU's number."""
    return {thread.cpu.number: slot.index for slot in view.slots for thread in slot.threads if thread.cpu is not None}


def _gains(view: VmView, step: Step) -> int:
    if goes_down(step):
        return 0
    return step.slot.vcpus - view.slots[step.slot.index].online_vcpus


def _incomplete(what: Sequence[str]) -> Note:
    text = f"not everything was looked at in the guest: {'; '.join(what[:4])}"
    return Note(Level.NOTE, codes.WORKLOAD_UNSEEN, text, "there may be more that is hurt")


def unseen(trouble: Reason) -> Note:
    """Return the note that nobody can tell what becomes of the programs."""
    text = f"nobody can tell what it does to the guest's programs: {trouble.text}"
    return Note(Level.NOTE, codes.WORKLOAD_UNSEEN, text, trouble.hint)


def no_eyes(version: str) -> Reason:
    """Return why an agent of this version cannot look at programs."""
    text = f"vcpud {version} cannot look at programs"
    return Reason(codes.AGENT_TOO_OLD, Origin.AGENT, text, "update vcpu-guest in the guest")


def no_agent() -> Reason:
    """Return why nobody looks at programs where the agent is not to be asked."""
    text = "with --without-agent nobody looks at them"
    return Reason(codes.WORKLOAD_UNSEEN, Origin.VCPUCTL, text, "leave that out, or add --workload ignore")
