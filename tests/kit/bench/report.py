# SPDX-License-Identifier: Apache-2.0
"""Figures from samples, and the report that machines read (``build/bench.json``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kit.bench.real import ROOT, Samples
from kit.lab import Vm, report

SCHEMA_VERSION = 1


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def ratios(samples: Samples, share: float, kind: str = "ours") -> dict[str, float]:
    """That percentile of ours, or of the ``least`` agent, over the same percentile of the floor, by operation."""
    measured: dict[str, list[float]] = getattr(samples, kind)
    return {
        name: round(percentile(values, share) / percentile(samples.floor[name], share), 3)
        for name, values in measured.items()
    }


def over_least(samples: Samples, name: str) -> float:
    """Return the median of ours over the median of the least agent in the same run."""
    return round(percentile(samples.ours[name], 0.50) / percentile(samples.least[name], 0.50), 3)


def seconds(samples: Samples) -> dict[str, dict[str, list[float]]]:
    """The raw samples, in seconds."""
    return {
        kind: {name: [round(value, 4) for value in values] for name, values in getattr(samples, kind).items()}
        for kind in ("floor", "least", "ours", "process")
    }


def write(path: Path, found: dict[str, Any]) -> None:
    """Write the report whole, or not at all."""
    document = {"schema_version": SCHEMA_VERSION, "date": datetime.now(UTC).isoformat(timespec="seconds"), **found}
    report.write(path, document)


def versions(vm: Vm) -> dict[str, str]:
    """What was measured on."""
    qemu = vm.qmp.execute("query-version")["qemu"]
    return {
        "qemu": f"{qemu['major']}.{qemu['minor']}.{qemu['micro']}",
        "accel": vm.accel,
        "kernel": vm.shell("uname -r").strip(),
        "guest": vm.spec.guest,
        "commit": report.commit(ROOT),
    }
