# SPDX-License-Identifier: Apache-2.0
"""``plug``, ``unplug`` and ``scale`` by policy and by node, as processes, on a machine with NUMA nodes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.component.cli import done, run, stands
from kit.fakes.qemu import FakeVm

#: Slots 0 to 3 are on node 0, 4 to 7 on node 1, and so on.
_FOUR_NODES = ("--maxcpus", "16", "--nodes", "4", "--sockets", "4", "--cores", "4")


@pytest.fixture
def vm() -> Iterator[FakeVm]:
    with tempfile.TemporaryDirectory(prefix="vp", dir="/tmp") as name, FakeVm(Path(name), *_FOUR_NODES) as fake:
        yield fake


def test_spread_lays_the_cpus_over_all_nodes_and_takes_them_back_from_all(vm: FakeVm) -> None:
    planned = run(vm, "plan", "plug", "-n", "6", "--policy", "spread").json
    assert planned["requested"] == {"count": 6, "slots": [], "policy": "spread"}
    assert [step["why"] for step in planned["steps"]][:2] == [
        "spread: of the nodes with room, node 1 has the fewest vCPUs",
        "spread: of the nodes with room, node 2 has the fewest vCPUs",
    ]
    ended = done(vm, {0, 4, 8, 12, 1, 5, 9}, "plug", "-n", "6", "--policy", "spread")
    assert ended.json["requested"]["policy"] == "spread"
    done(vm, {0, 4, 8, 12, 1}, "unplug", "-n", "2", "--policy", "spread")
    done(vm, {0, 4, 8, 12}, "scale", "4", "--policy", "spread")


def test_pack_fills_one_node_after_the_other_and_empties_the_last_first(vm: FakeVm) -> None:
    done(vm, {0, 1, 2, 3, 4, 5}, "scale", "6", "--policy", "pack")
    done(vm, {0, 1, 2, 3, 4, 5, 12}, "plug", "--slot", "12")
    done(vm, {0, 1, 2, 3, 4, 5}, "unplug", "--policy", "pack")


def test_a_node_is_kept_to_and_when_it_is_full_nothing_is_done(vm: FakeVm) -> None:
    done(vm, {0, 8, 9, 10}, "plug", "-n", "3", "--node", "2")
    refused = run(vm, "plug", "-n", "2", "--node", "2")
    assert (refused.status, refused.outcome) == (3, "refused")
    assert "on node 2: only 1 is left" in refused.json["reason"]["text"]
    stands(vm, {0, 8, 9, 10})
    done(vm, {0, 8}, "unplug", "-n", "2", "--node", "2")


def test_a_node_that_is_not_there_is_refused_by_plan_as_by_plug(vm: FakeVm) -> None:
    for words in (("plug",), ("plan", "plug")):
        refused = run(vm, *words, "--node", "4")
        assert refused.status == 3, refused.stderr
        assert "no-such-node" in refused.stdout
        assert "it has 0, 1, 2, 3" in refused.stdout
    stands(vm, {0})


@pytest.mark.parametrize(
    "words", [("plug", "--slot", "3", "--policy", "spread"), ("scale", "2", "--in-guest", "--policy", "pack")]
)
def test_options_that_do_not_go_together_are_a_usage_error_and_nothing_is_asked(
    vm: FakeVm, words: tuple[str, ...]
) -> None:
    ended = run(vm, *words)
    assert (ended.status, ended.outcome) == (2, "bad-usage")
    assert vm.steer.commands("query-hotpluggable-cpus") == []
