# SPDX-License-Identifier: Apache-2.0
"""Many VMs in one process, beside as many processes of an older vcpuctl: ``build/fleet.json``.

The VMs are fakes that answer at once, each with a real ``vcpud``. Both sides do the same in turn: every VM goes up to
three vCPUs and back to one. What the fakes take of the machine counts for both sides alike.
"""

from __future__ import annotations

import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.bench import report
from kit.bench.real import ROOT, Say
from kit.fakes.fleet import FakeFleet, fake_fleet
from kit.lab.report import commit

OUTPUT = ROOT / "build" / "fleet.json"
#: The commit before there were readers beside writers and many VMs in one process.
OLD = "e13c246"
#: So many processes of the older vcpuctl run at once.
_AT_ONCE = 4
_GOALS = (3, 1)
_SIZE = 50
#: vcpuctl as it is, whose locks lie where LOCKS says: what others have left in root's own directory is to cost nothing.
#: {0} is the module that knows the directory.
_START = """
import os, sys
from pathlib import Path
import vcpu_host.{0}
vcpu_host.{0}.directory = lambda: Path(os.environ["LOCKS"])
from vcpu_host.cli.main import main
sys.exit(main())
"""
_MEASURED = ROOT / "tests/kit/fakes/vcpuctl.py"


class NotDoneError(Exception):
    """What is to be measured did not succeed."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of the processors, for all processes of vcpuctl together, and of the wall."""

    cpu: float
    wall: float


def measure(rounds: int, say: Say) -> dict[str, Any]:
    """Return the figures."""
    with _old() as old, _fleet(_SIZE) as fleet:
        say(f"{_SIZE} VMs are there")
        many, one = [], []
        for number in range(rounds):
            many.append(_sum(_by_processes(fleet, old, goal) for goal in _GOALS))
            one.append(_sum(_by_apply(fleet, goal) for goal in _GOALS))
            say(f"round {number + 1}: processes {many[-1]}, apply {one[-1]}")
        memory = _megabytes_per_vm(fleet)
    return {
        "apply_cpu_ratio": _ratio(one, many, lambda cost: cost.cpu),
        "apply_wall_ratio": _ratio(one, many, lambda cost: cost.wall),
        "mb_per_vm": memory,
        "vms": _SIZE,
        "seconds": {
            "apply": [[round(cost.cpu, 3), round(cost.wall, 3)] for cost in one],
            "processes": [[round(cost.cpu, 3), round(cost.wall, 3)] for cost in many],
        },
    }


def write(rounds: int, say: Say) -> dict[str, Any]:
    """Measure, and write the report. Return it."""
    found = {"versions": {"commit": commit(ROOT), "old": OLD}, "rounds": rounds, **measure(rounds, say)}
    report.write(OUTPUT, found)
    return found


def _ratio(ours: Sequence[Cost], theirs: Sequence[Cost], of: Callable[[Cost], float]) -> float:
    """Return the median of the rounds' ratios."""
    return round(statistics.median(of(our) / of(their) for our, their in zip(ours, theirs, strict=True)), 4)


def _sum(costs: Iterator[Cost]) -> Cost:
    parts = list(costs)
    return Cost(sum(cost.cpu for cost in parts), sum(cost.wall for cost in parts))


@contextmanager
def _fleet(size: int) -> Iterator[FakeFleet]:
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else "/tmp"
    with tempfile.TemporaryDirectory(prefix="vf", dir=memory) as folder:
        names = [f"vm{number:03}" for number in range(size)]
        with fake_fleet(Path(folder), names, "--maxcpus", "16") as fleet:
            yield fleet


@contextmanager
def _old() -> Iterator[Path]:
    """Yield the tree of the older vcpuctl, with what Python compiles of it."""
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", OLD, "host/src", "proto/src"], check=True, capture_output=True
    ).stdout
    with tempfile.TemporaryDirectory(prefix="vo", dir="/tmp") as folder:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)


def _by_processes(fleet: FakeFleet, old: Path, goal: int) -> Cost:
    """Scale every VM by a process of the older vcpuctl."""
    environment = {**_environment(fleet), "PYTHONPATH": f"{old}/host/src:{old}/proto/src"}

    def scale(name: str) -> float:
        return _run(["-c", _START.format("runtime"), "--vm", name, "-o", "json", "scale", str(goal)], environment)

    began = time.monotonic()
    with ThreadPoolExecutor(_AT_ONCE) as running:
        cpu = sum(running.map(scale, fleet.vms))
    return Cost(cpu, time.monotonic() - began)


def _by_apply(fleet: FakeFleet, goal: int) -> Cost:
    """Scale every VM by one process."""
    words = ["-c", _START.format("local.directory"), "-o", "json", "apply", str(fleet.goals(goal))]
    began = time.monotonic()
    cpu = _run(words, _environment(fleet))
    return Cost(cpu, time.monotonic() - began)


def _megabytes_per_vm(fleet: FakeFleet) -> float:
    """Return what each VM beyond the first adds to the most memory that apply has, in megabytes (1e6 bytes)."""
    names = list(fleet.vms)
    peaks = []
    for count in (1, len(names)):
        path = fleet.folder / "peak"
        environment = {**_environment(fleet), "PEAK": str(path)}
        for goal in _GOALS:
            wanted = fleet.goals(dict.fromkeys(names[:count], goal))
            _run([str(_MEASURED), "-o", "json", "apply", str(wanted)], environment)
        peaks.append(int(path.read_text(encoding="ascii")))
    return round((peaks[1] - peaks[0]) / (len(names) - 1) / 1e6, 3)


def _environment(fleet: FakeFleet) -> dict[str, str]:
    """Return what a vcpuctl gets: locks and records of its own, whoever's they are."""
    return {**fleet.environment, "LOCKS": str(fleet.folder / "locks")}


def _run(words: Sequence[str], environment: dict[str, str]) -> float:
    """Run Python with these words. Return its seconds of the processors. Raise NotDoneError."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([sys.executable, "-P", *words], env=environment, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            raise NotDoneError(f"{' '.join(words)}: status {process.returncode}: {said.read()[-2000:]}")
    return used.ru_utime + used.ru_stime
