# SPDX-License-Identifier: Apache-2.0
"""Who in the guest would be hurt if CPUs went. The rule is one for all: whose *last* online CPU goes loses something.

What the kernel does then, and what comes back, was run on Linux 6.1, 6.12 and 7.2 (docs/workloads.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import or_

from .. import codes
from ..finding import Level
from . import cpus
from .model import Cpuset, Note, Threads, Who, Workload

#: The most notes of one kind; what is left out is counted. And the most names of one note.
MOST, NAMES = 16, 8
#: The slot of a guest CPU, by the CPU's number.
SlotOf = Mapping[int, int]

_PINNED_FIX = (
    "pin them to other CPUs first (taskset -p), or choose other slots: whoever wakes up meanwhile runs on all CPUs "
    "afterwards, and nobody puts the mask back (keep_affinity in vcpud.conf does)"
)
_PARTITION_FIX = (
    "take the partition apart first, or leave it a CPU: its isolation is lost while it has none, and Linux 6.12 and "
    "newer let other tasks in when its CPUs are back"
)
_CPUSET_FIX = "leave it a CPU, or expect its processes on all CPUs of its parent until one is back"
_UNIT_FIX = "change CPUAffinity= first; else its next start fails with status 215/CPUAFFINITY while the CPUs are away"
_FORGOTTEN_FIX = (
    "set the masks again afterwards (a hook, or keep_affinity in vcpud.conf); Linux 6.2 and newer keep them"
)


def to_be_spared(workload: Workload, gone: int, order: Sequence[Sequence[int]]) -> set[int]:
    """Return the places in ``order`` where somebody loses the last CPU if the others go, one place after another.

    Each place has the numbers of CPUs that go together, after those that are ``gone`` in any case. No CPU is in two
    places, and who has CPUs beside all of these loses nothing.

    Somebody's last CPU can go at one place alone, the last one in the order that has any of them. That one is looked
    for by halves, and judged once. No set is ever taken apart into numbers. For a guest that lies names thousands of
    sets of all the CPUs that a kernel can have, and the other VMs of a service wait meanwhile.
    """
    may_go = cpus.of(number for each in order for number in each)
    most = gone | may_go
    sets = [mask for mask in _masks(workload) if mask & may_go and mask & most == mask]
    judged = dict(_by_last(sets, order, 0))
    spared: set[int] = set()
    for place, each in enumerate(order):
        going = gone | cpus.of(each)
        if any(mask & going == mask for mask in judged.get(place, ())):
            spared.add(place)
        else:
            gone = going
    return spared


def _by_last(sets: Sequence[int], order: Sequence[Sequence[int]], first: int) -> Iterator[tuple[int, Sequence[int]]]:
    """Yield the places that are the last ones of some of these sets, with these. ``first`` is the place of order[0]."""
    if not sets:
        return
    if len(order) == 1:
        yield first, sets
        return
    half = len(order) // 2
    later = cpus.of(number for each in order[half:] for number in each)
    parts: tuple[list[int], list[int]] = ([], [])
    for mask in sets:
        parts[bool(mask & later)].append(mask)
    yield from _by_last(parts[0], order[:half], first)
    yield from _by_last(parts[1], order[half:], first + half)


def _masks(workload: Workload) -> Iterator[int]:
    yield from (pinned.cpus for pinned in workload.pinned)
    yield from (found for each in workload.cpusets if each.populated and (found := _loses(each, workload.online)))
    yield from (found for each in workload.units if (found := each.cpus & workload.online))


def _loses(cpuset: Cpuset, online: int) -> int:
    """Return the CPUs whose going leaves this cpuset none, 0 if it has none now."""
    return 0 if cpuset.is_invalid else cpuset.own(online)


def hurt(workload: Workload, going: int, slot_of: SlotOf) -> tuple[Note, ...]:
    """Return who would be hurt if the CPUs ``going`` went, all of them."""
    if not going:
        return ()
    return (
        *_pinned(workload, going, slot_of),
        *_cpusets(workload, going, slot_of),
        *_units(workload, going, slot_of),
        *_deadline(workload),
    )


def forgotten(workload: Workload) -> tuple[Note, ...]:
    """Return whose mask the kernel forgets at any change of CPUs, up or down."""
    threads = workload.forgotten
    if not threads.count:
        return ()
    text = (
        f"this guest's kernel forgets the masks of {_many(threads.count, 'thread')} in cpusets at any change of CPUs: "
        f"{_names(threads)}"
    )
    return (Note(Level.WARNING, codes.MASKS_FORGOTTEN, text, _FORGOTTEN_FIX, (), threads.count, threads.some[:NAMES]),)


def _pinned(workload: Workload, going: int, slot_of: SlotOf) -> Iterator[Note]:
    found = [each for each in workload.pinned if each.cpus and not each.cpus & ~going]
    found.sort(key=lambda each: -each.threads.count)
    for each in found[:MOST]:
        verb = "is" if each.threads.count == 1 else "are"
        text = (
            f"{_many(each.threads.count, 'thread')} {verb} pinned to {cpus.named(each.cpus)} alone: "
            f"{_names(each.threads)}"
        )
        yield _note(codes.PINNED_THREADS, text, _PINNED_FIX, each.cpus, slot_of, each.threads)
    rest = found[MOST:]
    if rest:
        count, union = sum(each.threads.count for each in rest), reduce(or_, (each.cpus for each in rest))
        text = f"{_many(count, 'more thread')} are pinned to {len(rest)} other sets of CPUs that go"
        yield _note(codes.PINNED_THREADS, text, _PINNED_FIX, union, slot_of, Threads(count))


def _cpusets(workload: Workload, going: int, slot_of: SlotOf) -> Iterator[Note]:
    found = [
        (each, own)
        for each in workload.cpusets
        if each.populated and (own := _loses(each, workload.online)) and not own & ~going
    ]
    for each, own in found[:MOST]:
        who = Threads(1, (Who(cgroup=each.cgroup),))
        if each.is_partition:
            text = (
                f"the {each.partition} partition {each.cgroup} loses its last CPU, {cpus.text(own)}, with tasks in it"
            )
            yield _note(codes.PARTITION_EMPTIED, text, _PARTITION_FIX, own, slot_of, who)
        else:
            text = f"all CPUs of the cpuset {each.cgroup} go ({cpus.text(own)}): its tasks get those of its parent"
            yield _note(codes.CPUSET_FALLS_BACK, text, _CPUSET_FIX, own, slot_of, who)
    if len(found) > MOST:
        count = len(found) - MOST
        yield Note(
            Level.WARNING, codes.CPUSET_FALLS_BACK, f"{count} more cpusets lose all CPUs", _CPUSET_FIX, (), count
        )


def _units(workload: Workload, going: int, slot_of: SlotOf) -> Iterator[Note]:
    found = [(each, own) for each in workload.units if (own := each.cpus & workload.online) and not own & ~going]
    for each, own in found[:MOST]:
        state = "runs, and cannot be restarted" if each.active else "cannot be started"
        text = f"{each.name} {state} without {cpus.named(own)}: CPUAffinity={cpus.text(each.cpus)}"
        yield _note(codes.UNIT_AFFINITY, text, _UNIT_FIX, own, slot_of, Threads(1, (Who(unit=each.name),)))
    if len(found) > MOST:
        count = len(found) - MOST
        yield Note(Level.WARNING, codes.UNIT_AFFINITY, f"{count} more units cannot be started", _UNIT_FIX, (), count)


def _deadline(workload: Workload) -> Iterator[Note]:
    threads = workload.deadline
    if threads.count:
        text = f"{_many(threads.count, 'thread')} under SCHED_DEADLINE reserve CPU time: {_names(threads)}"
        hint = "the guest's kernel refuses by itself (EBUSY) if the remaining CPUs cannot carry it"
        yield Note(Level.NOTE, codes.DEADLINE_THREADS, text, hint, (), threads.count, threads.some[:NAMES])


def _note(code: str, text: str, fix: str, mask: int, slot_of: SlotOf, who: Threads) -> Note:
    slots = sorted({slot_of[number] for number in cpus.numbers(mask) if number in slot_of})
    return Note(Level.WARNING, code, text, fix, tuple(slots), who.count, who.some[:NAMES])


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _names(threads: Threads) -> str:
    shown: Sequence[str] = [str(who) for who in threads.some[:4]]
    return ", ".join(shown) + (", ..." if threads.count > len(shown) else "")
