# SPDX-License-Identifier: Apache-2.0
"""This tree beside an older commit, pair by pair in one run: ``base`` in ``build/bench.json``.

Each side has its own sources: command, library, agent, packages in the guest, fakes. A round measures both sides, in an
order that changes from round to round; a ratio is the median of the rounds' ratios. ``noise`` is this tree beside
itself, measured in the same way.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kit.bench.fleet import fleet_of
from kit.bench.processes import NotDoneError, run
from kit.bench.real import COLD, ROOT, Say
from kit.fakes.fleet import FakeFleet
from kit.lab import Lab, Vm

_TRIAL = Path(__file__).with_name("trial.py")
_TIMEOUT = 300.0
_PSS = "awk '/^Pss:/ {print $2}' /proc/$(systemctl show -P MainPID vcpud)/smaps_rollup"

#: Figures of one round, by name.
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Tree:
    """Sources of vcpuctl, with the packages that were built of them."""

    root: Path

    @property
    def debs(self) -> Path:
        """The packages' directory."""
        return self.root / "build" / "deb"

    @property
    def older(self) -> Path | None:
        """The tree for ``processes.run``; None is this one."""
        return None if self.root == ROOT else self.root

    def trial(self, *words: str) -> dict[str, Any]:
        """Measure with this tree's sources and tests. Raise NotDoneError if that does not succeed."""
        path = [str(self.root / part) for part in ("host/src", "proto/src", "guest/src", "tests")]
        done = subprocess.run(
            [sys.executable, "-P", str(_TRIAL), *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        if done.returncode != 0:
            raise NotDoneError(f"{self.root}: {' '.join(words)}: {done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def checked_out(commit: str, say: Say) -> Tree:
    """Return the older commit's tree, with its packages built: once, below ``build/base``."""
    whole = _git(ROOT, "rev-parse", "--verify", f"{commit}^{{commit}}")
    root = ROOT / "build" / "base" / whole
    if not root.is_dir():
        _git(ROOT, "clone", "--quiet", "--shared", "--no-checkout", str(ROOT), str(root))
        _git(root, "checkout", "--quiet", whole)
    if not list((root / "build" / "deb").glob("*.deb")):
        say(f"building the packages of {commit}")
        subprocess.run(["make", "-C", str(root), "deb"], check=True, stdout=subprocess.DEVNULL, timeout=900)
    return Tree(root)


def _git(where: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(where), *words], check=True, capture_output=True, text=True).stdout.strip()


def measure(lab: Lab, commit: str, rounds: int, say: Say) -> dict[str, Any]:
    """Return the ratios to the older commit, the noise, and the samples."""
    now, then = Tree(ROOT), checked_out(commit, say)
    with fleet_of(2) as fleet:
        sides = [lambda tree: _on_fakes(tree, fleet)]
        samples = _in_turn(sides, (now, then), rounds, say)
        same = _in_turn(sides, (now, now), rounds, say)
    samples += _in_turn([lambda tree: _in_a_guest(lab, tree)], (now, then), rounds, say)
    ratios, noise = _ratios(samples), _ratios(same)
    return {
        "base": {name: ratio for name, ratio in ratios.items() if "." not in name},
        "base_parts": {name: ratio for name, ratio in ratios.items() if "." in name},
        "base_noise": noise,
        "base_commit": commit,
        "base_samples": [[_rounded(side) for side in pair] for pair in samples],
    }


def _rounded(figures: Figures) -> Figures:
    return {name: round(value, 6) for name, value in figures.items()}


def _in_turn(
    measurements: Sequence[Callable[[Tree], Figures]], trees: tuple[Tree, Tree], rounds: int, say: Say
) -> list[tuple[Figures, Figures]]:
    """Measure both trees so many times; a round that does not count goes before."""
    found = []
    for number in range(rounds + 1):
        order = trees if number % 2 else tuple(reversed(trees))
        sides: list[Figures] = []
        for tree in order:
            figures: Figures = {}
            for measurement in measurements:
                figures |= measurement(tree)
            sides.append(figures)
        first, second = sides if number % 2 else reversed(sides)
        if number:
            found.append((first, second))
        say(f"{trees[0].root.name} beside {trees[1].root.name}: round {number} of {rounds}")
    return found


def _ratios(pairs: Sequence[tuple[Figures, Figures]]) -> dict[str, float]:
    names = dict.fromkeys(name for first, _ in pairs for name in first)
    return {
        name: round(statistics.median(ours[name] / theirs[name] for ours, theirs in pairs if name in ours), 3)
        for name in names
    }


def _on_fakes(tree: Tree, fleet: FakeFleet) -> Figures:
    """What commands and the library take of the processors: the library's and vcpud's part; the fake's is apart."""
    name = next(iter(fleet.vms))
    older = None if tree.older is None else tree.root
    found = {
        "list_cpu": run(fleet, "--vm", name, "list", old=older).cpu,
        "help_cpu": run(fleet, "--help", old=older).cpu,
        # It is refused after the looks and the plan: the boot CPU is there.
        "plug_start_cpu": run(fleet, "--vm", name, "plug", "--slot", "0", old=older, ends_with=(3,)).cpu,
    }
    for count in (1, 240):
        trial = tree.trial("fakes", str(count))
        for operation in ("plug", "unplug"):
            spent = trial[operation]
            found[f"{operation}_{count}"] = spent["library"] + spent["vcpud"]
            found |= {f"{operation}_{count}.{part}": spent[part] for part in ("library", "vcpud", "fake", "wall")}
    return found


def _in_a_guest(lab: Lab, tree: Tree) -> Figures:
    """What a session's begin and a request that changes nothing take, and the agent's memory after it, in bytes."""
    with lab.vm(replace(COLD, debs=tree.debs)) as vm:
        said = tree.trial("guest", str(vm.qmp_socket))
        pss = _pss(vm)
    later = said["requests_wall"][len(said["requests_wall"]) // 2 :]
    return {
        "request": statistics.median(later),
        "request_first": said["requests_wall"][0],
        "agent_pss": pss,
        "session_begin": said["begin_wall"],
    }


def _pss(vm: Vm) -> float:
    """Return the agent's proportional share of memory (proc_pid_smaps_rollup, Pss), in bytes."""
    return int(vm.shell(_PSS)) * 1024
