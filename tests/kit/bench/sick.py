# SPDX-License-Identifier: Apache-2.0
"""Whether VMs that are well have to wait for those that are not."""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kit.bench.processes import run
from kit.bench.real import Say
from kit.fakes.fleet import FakeFleet, fake_fleet
from kit.fakes.sick import SICK

#: How many VMs have which trouble, and how many have none.
_COUNTS = {"hang": 5, "lose": 5, "refuse": 10, "die": 10, "lie": 10}
_WELL = 160
#: How many seconds each VM has.
_TIMEOUT = "30"


def measure(rounds: int, say: Say) -> dict[str, Any]:
    """Return how long the VMs that are well take beside the sick ones, as a share of what they take by themselves."""
    seconds = []
    for number in range(min(rounds, 3)):
        seconds.append(_once())
        say(f"round {number + 1}: {_WELL} VMs took {seconds[-1][0]:.2f} s, beside sick ones {seconds[-1][1]:.2f} s")
    ratio = statistics.median(beside / alone for alone, beside in seconds)
    return {"healthy_beside_sick_ratio": round(ratio, 4), "healthy_seconds": [list(pair) for pair in seconds]}


def _once() -> tuple[float, float]:
    """Return the seconds until the last VM that is well had its vCPU: by themselves, and beside the sick ones."""
    sick = [f"{kind}{number:03}" for kind, count in _COUNTS.items() for number in range(count)]
    well = [f"well{number:03}" for number in range(_WELL)]
    # Every fifth is sick.
    names = [name for place, name in enumerate(sick) for name in (*well[4 * place : 4 * place + 4], name)]
    liars = [name for name in sick if name.startswith("lie")]
    with (
        tempfile.TemporaryDirectory(prefix="vf", dir="/tmp") as folder,
        fake_fleet(Path(folder), names, "--maxcpus", "8", without_agent=liars) as fleet,
        ExitStack() as ends,
    ):
        alone = _grown(fleet, well, well, 0)
        run(fleet, "-o", "json", "apply", str(fleet.goals(dict.fromkeys(well, 1))))
        for name in sick:
            ends.enter_context(SICK[name[:-3]][0](fleet.vms[name]))
        return alone, _grown(fleet, names, well, 4)


def _grown(fleet: FakeFleet, names: list[str], well: list[str], status: int) -> float:
    """Let them grow. Return the seconds until the last of those that are well was asked its last question."""
    began = time.monotonic()
    words = ("--timeout", _TIMEOUT, "-o", "json", "apply", str(fleet.goals(dict.fromkeys(names, 2))))
    run(fleet, *words, ends_with=(status,))
    ended = max(float(fleet.vms[name].steer.commands()[-1]["time"]) for name in well)
    return ended - began
