# SPDX-License-Identifier: Apache-2.0
"""NUMA: CPUs land on the nodes that the policy promises and the map says, by the guest's own word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kit.e2e import numa
from kit.e2e.machine import SPEC, Machine, Vcpuctl
from kit.e2e.platforms import LEVELS, by_acpi_path, by_two_threads
from kit.lab import Lab, Vm

from e2e.test_power import CORES

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

_FOUR: dict[str, Any] = {
    "smp": "1,maxcpus=16,sockets=4,cores=4,threads=1",
    "extra_args": numa.nodes(4, 512, "socket-id"),
}


def _nodes(vm: Vm, slot_of: Callable[[str, Any], int] = by_acpi_path) -> dict[int, int]:
    """By slot, the node that the guest shows for its CPUs that are online; all threads of a slot are on one."""
    shown = numa.nodes_of_cpus(vm)
    found: dict[int, int] = {}
    for name, cpu in vm.guest_cpus().items():
        if cpu["online"]:
            assert found.setdefault(slot_of(name, cpu), shown[name]) == shown[name]
    return found


def _counts(nodes: Iterable[int]) -> list[int]:
    """How many slots each node has, in the order of the nodes."""
    return [count for _, count in sorted(Counter(nodes).items())]


def _ok(machine: Machine, *words: str) -> None:
    ended = machine.vcpuctl(*words)
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr


def _both_ways(machine: Machine, spread: list[int], pack: list[int]) -> None:
    """Six vCPUs by each policy, up and down again."""
    _ok(machine, "plug", "-n", "6", "--policy", "spread")
    assert _counts(_nodes(machine.vm).values()) == spread
    _ok(machine, "unplug", "-n", "6", "--policy", "spread")
    assert _nodes(machine.vm) == {0: 0}
    _ok(machine, "plug", "-n", "6", "--policy", "pack")
    assert _counts(_nodes(machine.vm).values()) == pack
    listed = machine.vcpuctl.map()
    for slot, node in _nodes(machine.vm).items():
        assert (listed[slot]["node"], listed[slot]["threads"][0]["guest_node"]) == (node, node)


def test_on_two_nodes_spread_and_pack_give_what_they_promise_and_take_it_back(
    machines: Callable[..., Machine],
) -> None:
    machine = machines(**LEVELS)
    _both_ways(machine, [4, 3], [7])
    before = machine.state()
    refused = machine.vcpuctl("plug", "-n", "2", "--node", "0")
    assert (refused.status, refused.json["reason"]["code"]) == (3, "not-enough"), refused.stdout
    assert machine.state() == before
    _ok(machine, "plug", "-n", "2", "--node", "1")
    assert _counts(_nodes(machine.vm).values()) == [7, 2]


@pytest.mark.slow
def test_on_four_nodes_spread_and_pack_give_what_they_promise_and_take_it_back(
    machines: Callable[..., Machine],
) -> None:
    _both_ways(machines(**_FOUR), [2, 2, 2, 1], [4, 3])


@pytest.mark.slow
def test_cores_of_two_threads_are_spread_whole(machines: Callable[..., Machine]) -> None:
    power = numa.nodes(2, 1024, "core-id", step=2, each=4)
    machine = machines(**{**CORES, "qemu": "11.1", "memory_mb": 1024, "extra_args": power})
    _ok(machine, "plug", "-n", "6", "--policy", "spread")
    assert _nodes(machine.vm, by_two_threads) == {0: 0, 1: 0, 4: 1, 5: 1}
    _ok(machine, "unplug", "-n", "4", "--policy", "spread")
    assert _nodes(machine.vm, by_two_threads) == {0: 0, 4: 1}
    _ok(machine, "plug", "-n", "4", "--policy", "pack")
    assert _nodes(machine.vm, by_two_threads) == {0: 0, 1: 0, 2: 0, 4: 1}


#: No default of QEMU's, and no policy's: all of core 2 and one thread of core 3 of either socket on the other's node.
_MAP = """
1 = ["socket-id=0,core-id=0", "socket-id=0,core-id=1", 6, "socket-id=1,core-id=2", "socket-id=1,core-id=3"]
0 = ["socket-id=1,core-id=0", "socket-id=1,core-id=1", "socket-id=0,core-id=2", 7]
"""
_MAPPED = {
    **dict.fromkeys((0, 1, 2, 3, 6, 12, 13, 14, 15), 1),
    **dict.fromkeys((4, 5, 7, 8, 9, 10, 11), 0),
}


#: Linux numbers nodes as it meets them in the SRAT (acpi_map_pxm_to_node), and the first CPU is of QEMU's node 1.
_IN_GUEST = {1: 0, 0: 1}


@pytest.mark.slow
@pytest.mark.parametrize("qemu", ["7.2", "10.0", "11.1"])
def test_numa_assign_gives_the_guest_exactly_the_map(lab: Lab, tmp_path: Path, qemu: str) -> None:
    written = tmp_path / "map.toml"
    written.write_text(_MAP)
    early = ("--preconfig", *numa.memory(2, 512))
    spec = replace(SPEC, qemu=qemu, smp="8,maxcpus=16,sockets=2,cores=4,threads=2", debs=None, extra_args=early)
    with lab.start(spec) as vm:
        vcpuctl = Vcpuctl(vm)
        assert vcpuctl("list").json["error"]["code"] == "preconfig"
        wrong = tmp_path / "wrong.toml"
        wrong.write_text(_MAP.replace("\n1 =", "\n2 ="))
        refused = vcpuctl("numa", "assign", "--map", str(wrong))
        assert (refused.status, refused.json["reason"]["code"]) == (3, "no-such-node"), refused.stdout
        assert all("node-id" not in slot["props"] for slot in vm.qmp.execute("query-hotpluggable-cpus"))
        ended = vcpuctl("numa", "assign", "--map", str(written))
        assert (ended.status, ended.outcome) == (0, "done"), ended.stdout
        assert not [line for line in vm.record.messages if "not present in any NUMA nodes" in line]
        reply = vm.qmp.execute("query-hotpluggable-cpus")
        assert {len(reply) - 1 - i: slot["props"]["node-id"] for i, slot in enumerate(reply)} == _MAPPED
        vm.wait_shell(300.0)
        assert _nodes(vm) == {slot: _IN_GUEST[node] for slot, node in _MAPPED.items() if slot < 8}
        for slot in (9, 14):
            entry = vm.qmp.execute("query-hotpluggable-cpus")[-1 - slot]
            vm.qmp.execute("device_add", driver=entry["type"], id=f"vcpu-{slot}", **entry["props"])
            vm.qmp.wait_event("ACPI_DEVICE_OST", slot=str(slot), source=1, timeout=60.0)
        shown, cpus = numa.nodes_of_cpus(vm), vm.guest_cpus()
        plugged = {by_acpi_path(name, cpu): shown[name] for name, cpu in cpus.items() if not cpu["online"]}
        assert plugged == {9: _IN_GUEST[0], 14: _IN_GUEST[1]}
        late = vcpuctl("numa", "assign", "--map", str(written))
        assert (late.status, late.json["reason"]["code"]) == (3, "machine-made"), late.stdout
