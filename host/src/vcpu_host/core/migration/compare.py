# SPDX-License-Identifier: Apache-2.0
"""Whether a QEMU that waits for a VM has the vCPUs that this VM has: before the migration, when it can still be mended.

QEMU itself compares nothing of that. A vCPU that the destination lacks ends the migration in its last moments ("Unknown
savevm section or instance", migration/savevm.c, qemu_loadvm_section_start_full); one that it has too many is taken for
part of the VM, and is one that no guest knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .. import codes
from ..finding import Finding, Level
from ..intent import Intent
from ..model import HostView
from ..planning.obstacles import beyond_limit, cannot_fill
from ..platforms import platform_for
from .shape import Place, Shape

#: The run state of a QEMU that was started with -incoming and has not got its VM yet (RunState, qapi/run-state.json).
WAITING = "inmigrate"
#: What query-migrate says there until the VM's state begins to arrive. Since 8.2 it is "setup" from the moment at which
#: QEMU listens, which with -incoming URI is its start (migration/migration.c, qemu_start_incoming_migration).
_NOTHING_YET = frozenset({"", "none", "setup"})
#: Differences after which slots of one index are not the same thing.
_OTHER_MACHINE = frozenset({codes.ARCH, codes.MACHINE_TYPE, codes.TOPOLOGY})
_HAND_OVER = "have vcpuctl migrate prepare hand it over"
_START = "start the destination with what vcpuctl export says of the source"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same on both sides. ``slot`` is None where it concerns the whole machine.

    ``curable``: it can still be mended there, by ``migrate prepare``.
    """

    finding: Finding
    slot: int | None = None
    source: str = ""
    destination: str = ""
    curable: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a migration would meet. ``missing`` are the source's slots that the destination lacks, as they came."""

    differences: tuple[Difference, ...]
    missing: tuple[Place, ...] = ()

    @property
    def obstacles(self) -> tuple[Difference, ...]:
        """What would break it, or the VM."""
        return tuple(d for d in self.differences if d.finding.level is Level.PROBLEM)

    @property
    def incurable(self) -> tuple[Difference, ...]:
        """What would break it and cannot be mended while the destination runs."""
        return tuple(d for d in self.obstacles if not d.curable)


def compare(
    source: Shape, destination: HostView, queues: Mapping[str, tuple[int, ...]], recorded: Sequence[Intent] = ()
) -> Comparison:
    """Compare a VM with the QEMU that is to take it over, and the ``queues`` of that one's devices (Shape.queues).

    ``recorded`` is what that one's record says is pending, by an earlier hand-over.
    """
    there = Shape.of(destination, queues=queues)
    source = source.with_default_ids_of(there)
    machine = tuple(_machine(source, there))
    # Slots of two machines that are built differently have nothing to do with each other.
    comparable = not any(
        difference.finding.code in _OTHER_MACHINE and difference.finding.level is Level.PROBLEM
        for difference in machine
    )
    slots = tuple(_slots(source, there)) if comparable else ()
    comparable = comparable and all(difference.slot is not None for difference in slots)
    lacking = [
        here
        for here, other in zip(source.places, there.places, strict=False)
        if comparable and here.filled and not other.filled and _same(here, other)
    ]
    missing = tuple(sorted(lacking, key=lambda place: place.arrival))
    slots += tuple(_barred(destination, missing))
    trap = platform_for(destination).numbers_arrivals(destination)
    if comparable and trap is not None:
        slots += (*_order(source, there, missing), Difference(trap))
    return Comparison(
        (*_left(source), *_state(destination), *machine, *slots, *_pending(source.pending, recorded)), missing
    )


def _problem(
    code: str, text: str, fix: str, source: str, destination: str, *, slot: int | None = None, curable: bool = False
) -> Difference:
    return Difference(Finding(Level.PROBLEM, code, text, fix), slot, source, destination, curable)


def _left(source: Shape) -> Iterator[Difference]:
    if source.moving:
        text = f"the source does not have the VM for itself (it is {source.moving!r})"
        yield _problem(codes.MIGRATING, text, "wait for its end, and look where it runs", source.moving, "")


def _state(destination: HostView) -> Iterator[Difference]:
    if destination.status != WAITING:
        text = f"the destination does not wait for a VM (status: {destination.status})"
        fix = "start it with -incoming ..., and give its monitor's socket"
        yield _problem(codes.NOT_INCOMING, text, fix, "", destination.status)
    elif destination.migration not in _NOTHING_YET:
        text = f"a VM has begun to arrive there already (query-migrate: {destination.migration})"
        fix = "wait for its end; if it has failed, start the destination anew"
        yield _problem(codes.MIGRATING, text, fix, "", destination.migration)


