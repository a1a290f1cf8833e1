# SPDX-License-Identifier: Apache-2.0
"""Run the simulation, and write what came of it into docs/reports."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from .report import write
from .run import Outcome, all_rules
from .traces import mixed, single

ROOT = Path(__file__).resolve().parents[3]


def main() -> int:
    """Simulate each load with each rule. Return 1 if the aims are not met."""
    parser = argparse.ArgumentParser(prog="make simulate")
    parser.add_argument("--into", type=Path, default=ROOT / "docs/reports")
    args = parser.parse_args()
    outcomes: dict[str, list[Outcome]] = {}
    # All of them in a row show nothing that can be seen: the plot is of the one that has most in it.
    plotted = single()
    for trace in (*plotted, mixed()):
        outcomes[trace.name] = [replace(each, trace=trace.name) for each in all_rules(trace)]
        sys.stderr.write(f"{trace.name}\n")
    found = write(args.into, plotted, outcomes, plots=True)
    met = found["slack_ratio_hpa"] <= 1.0 and found["pressure_ratio_hpa"] <= 1 / 3
    sys.stderr.write(
        f"slack {found['slack_ratio_hpa']:.2f} of HPA's, pressure left {found['pressure_ratio_hpa']:.2f}: "
        f"{'as it should be' if met else 'not as it should be'}\n"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
