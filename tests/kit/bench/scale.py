# SPDX-License-Identifier: Apache-2.0
"""From 1 to 240 vCPUs and back: ours beside the bare work in the same run, and what the host's side takes for each.

Every CPU is proved by its identity: an operation that is done has matched each slot with the guest's CPU of its
firmware name, and here the slots of the result are counted.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from kit.bench import floor, ours
from kit.bench.processes import NotDoneError, run_measured
from kit.bench.real import COLD, Say, slots_for
from kit.lab import Lab, Vm

#: As tests/e2e/test_240.py has it, which says why.
MANY = replace(
    COLD,
    smp="1,maxcpus=255",
    memory_mb=2048,
    cpu="qemu64,-mtrr",
    kernel_args="lpj=4000000 nowatchdog",
)
COUNT, FEW = 239, 14
_PATIENCE = 1200.0


def measure(lab: Lab, say: Say) -> dict[str, Any]:
    """Return ``floor_240``: ours over the bare work, up and down; and the host's CPU seconds for each vCPU."""
    with lab.vm(MANY) as vm:
        floor.agent_stopped(vm)
        bare = floor.plug(vm, slots_for(COUNT), _PATIENCE), floor.unplug(vm, slots_for(COUNT), _PATIENCE)
        say(f"240 vCPUs, the bare work: {bare[0]:.1f} s up, {bare[1]:.1f} s down")
    with lab.vm(MANY) as vm:
        few = _both(vm, FEW)
    with lab.vm(MANY) as vm:
        many = _both(vm, COUNT)
        say(f"240 vCPUs, ours: {many['up_wall']:.1f} s up, {many['down_wall']:.1f} s down")
    return {
        "floor_240": {
            "up": round(many["up_wall"] / bare[0], 3),
            "down": round(many["down_wall"] / bare[1], 3),
            "growth": round((many["up_cpu"] / COUNT) / (few["up_cpu"] / FEW), 3),
            "seconds": {"bare": bare, "ours": many, "ours_15": few},
        }
    }


def _both(vm: Vm, count: int) -> dict[str, float]:
    """Go up by so many and back, by a process each way."""
    found: dict[str, float] = {}
    for name, goal in (("up", 1 + count), ("down", 1)):
        options = ["--qmp", str(vm.qmp_socket), "-q", "-o", "json", "--timeout", str(_PATIENCE)]
        said, cost = run_measured([ours.VCPUCTL, *options, "scale", str(goal)])
        done = [slot for slot in json.loads(said)["slots"] if slot["outcome"] == "done"]
        if len(done) != count:
            raise NotDoneError(f"{len(done)} of {count} slots are done: {said[-2000:]}")
        found |= {f"{name}_wall": cost.wall, f"{name}_cpu": cost.cpu}
    return found
