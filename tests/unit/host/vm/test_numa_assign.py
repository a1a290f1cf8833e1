# SPDX-License-Identifier: Apache-2.0
"""The assignment's procedure, on a QEMU that is a few fields."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from kit.sim.views import slot
from vcpu_host import documents
from vcpu_host.core.model import Slot
from vcpu_host.core.numa import ByMap, ByPolicy, Wish
from vcpu_host.core.planning.placement import Placement
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.errors import QemuError
from vcpu_host.vm.numa_assign import LEAVE, SET, Assigned, assign

_WANTED = {0: 0, 1: 0, 2: 1, 3: 1}


@dataclass
class Qemu:
    """Four slots. ``stubborn``: the slot that it takes no node for; ``wrong``: what it then shows another node for."""

    names: frozenset[str] = frozenset({SET, LEAVE})
    made: bool = False
    stubborn: int | None = None
    wrong: int | None = None
    given: dict[int, int] = field(default_factory=dict)
    there: tuple[int, ...] = (0, 1)

    async def commands(self) -> frozenset[str]:
        return self.names

    async def waits(self) -> bool:
        return not self.made

    async def slots(self) -> tuple[Slot, ...]:
        shown = {**self.given, **({self.wrong: 9} if self.made and self.wrong is not None else {})}
        return tuple(slot(i, filled=False, props=self._props(i, shown)) for i in range(4))

    @staticmethod
    def _props(index: int, nodes: Mapping[int, int]) -> dict[str, int | str | bool]:
        return {"core-id": index, **({"node-id": nodes[index]} if index in nodes else {})}

    async def nodes(self, slots: Sequence[Slot], candidates: Collection[int]) -> tuple[int, ...]:
        return tuple(node for node in self.there if slots and node in candidates)

    async def set_node(self, slot: Slot, node: int) -> None:
        if slot.index == self.stubborn:
            raise QemuError(Reason("qemu-error", Origin.QEMU, "no such luck"))
        self.given[slot.index] = node

    async def leave(self) -> None:
        self.made = True


async def _assign(qemu: Qemu, *, dry_run: bool = False) -> Assigned:
    return await assign(qemu, ByMap({"0": [0, 1], "1": [2, 3]}), dry_run=dry_run)


def _code(assigned: Assigned) -> str | None:
    return assigned.reason.code if assigned.reason else None


async def test_it_sets_what_is_not_so_yet_leaves_preconfig_and_looks_again() -> None:
    qemu = Qemu(given={0: 0})
    assigned = await _assign(qemu)
    assert (assigned.outcome, _code(assigned)) == (Outcome.DONE, None)
    assert qemu.given == _WANTED
    assert qemu.made
    assert [s.node for s in assigned.slots] == [0, 0, 1, 1]


@pytest.mark.parametrize(("stubborn", "outcome"), [(0, Outcome.REFUSED), (2, Outcome.FAILED)])
async def test_when_qemu_refuses_a_slot_the_machine_is_not_made(stubborn: int, outcome: Outcome) -> None:
    qemu = Qemu(stubborn=stubborn)
    assigned = await _assign(qemu)
    assert (assigned.outcome, _code(assigned)) == (outcome, "qemu-error")
    assert assigned.reason is not None
    assert f"slot {stubborn}: no such luck" in assigned.reason.text
    assert not qemu.made
    assert len(assigned.lines) == 4


async def test_a_machine_that_shows_another_node_afterwards_is_no_success() -> None:
    assigned = await _assign(Qemu(wrong=3))
    assert (assigned.outcome, _code(assigned)) == (Outcome.FAILED, "node-differs")
    assert assigned.reason is not None
    assert "slots 3 on" in assigned.reason.text


@pytest.mark.parametrize("lacking", [SET, LEAVE])
async def test_a_qemu_without_a_command_is_refused_with_the_arguments_that_do_the_same(lacking: str) -> None:
    qemu = Qemu(names=frozenset({SET, LEAVE} - {lacking}))
    assigned = await _assign(qemu)
    assert (assigned.outcome, _code(assigned)) == (Outcome.REFUSED, "no-preconfig")
    assert assigned.lines[3] == "-numa cpu,node-id=1,core-id=3"
    assert (qemu.given, qemu.made) == ({}, False)


@pytest.mark.parametrize("wish", [ByMap({"0": [0, 1], "1": [2, 3]}), ByPolicy(Placement.PACK)])
@pytest.mark.parametrize("there", [(), (0,), (0, 1)])
@pytest.mark.parametrize("names", [{SET, LEAVE}, {SET}, set()])
@pytest.mark.parametrize(("made", "stubborn"), [(True, None), (False, None), (False, 0)])
async def test_arguments_are_promised_where_they_are_told_and_nowhere_else(
    wish: Wish, there: tuple[int, ...], names: set[str], made: bool, stubborn: int | None
) -> None:
    given = {0: there[0]} if made and there else {}
    assigned = await assign(Qemu(frozenset(names), made=made, stubborn=stubborn, there=there, given=given), wish)
    document = documents.of_assigned(assigned)
    if assigned.reason is not None and assigned.reason.hint.endswith(":"):
        assert "these arguments" in assigned.reason.hint
        assert len(document["arguments"]) == 2 * len(assigned.lines) == 8
    elif assigned.reason is not None:
        assert "these arguments" not in assigned.reason.hint
        assert "-numa node" in assigned.reason.hint


async def test_what_a_machine_lacks_beside_the_arguments_is_said_with_them() -> None:
    reason = (await _assign(Qemu(made=True, given={0: 0}))).reason
    assert reason is not None
    assert "with node 1 (-object" in reason.hint
    assert "-numa node,nodeid=N" in reason.hint


async def test_a_dry_run_sets_nothing_and_refuses_what_would_be_refused() -> None:
    qemu = Qemu()
    assert (await _assign(qemu, dry_run=True)).outcome is Outcome.DONE
    assert (qemu.given, qemu.made) == ({}, False)
    assert _code(await _assign(Qemu(there=(0,)), dry_run=True)) == "no-such-node"