def _machine(source: Shape, there: Shape) -> Iterator[Difference]:
    for code, word, here, other in (
        (codes.ARCH, "target", source.arch, there.arch),
        (codes.MACHINE_TYPE, "machine type", source.machine, there.machine),
    ):
        if here != other:
            text = f"the source's {word} is {here}, the destination's is {other}"
            yield _problem(code, text, f"start the destination with the source's {word} ({here})", here, other)
    yield from _topology(source, there)
    for kind in sorted({*source.queues, *there.queues}):
        mine, its = (_numbers(side.queues.get(kind, ())) for side in (source, there))
        if mine != its:
            text = f"the devices with {kind} have {mine} on the source and {its} on the destination"
            fix = (
                f"{_START}: they have a queue for each CPU of -smp, if -global does not say otherwise; where devices "
                "differ among themselves, give each its own on its -device"
            )
            yield _problem(codes.QUEUES, text, fix, mine, its)
    if source.vm_name and there.vm_name and source.vm_name != there.vm_name:
        text = f"the source is called {source.vm_name}, the destination {there.vm_name}: they may be two VMs"
        finding = Finding(
            Level.WARNING, codes.VM_NAME, text, "see whether this is the export, and the socket, that you mean"
        )
        yield Difference(finding, None, source.vm_name, there.vm_name)
    if source.accel != there.accel:
        text = f"the source runs by {source.accel}, the destination by {there.accel}: few CPU models survive that"
        finding = Finding(Level.WARNING, codes.ACCELERATOR, text, f"-accel {source.accel} on the destination")
        yield Difference(finding, None, source.accel, there.accel)
    if there.qemu_version < source.qemu_version:
        text = f"the destination's QEMU is older ({there.version_text}) than the source's ({source.version_text})"
        fix = "it works for machine types that both know; a newer one on the destination is what QEMU tests"
        yield Difference(
            Finding(Level.NOTE, codes.OLDER_QEMU, text, fix), None, source.version_text, there.version_text
        )


def _topology(source: Shape, there: Shape) -> Iterator[Difference]:
    if not source.topology or not there.topology:
        text = "only QEMU 6.1 or newer shows its -smp, and one of the two is older: that is not compared"
        finding = Finding(Level.WARNING, codes.TOPOLOGY, text, "compare the two command lines by hand")
        yield Difference(finding, None, source.version_text, there.version_text)
        return
    for name in sorted({*source.topology, *there.topology} - {"cpus"}):
        given, other_count = source.topology.get(name, 1), there.topology.get(name, 1)
        if given != other_count:
            text = f"-smp {name} is {given} on the source and {other_count} on the destination"
            yield _problem(codes.TOPOLOGY, text, _START, str(given), str(other_count))


def _slots(source: Shape, there: Shape) -> Iterator[Difference]:
    here_count, there_count = len(source.places), len(there.places)
    if here_count != there_count:
        text = f"the source has {here_count} slots, the destination {there_count}"
        yield _problem(codes.SLOTS, text, _START, str(here_count), str(there_count))
        return
    for here, other in zip(source.places, there.places, strict=True):
        yield from _slot(here, other)


def _slot(here: Place, other: Place) -> Iterator[Difference]:
    where = f"slot {here.index}"
    if not _same_type(here, other):
        text = f"{where} takes {here.type} on the source and {other.type} on the destination"
        yield _problem(
            codes.CPU_TYPE, text, "start the destination with the source's -cpu", here.type, other.type, slot=here.index
        )
    elif not _same(here, other):
        mine, its = _props(here), _props(other)
        text = f"{where} is {mine} on the source and {its} on the destination"
        yield _problem(codes.SLOT_PROPS, text, f"{_START}, and with its -numa", mine, its, slot=here.index)
    elif here.filled and not other.filled:
        text = f"{where} has a CPU on the source ({here.device_id or 'there at start'}) and none on the destination"
        fix = f"vcpuctl migrate prepare plugs it there, as {here.name}"
        yield _problem(codes.CPU_MISSING, text, fix, here.name, "empty", slot=here.index, curable=True)
    elif other.filled and not here.filled:
        text = (
            f"{where} is empty on the source and has a CPU on the destination ({other.device_id or 'there at start'})"
        )
        fix = f"no CPU can be taken from a VM that does not run: {_START}"
        yield _problem(codes.CPU_TOO_MANY, text, fix, "empty", other.device_id or "(boot)", slot=here.index)
    elif other.device_id not in (here.device_id, here.name):
        mine, its = here.device_id or "none", other.device_id or "none"
        text = f"the id of {where}'s CPU is {mine} on the source and {its} on the destination"
        fix = "vcpuctl goes by slots, other tools may go by ids: vcpuctl export keeps them"
        yield Difference(Finding(Level.NOTE, codes.DEVICE_ID, text, fix), here.index, mine, its)


