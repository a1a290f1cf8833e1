# SPDX-License-Identifier: Apache-2.0
"""Many VMs in one process, beside as many processes of an older vcpuctl: ``build/fleet.json``.

The VMs are fakes that answer at once, each with a real ``vcpud``. Both sides do the same in turn: every VM goes up to
three vCPUs and back to one. What the fakes take of the machine counts for both sides alike.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit.bench import report, sick, staying
from kit.bench.processes import OLD, Cost, environment, old_tree, run, run_python
from kit.bench.real import ROOT, Say
from kit.fakes.fleet import FakeFleet, fake_fleet
from kit.lab.report import commit

OUTPUT = ROOT / "build" / "fleet.json"
#: So many processes of the older vcpuctl run at once.
_AT_ONCE = 4
_GOALS = (3, 1)
_SIZE = 50
#: vcpuctl that says how much memory it took.
_MEASURED = ROOT / "tests/kit/fakes/vcpuctl.py"


def measure(rounds: int, say: Say) -> dict[str, Any]:
    """Return the figures."""
    with old_tree() as old:
        with fleet_of(_SIZE) as fleet:
            say(f"{_SIZE} VMs are there")
            found = _apply(fleet, old, rounds, say) | {"mb_per_vm": _megabytes_per_vm(fleet)}
            say(f"{found['mb_per_vm']} MB a VM")
            found |= staying.beside(fleet, old, rounds, say)
        with fleet_of(staying.SIZE) as fleet:
            found |= staying.idle(fleet, say)
    seconds = found.pop("seconds") | found.pop("seconds_beside")
    return found | sick.measure(rounds, say) | {"vms": _SIZE, "seconds": seconds}


def write(rounds: int, say: Say) -> dict[str, Any]:
    """Measure, and write the report. Return it."""
    found = {"versions": {"commit": commit(ROOT), "old": OLD}, "rounds": rounds, **measure(rounds, say)}
    report.write(OUTPUT, found)
    return found


@contextmanager
def fleet_of(size: int) -> Iterator[FakeFleet]:
    """So many VMs, in memory if that can be."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else "/tmp"
    with tempfile.TemporaryDirectory(prefix="vf", dir=memory) as folder:
        names = [f"vm{number:03}" for number in range(size)]
        with fake_fleet(Path(folder), names, "--maxcpus", "16") as fleet:
            yield fleet


def _apply(fleet: FakeFleet, old: Path, rounds: int, say: Say) -> dict[str, Any]:
    """One process for all VMs, and a process for each."""
    many, one = [], []
    for number in range(rounds):
        many.append(_sum(_by_processes(fleet, old, goal) for goal in _GOALS))
        one.append(_sum(run(fleet, "-o", "json", "apply", str(fleet.goals(goal))) for goal in _GOALS))
        say(f"round {number + 1}: processes {many[-1]}, apply {one[-1]}")
    return {
        "apply_cpu_ratio": _ratio(one, many, lambda cost: cost.cpu),
        "apply_wall_ratio": _ratio(one, many, lambda cost: cost.wall),
        "seconds": {
            "apply": [[round(cost.cpu, 3), round(cost.wall, 3)] for cost in one],
            "processes": [[round(cost.cpu, 3), round(cost.wall, 3)] for cost in many],
        },
    }


def _ratio(ours: Sequence[Cost], theirs: Sequence[Cost], of: Callable[[Cost], float]) -> float:
    """Return the median of the rounds' ratios."""
    return round(statistics.median(of(our) / of(their) for our, their in zip(ours, theirs, strict=True)), 4)


def _sum(costs: Iterator[Cost]) -> Cost:
    parts = list(costs)
    return Cost(sum(cost.cpu for cost in parts), sum(cost.wall for cost in parts))


def _by_processes(fleet: FakeFleet, old: Path, goal: int) -> Cost:
    """Scale every VM by a process of the older vcpuctl."""

    def scale(name: str) -> float:
        return run(fleet, "--vm", name, "-o", "json", "scale", str(goal), old=old).cpu

    began = time.monotonic()
    with ThreadPoolExecutor(_AT_ONCE) as running:
        cpu = sum(running.map(scale, fleet.vms))
    return Cost(cpu, time.monotonic() - began)


def _megabytes_per_vm(fleet: FakeFleet) -> float:
    """Return what each VM beyond the first adds to the most memory that apply has, in megabytes (1e6 bytes)."""
    names = list(fleet.vms)
    path = fleet.folder / "peak"
    peaks = []
    for count in (1, len(names)):
        for goal in _GOALS:
            wanted = str(fleet.goals(dict.fromkeys(names[:count], goal)))
            run_python({**environment(fleet), "PEAK": str(path)}, str(_MEASURED), "-o", "json", "apply", wanted)
        peaks.append(int(path.read_text(encoding="ascii")))
    return round((peaks[1] - peaks[0]) / (len(names) - 1) / 1e6, 3)
