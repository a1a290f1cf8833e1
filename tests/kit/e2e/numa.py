# SPDX-License-Identifier: Apache-2.0
"""NUMA nodes of a VM under test: QEMU's arguments for them, and what the guest shows of them."""

from __future__ import annotations

from kit.lab import Vm

# The lists have CPUs that are online alone, and are right on every machine; the links are for the others.
_NODES = """cd /sys/devices/system/node 2>/dev/null || exit 0
for n in node[0-9]*; do for c in $n/cpu[0-9]*; do [ ! -e $c ] || echo ${n#node} ${c##*/}; done; done
for n in node[0-9]*; do echo ${n#node} $(cat $n/cpulist); done"""


def memory(nodes: int, memory_mb: int) -> tuple[str, ...]:
    """Nodes that share the VM's memory evenly, without any CPU."""
    argv: list[str] = []
    for node in range(nodes):
        argv += ["-object", f"memory-backend-ram,id=m{node},size={memory_mb // nodes}M"]
        argv += ["-numa", f"node,nodeid={node},memdev=m{node}"]
    return tuple(argv)


def nodes(count: int, memory_mb: int, prop: str, step: int = 1, each: int = 1) -> tuple[str, ...]:
    """As ``memory``, and CPUs: of the values of ``prop``, which go by ``step``, each node has the next ``each``."""
    argv = [*memory(count, memory_mb)]
    for place in range(count * each):
        argv += ["-numa", f"cpu,node-id={place // each},{prop}={place * step}"]
    return tuple(argv)


def nodes_of_cpus(vm: Vm) -> dict[str, int]:
    """The guest's own word: node by CPU, such as ``cpu3``; empty where its kernel shows no nodes."""
    found: dict[str, int] = {}
    for line in vm.shell(_NODES).splitlines():
        node, _, cpus = line.partition(" ")
        for part in filter(None, cpus.split(",")):
            first, _, last = part.removeprefix("cpu").partition("-")
            found |= {f"cpu{number}": int(node) for number in range(int(first), int(last or first) + 1)}
    return found
