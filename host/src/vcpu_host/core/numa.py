# SPDX-License-Identifier: Apache-2.0
"""Which NUMA node each slot is to be of: from a map that somebody wrote, or by a policy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from . import codes
from .model import PropValue, Slot
from .planning.placement import Placement, cores
from .planning.selectors import select
from .reason import Origin, Reason

#: MAX_NODES (include/system/numa.h). QEMU looks a node up in a table of so many without a check of its own.
MOST_NODES = 128

NODE = "node-id"


class MapError(ValueError):
    """A map that is not one; its text is for people."""


class Wish(Protocol):
    """Which node each slot is to be of."""

    def candidates(self, slots: Sequence[Slot]) -> Collection[int]:
        """Return the nodes of which it has to be known whether QEMU has them. Raise what ``choose`` raises.

        Only what depends on the nodes that there are is left to find out after this.
        """

    def choose(self, slots: Sequence[Slot], nodes: Sequence[int]) -> dict[int, int]:
        """Return the node by slot, where of the candidates there are these ``nodes``; empty if none is to choose."""


@dataclass(frozen=True, slots=True)
class ByMap:
    """As somebody wrote it down (``from_map``)."""

    document: Mapping[str, Any]

    def candidates(self, slots: Sequence[Slot]) -> Collection[int]:
        """Return the nodes of the map."""
        return set(from_map(self.document, slots).values())

    def choose(self, slots: Sequence[Slot], nodes: Sequence[int]) -> dict[int, int]:
        """Return the map, whether there are its nodes or not."""
        return from_map(self.document, slots)


@dataclass(frozen=True, slots=True)
class ByPolicy:
    """Over all nodes alike (``by_policy``)."""

    policy: Placement

    def candidates(self, slots: Sequence[Slot]) -> Collection[int]:
        """Return all that there may be."""
        return range(MOST_NODES)

    def choose(self, slots: Sequence[Slot], nodes: Sequence[int]) -> dict[int, int]:
        """Return the node by slot, by the policy."""
        return by_policy(slots, nodes, self.policy) if nodes else {}


def from_map(document: Mapping[str, Any], slots: Sequence[Slot]) -> dict[int, int]:
    """Return the node by slot, from lists of slot selectors by node.

    Such lists are ``{"0": ["socket-id=0"], "1": [4, "socket-id=1"]}``. Raise MapError if a slot is given to no node,
    or to two; SelectorError for selectors that name nothing.
    """
    nodes: dict[int, int] = {}
    for name, selectors in document.items():
        node = _node(name)
        if not isinstance(selectors, list) or any(type(entry) not in (str, int) for entry in selectors):
            raise MapError(f"node {name}: a list of slots was expected, such as [0, 1] or ['socket-id=0']")
        for slot in select(slots, [str(entry) for entry in selectors]):
            if slot.index in nodes:
                raise MapError(f"slot {slot.index} is given twice: to node {nodes[slot.index]} and to node {node}")
            nodes[slot.index] = node
    missing = [slot.index for slot in slots if slot.index not in nodes]
    if missing:
        few = ", ".join(map(str, missing[:8])) + (" ..." if len(missing) > 8 else "")
        raise MapError(f"{len(missing)} of {len(slots)} slots are given to no node: {few}")
    return nodes


def _node(name: str) -> int:
    if not (name.isascii() and name.isdigit() and len(name) <= 3 and int(name) < MOST_NODES):
        raise MapError(f"{name!r} is no number of a node: those are 0 to {MOST_NODES - 1}")
    return int(name)


def by_policy(slots: Sequence[Slot], nodes: Sequence[int], policy: Placement) -> dict[int, int]:
    """Return the node by slot: whole cores, to each of the ``nodes`` as many as to the others.

    PACK gives neighbours the same node, and so whole sockets where the numbers allow it; SPREAD deals cores in turn.
    """
    units = cores(slots)
    found: dict[int, int] = {}
    for place, unit in enumerate(units):
        turn = place % len(nodes) if policy is Placement.SPREAD else place * len(nodes) // len(units)
        found |= {slot.index: nodes[turn] for slot in unit}
    return found


def obstacle(slots: Sequence[Slot], wanted: Mapping[int, int], nodes: Collection[int]) -> Reason | None:
    """Return why this QEMU, which has these ``nodes``, cannot give the slots what is ``wanted``; None if it can."""
    lacking = sorted(set(wanted.values()) - set(nodes))
    if lacking:
        return Reason(
            codes.NO_SUCH_NODE,
            Origin.QEMU,
            f"QEMU was started without node {', '.join(map(str, lacking))}",
            "-object memory-backend-ram,id=mN,size=... -numa node,nodeid=N,memdev=mN makes one, at QEMU's start",
        )
    for slot in slots:
        if slot.node is not None and slot.node != wanted[slot.index]:
            text = f"slot {slot.index} was given to node {slot.node} before, and is to be of node {wanted[slot.index]}"
            return Reason(codes.NODE_SET, Origin.QEMU, text, "QEMU does not change it any more: start it anew")
    return None


def differing(slots: Sequence[Slot], wanted: Mapping[int, int]) -> list[int]:
    """Return the slots that are of another node than is wanted."""
    return [slot.index for slot in slots if slot.node != wanted.get(slot.index)]


def assignment(slot: Slot, node: int) -> dict[str, PropValue]:
    """Return the props of the slot with a node: what QEMU is told. They go back verbatim, known to us or not."""
    return {NODE: node, **{name: value for name, value in slot.props.items() if name != NODE}}


def lines(slots: Sequence[Slot], wanted: Mapping[int, int]) -> list[str]:
    """Return the arguments that give the slots these nodes when QEMU is started, an option a line."""
    told = [assignment(slot, wanted[slot.index]) for slot in slots]
    return [f"-numa cpu,{','.join(f'{name}={value}' for name, value in each.items())}" for each in told]
