# SPDX-License-Identifier: Apache-2.0
"""Where in the machine a number of vCPUs goes, or is taken from: slots in the order in which they are chosen.

Slots are the leaves of a tree: nodes over drawers, books, sockets, dies, clusters, modules and cores, as far as the
slots' props tell them apart; any other prop says nothing here. What is dealt out are *units*: the threads of one core,
which are filled and emptied together, or a slot where slots are no threads (docs/adr/0017-placement.md).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from ..model import LEVELS, Slot

*_LEVELS, _THREAD = LEVELS


class Placement(StrEnum):
    """In which order a number of vCPUs takes slots; which of them it takes is ``by_count``."""

    LOWEST = "lowest"  # the lowest empty ones, the highest removable ones
    PACK = "pack"  # those that leave the fewest nodes, sockets ... cores in use
    SPREAD = "spread"  # those that leave as many vCPUs on one node, socket ... core as on another


class Choice(NamedTuple):
    """A slot, and why it comes at this place."""

    slot: int
    why: str


@dataclass(slots=True)
class _Group:
    """Slots that share their props down to ``level``; without children it is a unit. ``rank`` is its lowest index.

    ``used`` and ``open`` count vCPUs: those that are there, and those that can be chosen.
    """

    level: str
    value: object
    rank: int
    slots: list[Slot]
    children: list[_Group] = field(default_factory=list)
    used: int = 0
    open: int = 0

    @property
    def name(self) -> str:
        return f"what has no {self.level}" if self.value is None else f"{self.level} {self.value}"

    def units(self) -> list[_Group]:
        return [unit for child in self.children for unit in child.units()] or [self]

    def count(self, used: Collection[int], choices: Collection[int]) -> None:
        for child in self.children:
            child.count(used, choices)
        self.used = self.open = 0
        for child in self.children:
            self.used += child.used
            self.open += child.open
        for slot in () if self.children else self.slots:
            self.used += slot.vcpus * (slot.index in used)
            self.open += slot.vcpus * (slot.index in choices)


class _Way(NamedTuple):
    """One policy in one direction. ``sign`` is +1 for plug, -1 for unplug. ``first`` and ``begun`` say why a unit."""

    sign: int
    order: Callable[[_Group], Sequence[_Group]]
    first: str
    begun: str = ""


def to_plug(slots: Iterable[Slot], used: Collection[int], empty: Collection[int], placement: Placement) -> list[Choice]:
    """Return the slots ``empty``, by index, the first to be plugged first.

    ``used`` are those that have CPUs and keep them. ``slots`` are all that the machine has, in any order.
    """
    if placement is Placement.LOWEST:
        return [Choice(index, "lowest empty slot") for index in sorted(empty)]
    return _chosen(slots, frozenset(used), frozenset(empty), _UP[placement])


def to_unplug(
    slots: Iterable[Slot], used: Collection[int], removable: Collection[int], placement: Placement
) -> list[Choice]:
    """Return the slots ``removable``, by index, the first to go first.

    ``used`` are those that have CPUs, with these. ``slots`` are all that the machine has, in any order.
    """
    if placement is Placement.LOWEST:
        return [Choice(index, "highest removable slot") for index in sorted(removable, reverse=True)]
    return _chosen(slots, frozenset(used), frozenset(removable), _DOWN[placement])


def cores(slots: Iterable[Slot]) -> list[list[Slot]]:
    """Return the slots by the core that they are threads of, in slot order, whatever their node."""
    return [unit.slots for unit in _tree(_in_order(slots), "machine", "", _LEVELS[1:]).units()]


def _in_order(slots: Iterable[Slot]) -> list[Slot]:
    return sorted(slots, key=lambda slot: slot.index)


def _chosen(slots: Iterable[Slot], used: frozenset[int], choices: frozenset[int], way: _Way) -> list[Choice]:
    tree = _tree(_in_order(slots), "machine", "", _LEVELS)
    begun = _begun(tree, used, choices) if way.begun else frozenset()
    chosen: list[Choice] = []
    if begun:
        tree.count(used, begun)
        chosen = [Choice(index, way.begun) for unit in way.order(tree) for index in _of(unit, begun, way)]
        used, choices = (used | begun if way.sign > 0 else used - begun), choices - begun
    tree.count(used, choices)
    top = _where_they_part(tree)
    why: dict[int, str] = {}
    for child in top.children:
        why |= dict.fromkeys((u.rank for u in child.units()), way.first.format(level=child.level, name=child.name))
    for unit in way.order(tree):
        first, *rest = _of(unit, choices, way)
        chosen.append(Choice(first, why.get(unit.rank, "nothing else is left")))
        chosen += [Choice(index, "the rest of the same core") for index in rest]
    return chosen


def _of(unit: _Group, choices: frozenset[int], way: _Way) -> list[int]:
    return [slot.index for slot in unit.slots if slot.index in choices][:: way.sign]


def _tree(slots: list[Slot], level: str, value: object, levels: Sequence[str]) -> _Group:
    """Return the tree of these slots, which are in slot order. A level at which there is no choice is left out."""
    group = _Group(level, value, slots[0].index if slots else 0, slots)
    for depth, name in enumerate(levels, 1):
        parts: dict[object, list[Slot]] = {}
        prop = f"{name}-id"
        for slot in slots:
            parts.setdefault(slot.props.get(prop), []).append(slot)
        if len(parts) > 1:
            group.children = [_tree(part, name, value, levels[depth:]) for value, part in parts.items()]
            return group
    if len(slots) > 1 and not all(f"{_THREAD}-id" in slot.props for slot in slots):
        group.children = [_Group("slot", slot.index, slot.index, [slot]) for slot in slots]
    return group


def _begun(tree: _Group, used: frozenset[int], choices: frozenset[int]) -> frozenset[int]:
    """Return the choices in units that have a CPU and lack one."""
    found: set[int] = set()
    for unit in tree.units():
        there = [slot.index in used for slot in unit.slots]
        if any(there) and not all(there):
            found |= {slot.index for slot in unit.slots} & choices
    return frozenset(found)


def _where_they_part(tree: _Group) -> _Group:
    """Return the outermost group in which there is a choice."""
    while len(ways := [child for child in tree.children if child.open]) == 1:
        tree = ways[0]
    return tree


def _dealt(group: _Group, sign: int) -> list[_Group]:
    """Return its open units, each from where there are the fewest vCPUs at that moment; with ``sign`` -1 the most.

    What happens inside one child does not depend on the others: so each child's units are put in order for themselves,
    and then merged by how many vCPUs the child has when the turn comes to them.
    """
    if not group.children:
        return [group] if group.open else []
    turns: list[tuple[int, int, _Group]] = []
    for child in group.children:
        count = child.used
        for unit in _dealt(child, sign) if child.open else ():
            turns.append((sign * count, sign * child.rank, unit))
            count += sign * unit.open
    turns.sort()  # no two are alike in their first two fields
    return [unit for _, _, unit in turns]


def _in_turn(group: _Group, key: Callable[[_Group], tuple[int, ...]]) -> list[_Group]:
    """Return its open units, one child after another."""
    if not group.children:
        return [group] if group.open else []
    children = sorted((child for child in group.children if child.open), key=key)
    return [unit for child in children for unit in _in_turn(child, key)]


def _fullest(group: _Group) -> tuple[int, ...]:
    """Return what is in use and has the most vCPUs; of what is not in use, what takes the most."""
    return (not group.used, -group.used, -group.open, group.rank)


def _emptiest(group: _Group) -> tuple[int, ...]:
    """Return what can be emptied and has the fewest vCPUs; then what cannot be emptied."""
    return (group.open < group.used, group.used, -group.rank)


_UP = {
    Placement.PACK: _Way(
        1, lambda tree: _in_turn(tree, _fullest), "pack: of the {level}s with room, {name} comes first as the fullest"
    ),
    Placement.SPREAD: _Way(
        1,
        lambda tree: _dealt(tree, 1),
        "spread: of the {level}s with room, {name} has the fewest vCPUs",
        "spread: its core has threads already, and is completed first",
    ),
}
_DOWN = {
    Placement.PACK: _Way(
        -1, lambda tree: _in_turn(tree, _emptiest), "pack: of the {level}s with CPUs to give, {name} is emptied first"
    ),
    Placement.SPREAD: _Way(
        -1,
        lambda tree: _dealt(tree, -1),
        "spread: of the {level}s with CPUs to give, {name} has the most",
        "spread: its core is not whole, and is emptied first",
    ),
}
