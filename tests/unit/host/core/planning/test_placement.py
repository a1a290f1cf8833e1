# SPDX-License-Identifier: Apache-2.0
"""Where vCPUs go: held against plain statements, and against the same thing done slowly."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.sim.effort import growth
from kit.sim.views import slot
from vcpu_host.core.model import PropValue, Slot
from vcpu_host.core.planning.placement import Choice, Placement, to_plug, to_unplug

LEVELS = ("node-id", "drawer-id", "book-id", "socket-id", "die-id", "cluster-id", "module-id", "core-id")
#: A busy machine may take its time for any one of them.
_SOME = settings(max_examples=60, deadline=None)

POLICIES = [Placement.PACK, Placement.SPREAD]


@dataclass(frozen=True)
class Machine:
    """All slots in slot order, and which of them have CPUs."""

    slots: tuple[Slot, ...]
    used: frozenset[int]

    @property
    def empty(self) -> frozenset[int]:
        return frozenset(range(len(self.slots))) - self.used

    @property
    def removable(self) -> frozenset[int]:
        """The boot CPU stays."""
        return self.used - {0}

    def plugged(self, count: int, policy: Placement) -> Machine:
        chosen = to_plug(self.slots, self.used, self.empty, policy)[:count]
        return Machine(self.slots, self.used | {choice.slot for choice in chosen})

    def unplugged(self, count: int, policy: Placement) -> Machine:
        chosen = to_unplug(self.slots, self.used, self.removable, policy)[:count]
        return Machine(self.slots, self.used - {choice.slot for choice in chosen})

    def vcpus(self, level: str, indices: Collection[int] | None = None) -> Counter[PropValue | None]:
        """How many there are in each group of that level, also where there are none."""
        counts = Counter({s.props.get(level): 0 for s in self.slots})
        for s in self.slots:
            counts[s.props.get(level)] += s.vcpus * (s.index in (self.used if indices is None else indices))
        return counts

    def room(self) -> Counter[PropValue | None]:
        return self.vcpus("node-id", self.empty)

    def unit(self, index: int) -> tuple[object, ...]:
        """What tells the slot's core from the others."""
        return _core(self.slots[index])

    @property
    def threads(self) -> int:
        """How many slots a core has."""
        return Counter(self.unit(s.index) for s in self.slots).most_common(1)[0][1]

    def halves(self) -> set[tuple[object, ...]]:
        """The cores that have a thread and lack one."""
        return {self.unit(i) for i in self.used} & {self.unit(i) for i in self.empty}


def _core(s: Slot) -> tuple[object, ...]:
    path = tuple(s.props.get(level) for level in LEVELS)
    return path if "thread-id" in s.props else (*path, s.index)


def machine(**levels: int) -> tuple[Slot, ...]:
    """Slots of a machine with so many of each level in the one above."""
    return tuple(slot(index, props=props, filled=False) for index, props in enumerate(_places(levels)))


def _places(levels: Mapping[str, int]) -> Iterator[dict[str, PropValue]]:
    names = [f"{name}-id" for name in levels]
    for values in product(*(range(count) for count in levels.values())):
        yield dict(zip(names, values, strict=True))


@st.composite
def machines(draw: st.DrawFn, *, whole: bool = False, uneven: bool = True, nodes: bool = False) -> Machine:
    """Any machine of up to 72 slots; levels that it lacks are not in its props, and some props are not known.

    ``whole``: cores have all of their threads or none. ``nodes``: CPUs are on more nodes than one.
    """
    names = ("node", "socket", "die", "core", "thread")
    levels = {name: draw(st.integers(1, 3 if name in ("node", "core") else 2)) for name in names}
    for name in draw(st.sets(st.sampled_from(names[nodes:]))):
        del levels[name]
    if nodes:
        levels["node"] = max(2, levels["node"])
    levels = levels or {"core": 4}
    places = list(_places(levels))
    if draw(st.booleans()):
        places = [{**props, "tile-id": index % 3} for index, props in enumerate(places)]
    if uneven and not whole and draw(st.booleans()):
        cut = draw(st.integers(0, 2 ** len(places) - 2))
        places = [props for index, props in enumerate(places) if not cut >> index & 1]
    two = "thread" not in levels and "core" in levels and draw(st.booleans())
    slots = [slot(index, threads=1 + two, props=props, filled=False) for index, props in enumerate(places)]
    mask = draw(st.integers(0, 2 ** len(slots) - 1))
    used = {0, *(i for i in range(len(slots)) if mask >> i & 1), *([len(slots) - 1] if nodes else [])}
    found = Machine(tuple(slots), frozenset(used))
    if whole:
        cores = {found.unit(i) for i in used}
        found = Machine(found.slots, frozenset(s.index for s in slots if found.unit(s.index) in cores))
    return found


