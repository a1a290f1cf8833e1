# SPDX-License-Identifier: Apache-2.0
"""Gives the slots of a QEMU that was started with --preconfig their NUMA nodes, and has it go on.

Nothing is taken for granted: whether the commands are there, whether the machine is still to be made, which nodes there
are. What cannot work is refused before anything is set, with the arguments that do the same at QEMU's next start.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from .. import ports
from ..core import codes, numa
from ..core.model import Slot
from ..core.reason import Origin, Outcome, Reason
from ..errors import QemuError

#: The commands that it takes. The last is the only unstable one that vcpuctl sends, and only here.
SET, LEAVE = "set-numa-node", "x-exit-preconfig"


@dataclass(frozen=True, slots=True)
class Assigned:
    """How it ended. ``nodes`` is what was wanted, node by slot; empty if there was no node to choose."""

    outcome: Outcome
    slots: tuple[Slot, ...]
    nodes: Mapping[int, int] = field(default_factory=dict)
    reason: Reason | None = None
    dry_run: bool = False

    @property
    def lines(self) -> list[str]:
        """The arguments of QEMU that give every slot its node."""
        return numa.lines(self.slots, self.nodes) if self.nodes else []

    @property
    def what(self) -> str:
        """What there is to add to the outcome, in words."""
        if self.reason is not None:
            return ""
        return " (nothing was set)" if self.dry_run else " (QEMU shows it so, and has left preconfig)"


async def assign(qemu: ports.Preconfig, wish: numa.Wish, *, dry_run: bool = False) -> Assigned:
    """Have each slot given the node that is wished for, leave preconfig, and see whether it is so.

    What is wrong in the wish itself is found before QEMU is asked for anything but what it has. Raise what the wish
    raises, RefusedError for a QEMU that is too old, QemuError for a machine without slots, QemuGoneError if QEMU ends
    on the way: it does so by itself when the machine cannot be made.
    """
    commands = await qemu.commands()
    slots = await qemu.slots()
    waits = await qemu.waits()
    candidates = wish.candidates(slots)
    if waits and SET in commands:
        nodes = await qemu.nodes(slots, candidates)
    else:
        nodes = tuple(sorted({slot.node for slot in slots if slot.node is not None}))
    wanted = wish.choose(slots, nodes)
    reason = _cannot(commands, _next(wanted, nodes), waits=waits) or (
        numa.obstacle(slots, wanted, nodes) if wanted else _NO_NODES
    )
    if reason is not None or dry_run:
        return Assigned(Outcome.REFUSED if reason else Outcome.DONE, slots, wanted, reason, dry_run)
    for done, index in enumerate(numa.differing(slots, wanted)):
        try:
            await qemu.set_node(slots[index], wanted[index])
        except QemuError as error:
            return Assigned(Outcome.FAILED if done else Outcome.REFUSED, slots, wanted, _stuck(index, error.reason))
    await qemu.leave()
    slots = await qemu.slots()
    wrong = numa.differing(slots, wanted)
    if wrong:
        text = f"QEMU has made the machine, and shows slots {', '.join(map(str, wrong[:8]))} on other nodes"
        return Assigned(Outcome.FAILED, slots, wanted, Reason(codes.NODE_DIFFERS, Origin.QEMU, text, _NEXT))
    return Assigned(Outcome.DONE, slots, wanted)


#: What makes a node; ``lines`` are what places slots on one.
_NODE_ARGUMENTS = "-object memory-backend-ram,id=mN,size=... -numa node,nodeid=N,memdev=mN"
_NEXT = "start QEMU anew with these arguments, which do the same without --preconfig:"
_NO_NODES = Reason(
    codes.NO_NODES,
    Origin.QEMU,
    "QEMU was started without NUMA nodes",
    f"{_NODE_ARGUMENTS} for each node, at QEMU's start",
)


def _next(wanted: Mapping[int, int], nodes: Collection[int]) -> str:
    """Return what to start QEMU with, so that it does what this one cannot.

    It ends in a colon where ``lines`` follow.
    """
    if not wanted:
        return f"start QEMU anew with nodes ({_NODE_ARGUMENTS} for each); give --map FILE to see what places the slots"
    lacking = sorted(set(wanted.values()) - set(nodes))
    if not lacking:
        return _NEXT
    names = ", ".join(map(str, lacking))
    return f"start QEMU anew, with node {names} ({_NODE_ARGUMENTS}) and with these arguments, without --preconfig:"


def _cannot(commands: frozenset[str], hint: str, *, waits: bool) -> Reason | None:
    """Return why this QEMU takes no nodes at run time."""
    lacking = [name for name in (SET, LEAVE) if name not in commands]
    if lacking:
        return Reason(codes.NO_PRECONFIG, Origin.QEMU, f"this QEMU has no {' and no '.join(lacking)}", hint)
    if not waits:
        text = "the machine has been made: nodes can be set only before, in a QEMU that was started with --preconfig"
        return Reason(codes.MACHINE_MADE, Origin.QEMU, text, hint)
    return None


def _stuck(index: int, reason: Reason) -> Reason:
    text = f"slot {index}: {reason.text}; QEMU still waits in preconfig"
    return Reason(reason.code, reason.who, text, _NEXT, reason.errno)
