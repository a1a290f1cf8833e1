# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tomllib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.sim.views import slot
from vcpu_host.core.model import Slot
from vcpu_host.core.numa import MOST_NODES, MapError, by_policy, differing, from_map, lines, obstacle
from vcpu_host.core.planning.placement import Placement, cores
from vcpu_host.core.planning.selectors import SelectorError


def _slots(sockets: int = 2, per_socket: int = 2, threads: int = 2) -> tuple[Slot, ...]:
    ids = [(s, c, t) for s in range(sockets) for c in range(per_socket) for t in range(threads)]
    return tuple(
        slot(i, filled=False, props={"socket-id": s, "core-id": c, "thread-id": t}) for i, (s, c, t) in enumerate(ids)
    )


def test_a_map_names_the_slots_of_each_node_by_any_selector() -> None:
    document = tomllib.loads("0 = ['socket-id=0']\n# the rest\n7 = [4, '5', 'socket-id=1,core-id=1']\n")
    assert from_map(document, _slots()) == {0: 0, 1: 0, 2: 0, 3: 0, 4: 7, 5: 7, 6: 7, 7: 7}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 = ['socket-id=0']\n1 = ['socket-id=1', 0]", "slot 0 is given twice: to node 0 and to node 1"),
        ("0 = ['socket-id=0']\n1 = [4, 5, 6]", "1 of 8 slots are given to no node: 7"),
        ("", "8 of 8 slots are given to no node: 0, 1, 2, 3, 4, 5, 6, 7"),
        ("one = ['socket-id=0']", "'one' is no number of a node"),
        (f"{MOST_NODES} = ['socket-id=0']", "0 to 127"),
        ("-1 = [0]", "no number"),
        ("0 = 'socket-id=0'", "a list of slots"),
        ("0 = [true]", "a list of slots"),
        ("0 = [[1]]", "a list of slots"),
        ("0 = {a = 1}", "a list of slots"),
    ],
)
def test_a_map_that_is_none_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(MapError, match=words):
        from_map(tomllib.loads(text), _slots())


@pytest.mark.parametrize("entry", ["9", "'core-id=7'", "'vcpu-1'", "-1", "'0', 'socket-id=0'"])
def test_a_slot_that_there_is_not_or_twice_in_a_node_is_no_selector(entry: str) -> None:
    with pytest.raises(SelectorError):
        from_map(tomllib.loads(f"0 = [{entry}]"), _slots())


def test_pack_keeps_neighbours_together_and_spread_deals_cores_in_turn() -> None:
    assert list(by_policy(_slots(), [0, 1], Placement.PACK).values()) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert list(by_policy(_slots(), [0, 1], Placement.SPREAD).values()) == [0, 0, 1, 1, 0, 0, 1, 1]
    assert list(by_policy(_slots(), [3, 5, 9], Placement.SPREAD).values()) == [3, 3, 5, 5, 9, 9, 3, 3]


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 2), st.integers(1, 6), st.sampled_from(list(Placement)[1:]))
def test_a_policy_gives_every_slot_a_node_whole_cores_and_each_node_as_many(
    sockets: int, per_socket: int, threads: int, nodes: int, policy: Placement
) -> None:
    slots = _slots(sockets, per_socket, threads)
    found = by_policy(slots, range(nodes), policy)
    assert set(found) == {s.index for s in slots}
    assert all(len({found[s.index] for s in core}) == 1 for core in cores(slots))
    counts = Counter(dict.fromkeys(range(nodes), 0))
    counts.update(found.values())
    assert max(counts.values()) - min(counts.values()) <= threads


def test_a_node_that_qemu_does_not_have_is_said_with_those_that_it_has() -> None:
    reason = obstacle(_slots(), dict.fromkeys(range(8), 3), (0, 1))
    assert reason is not None
    assert reason.code == "no-such-node"
    assert "without node 3" in reason.text


def test_a_slot_that_was_given_another_node_before_is_an_obstacle_and_the_same_one_is_none() -> None:
    given_before = (slot(0, filled=False, props={"core-id": 0, "node-id": 1}),)
    reason = obstacle(given_before, {0: 0}, (0, 1))
    assert reason is not None
    assert reason.code == "node-set"
    assert obstacle(given_before, {0: 1}, (0, 1)) is None
    assert differing(given_before, {0: 1}) == []
    assert differing(given_before, {0: 0}) == [0]


def test_the_lines_give_each_slot_its_node_with_all_of_its_props() -> None:
    slots = (slot(0, filled=False, props={"core-id": 0, "node-id": 1, "tile-id": 4}),)
    assert lines(slots, {0: 3}) == ["-numa cpu,node-id=3,core-id=0,tile-id=4"]
