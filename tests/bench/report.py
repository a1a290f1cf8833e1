# SPDX-License-Identifier: Apache-2.0
"""Figures from samples, and the report that machines read (``build/bench.json``)."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.real import Samples

SCHEMA_VERSION = 1


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def ratios(samples: Samples, share: float) -> dict[str, float]:
    """That percentile of ours over the same percentile of the floor, by operation."""
    return {
        name: round(percentile(samples.ours[name], share) / percentile(samples.floor[name], share), 3)
        for name in samples.floor
    }


def seconds(samples: Samples) -> dict[str, dict[str, list[float]]]:
    """The raw samples, in seconds."""
    return {
        kind: {name: [round(value, 4) for value in values] for name, values in getattr(samples, kind).items()}
        for kind in ("floor", "ours", "process")
    }


def commit(root: Path) -> str:
    """The commit that was measured, with "-dirty" if files differ from it."""
    argv = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def write(path: Path, report: dict[str, Any]) -> None:
    """Write the report whole, or not at all."""
    document = {"schema_version": SCHEMA_VERSION, "date": datetime.now(UTC).isoformat(timespec="seconds"), **report}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(document, indent=2) + "\n")
    os.replace(temporary, path)