def _slowly(m: Machine, sign: int) -> list[int]:
    """Spread, one slot after another: at each level what has the fewest vCPUs (``sign`` -1: the most)."""
    used = set(m.used)
    left = set(m.empty if sign > 0 else m.removable)
    order: list[int] = []

    def count(group: Iterable[Slot]) -> int:
        return sum(s.vcpus for s in group if s.index in used)

    def halves() -> set[int]:
        cores: dict[object, list[Slot]] = {}
        for s in m.slots:
            cores.setdefault(_core(s), []).append(s)
        return {s.index for core in cores.values() if 0 < sum(t.index in used for t in core) < len(core) for s in core}

    while left:
        choices = (left & halves()) or left
        group: Sequence[Slot] = m.slots
        for depth in range(len(LEVELS)):
            parts: dict[object, list[Slot]] = {}
            for s in group:
                parts.setdefault(s.props.get(LEVELS[depth]), []).append(s)
            open_ = [part for part in parts.values() if any(s.index in choices for s in part)]
            group = min(open_, key=lambda part: (sign * count(part), sign * part[0].index))
        mine = [s.index for s in group if s.index in choices]
        chosen = min(mine) if sign > 0 else max(mine)
        if "thread-id" not in m.slots[0].props:
            chosen = min(mine, key=lambda i: (sign * (i in used), sign * i))
        order.append(chosen)
        left.remove(chosen)
        if sign > 0:
            used.add(chosen)
        else:
            used.remove(chosen)
    return order


def _indices(choices: Iterable[Choice]) -> list[int]:
    return [choice.slot for choice in choices]


@_SOME
@given(machines())
def test_spread_gives_each_next_vcpu_to_what_has_the_fewest_at_every_level(m: Machine) -> None:
    assert _indices(to_plug(m.slots, m.used, m.empty, Placement.SPREAD)) == _slowly(m, 1)


@_SOME
@given(machines())
def test_spread_takes_each_next_vcpu_from_what_has_the_most_at_every_level(m: Machine) -> None:
    assert _indices(to_unplug(m.slots, m.used, m.removable, Placement.SPREAD)) == _slowly(m, -1)


@_SOME
@given(machines(), st.data())
def test_spread_begins_no_core_on_a_node_that_has_more_than_another_with_room(m: Machine, data: st.DataObject) -> None:
    after = m.plugged(data.draw(st.integers(0, len(m.empty))), Placement.SPREAD)
    begun = {after.unit(i) for i in after.used} - {m.unit(i) for i in m.used}
    given_to = {after.slots[i].props.get("node-id") for i in after.used if after.unit(i) in begun}
    unit = max(Counter(m.unit(s.index) for s in m.slots).values()) * max(s.vcpus for s in m.slots)
    vcpus, room = after.vcpus("node-id"), after.room()
    for high, low in product(given_to, vcpus):
        if room[low]:
            assert vcpus[high] - vcpus[low] <= unit