def _barred(destination: HostView, missing: Sequence[Place]) -> Iterator[Difference]:
    """Yield what prepare would have to plug there, and is not to: QEMU would refuse it, or end of it."""
    platform = platform_for(destination)
    for place in missing:
        reason = cannot_fill(destination, destination.slots[place.index], platform, place.name)
        if reason is not None:
            text = f"the destination cannot have what is missing there: {reason.text}"
            yield _problem(reason.code, text, reason.hint, place.name, "empty", slot=place.index)
    limit = beyond_limit(destination, platform, sum(place.vcpus for place in missing))
    if limit is not None:
        yield _problem(limit.code, f"the destination {limit.text}", limit.hint, "", "")


def _order(source: Shape, there: Shape, missing: Sequence[Place]) -> Iterator[Difference]:
    """Yield that the CPUs came in another order at the destination than at the source.

    Where QEMU numbers CPUs as they come, those of the destination have to have come in the same order.
    """
    mine = [place.index for place in _arrived(source)]
    its = [place.index for place in [*_arrived(there), *missing]]
    if set(mine) == set(its) and mine != its:
        words = [" ".join(map(str, order)) for order in (mine, its)]
        text = f"the source's CPUs came in the order of slots {words[0]}, the destination's in that of {words[1]}"
        yield _problem(codes.CPU_ORDER, text, _START, *words)


def _arrived(shape: Shape) -> list[Place]:
    return sorted((place for place in shape.places if place.filled), key=lambda place: place.arrival)


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values)) or "none"


def _same_type(here: Place, other: Place) -> bool:
    """Return whether no type differs.

    Unless both show one, it says nothing: without hotplug there is none before 10.1 (CpuInfoFast, qom-type).
    """
    return not here.type or not other.type or here.type == other.type


def _same(here: Place, other: Place) -> bool:
    """Return whether the two are the same to a guest.

    Levels that one side alone shows say nothing, -smp being the same: s390x has got more of them in 8.2. A node that
    one side alone shows does: -smp has none.
    """
    both = here.props.keys() & other.props.keys()
    alone = here.props.keys() ^ other.props.keys()
    alike = "node-id" not in alone and all(here.props[name] == other.props[name] for name in both)
    return alike and _same_type(here, other) and here.vcpus == other.vcpus


def _props(place: Place) -> str:
    words = [f"{name}={value}" for name, value in sorted(place.props.items())]
    return ",".join([*words, f"{place.vcpus} vCPUs"] if place.vcpus > 1 else words)


def _pending(intents: Sequence[Intent], recorded: Sequence[Intent]) -> Iterator[Difference]:
    here = {(intent.kind, intent.slot) for intent in intents}
    there = {(intent.kind, intent.slot) for intent in recorded}
    for intent in intents:
        text = f"the {intent.kind} of slot {intent.slot} has not come to its end: it may do so in mid-migration"
        after = "go on with it on the destination" if (intent.kind, intent.slot) in there else _HAND_OVER
        fix = f"run the command again and have it settled before; or {after}"
        yield Difference(Finding(Level.WARNING, codes.PENDING, text, fix), intent.slot, str(intent.kind))
    for kind, slot in sorted(there - here):
        # Taken for open there, a removal would be seen to its end: of a CPU that nobody wants to lose.
        text = f"the {kind} of slot {slot}, which was handed over before, is pending at the source no more"
        fix = "vcpuctl migrate prepare once more: it hands over what is pending now"
        yield _problem(codes.STALE_RECORD, text, fix, "", str(kind), slot=slot, curable=True)


def take_over(intents: Iterable[Intent], destination: HostView) -> tuple[Intent, ...]:
    """Return what is pending at the source, as it concerns the destination: its ids and host threads are others."""
    taken = []
    for intent in intents:
        slot = destination.slots[intent.slot]
        if slot.filled:
            target = slot.handle or intent.device_id
            threads = tuple(thread.thread_id for thread in slot.threads) if intent.threads else ()
            taken.append(intent._replace(device_id=target, threads=threads))
    return tuple(taken)