@st.composite
def nodes_of_all_sizes(draw: st.DrawFn) -> Machine:
    """Up to five nodes, most of them empty."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    nodes = [node for node, size in enumerate(sizes) for _ in range(size)]
    slots = tuple(slot(index, props={"node-id": node, "core-id": index}) for index, node in enumerate(nodes))
    return Machine(slots, frozenset(draw(st.sets(st.integers(0, len(slots) - 1), max_size=3))))


@_SOME
@given(machines() | nodes_of_all_sizes(), st.data())
def test_pack_begins_no_more_nodes_than_it_must(m: Machine, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(m.empty)))
    after = m.plugged(count, Placement.PACK)
    before, room = m.vcpus("node-id"), m.room()
    new = [node for node, vcpus in after.vcpus("node-id").items() if vcpus and not before[node]]
    lacking = count * m.slots[0].vcpus - sum(room[node] for node in room if before[node])
    least = 0
    for free in sorted((room[node] for node in room if not before[node]), reverse=True):
        if lacking > 0:
            least, lacking = least + 1, lacking - free
    assert len(new) == least


@_SOME
@pytest.mark.parametrize("policy", Placement)
@given(m=machines(), seed=st.integers())
def test_the_order_in_which_slots_are_told_makes_no_difference(policy: Placement, m: Machine, seed: int) -> None:
    mixed = random.Random(seed).sample(m.slots, len(m.slots))
    assert to_plug(mixed, m.used, m.empty, policy) == to_plug(m.slots, m.used, m.empty, policy)
    assert to_unplug(mixed, m.used, m.removable, policy) == to_unplug(m.slots, m.used, m.removable, policy)


@_SOME
@pytest.mark.parametrize("policy", Placement)
@given(m=machines())
def test_every_slot_that_can_be_chosen_is_chosen_once_and_no_other(policy: Placement, m: Machine) -> None:
    assert sorted(_indices(to_plug(m.slots, m.used, m.empty, policy))) == sorted(m.empty)
    assert sorted(_indices(to_unplug(m.slots, m.used, m.removable, policy))) == sorted(m.removable)


@_SOME
@pytest.mark.parametrize("policy", Placement)
@given(m=machines(), data=st.data())
def test_of_some_of_the_slots_no_other_is_chosen(policy: Placement, m: Machine, data: st.DataObject) -> None:
    some = data.draw(st.sets(st.sampled_from(sorted(m.empty)))) if m.empty else set()
    assert sorted(_indices(to_plug(m.slots, m.used, some, policy))) == sorted(some)


@_SOME
@pytest.mark.parametrize("policy", POLICIES)
@given(m=machines(whole=True), data=st.data())
def test_a_multiple_of_the_threads_of_a_core_is_whole_cores(policy: Placement, m: Machine, data: st.DataObject) -> None:
    threads = m.threads
    assert not m.plugged(threads * data.draw(st.integers(0, len(m.empty) // threads)), policy).halves()
    given_up = threads * data.draw(st.integers(0, max(0, len(m.used) // threads - 1)))
    assert not m.unplugged(given_up, policy).halves()


@_SOME
@given(machines(), st.data())
def test_spread_never_leaves_more_cores_half_empty_than_it_found_and_one(m: Machine, data: st.DataObject) -> None:
    after = m.plugged(data.draw(st.integers(0, len(m.empty))), Placement.SPREAD)
    assert len(after.halves() - m.halves()) <= 1
    if after.halves() - m.halves():
        assert not m.halves() & after.halves()


@_SOME
@pytest.mark.parametrize("policy", POLICIES)
@given(m=machines(uneven=False), data=st.data())
def test_unplug_gives_back_the_shape_that_plug_by_the_same_policy_began_with(
    policy: Placement, m: Machine, data: st.DataObject
) -> None:
    alone = Machine(m.slots, frozenset({0}))
    before = alone.plugged(data.draw(st.integers(0, len(alone.empty))), policy)
    count = data.draw(st.integers(0, len(before.empty)))
    assert before.plugged(count, policy).unplugged(count, policy) == before


@_SOME
@given(machines(nodes=True, uneven=False))
def test_pack_empties_the_fewest_filled_node_that_can_be_emptied(m: Machine) -> None:
    home = m.slots[0].props.get("node-id")
    others = {node: count for node, count in m.vcpus("node-id").items() if node != home and count}
    least = min(others.values())
    after = m.unplugged(least // m.slots[0].vcpus, Placement.PACK)
    gone = [node for node in others if not after.vcpus("node-id")[node]]
    assert len(gone) == 1
    assert others[gone[0]] == least


# --- by example -------------------------------------------------------------------------------------------------------


def _nodes(slots: Sequence[Slot], chosen: Iterable[int]) -> list[PropValue]:
    return [slots[index].props["node-id"] for index in chosen]


def test_spread_goes_from_node_to_node_and_pack_fills_one_after_another() -> None:
    m = Machine(machine(node=4, core=4), frozenset({0}))
    spread = _indices(to_plug(m.slots, m.used, m.empty, Placement.SPREAD))[:6]
    assert _nodes(m.slots, spread) == [1, 2, 3, 0, 1, 2]
    pack = _indices(to_plug(m.slots, m.used, m.empty, Placement.PACK))[:6]
    assert _nodes(m.slots, pack) == [0, 0, 0, 1, 1, 1]


def test_within_a_node_the_sockets_and_within_a_socket_the_dies_take_turns() -> None:
    slots = machine(node=2, socket=2, die=2, core=2)
    order = _indices(to_plug(slots, {0}, range(1, 16), Placement.SPREAD))
    assert order == [8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15]


def test_a_core_that_has_a_thread_is_completed_before_another_is_begun() -> None:
    slots = machine(node=2, core=2, thread=2)
    order = to_plug(slots, {0}, range(1, 8), Placement.SPREAD)
    assert _indices(order) == [1, 4, 5, 2, 3, 6, 7]
    assert order[0].why == "spread: its core has threads already, and is completed first"
    assert order[1].why == "spread: of the nodes with room, node 1 has the fewest vCPUs"
    assert order[2].why == "the rest of the same core"


def test_boot_cpus_in_the_middle_count_where_they_are() -> None:
    slots = machine(node=2, core=4)
    assert _indices(to_plug(slots, {5, 6}, [0, 1, 2, 3, 4, 7], Placement.SPREAD))[:3] == [0, 1, 2]
    assert _indices(to_plug(slots, {5, 6}, [0, 1, 2, 3, 4, 7], Placement.PACK))[:3] == [4, 7, 0]


def test_pack_begins_with_the_node_that_is_fullest_and_of_fresh_ones_with_the_largest() -> None:
    slots = tuple(slot(i, props={"node-id": node, "core-id": i}) for i, node in enumerate([0, 0, 1, 1, 1, 2, 2, 2, 2]))
    order = to_plug(slots, {0}, range(1, 9), Placement.PACK)
    assert _nodes(slots, _indices(order)) == [0, 2, 2, 2, 2, 1, 1, 1]
    assert order[0].why == "pack: of the nodes with room, node 0 comes first as the fullest"


def test_a_machine_without_levels_is_filled_from_below_and_emptied_from_above() -> None:
    slots = tuple(slot(i, threads=2, props={"core-id": 2 * i}) for i in range(4))
    for policy in Placement:
        assert _indices(to_plug(slots, {0}, [1, 2, 3], policy)) == [1, 2, 3]
        assert _indices(to_unplug(slots, {0, 1, 2}, [1, 2], policy)) == [2, 1]


def test_props_that_nobody_knows_do_not_make_threads_of_slots() -> None:
    slots = tuple(slot(i, props={"node-id": i % 2, "tile-id": i}) for i in range(6))
    assert _indices(to_plug(slots, {0}, range(1, 6), Placement.SPREAD)) == [1, 2, 3, 4, 5]


def test_slots_without_a_node_are_a_place_of_their_own() -> None:
    slots = (*machine(node=1, core=2), slot(2, props={"core-id": 7}), slot(3, props={"core-id": 8}))
    order = to_plug(slots, {0}, [1, 2, 3], Placement.SPREAD)
    assert [(choice.slot, choice.why) for choice in order[:1]] == [
        (2, "spread: of the nodes with room, what has no node has the fewest vCPUs")
    ]


def test_a_machine_that_is_one_core_says_so_in_simple_words() -> None:
    slots = machine(socket=1, core=1, thread=2)
    assert [c.why for c in to_plug(slots, set(), [0, 1], Placement.PACK)] == [
        "nothing else is left",
        "the rest of the same core",
    ]
    assert to_plug((), (), (), Placement.SPREAD) == []


@pytest.mark.parametrize("policy", Placement)
def test_eight_times_the_slots_take_about_eight_times_as_long_to_order(policy: Placement) -> None:
    def prepare(nodes: int) -> Callable[[], object]:
        slots = machine(node=nodes, socket=2, die=2, core=64, thread=2)
        return lambda: to_plug(slots, {0}, range(1, len(slots)), policy)

    assert growth(prepare, 1, 8) < 24, "what grows with the square would be 64"
