# SPDX-License-Identifier: Apache-2.0
"""The figures and the plots of a simulation, as a page and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .run import SETTINGS, Outcome
from .traces import Trace

#: One colour a rule, that can be told apart without colours, too, by its dashes.
_LINES = {
    "vcpuctl": ("#0b6e4f", "-"),
    "Neon": ("#c44536", "--"),
    "Proxmox script": ("#5b5f97", ":"),
    "HPA": ("#e09f3e", "-."),
}
_HEAD = """\
# vCPUs that follow the load: rules compared in simulated time

`make simulate` made this page, its plots and [autoscale.json](autoscale.json). Each rule gets the same loads, the
same limits (1 to {most} vCPUs) and the same time for a resize (0.4 s for the first vCPU up, 0.1 s for each further one,
0.5 s for each one down). The guest is a fluid (`tests/kit/autoscale/guest.py`): runnable tasks share the CPUs, requests
pile up while there are too few of them, and are given up after 30 s.

The others are models of what they document (`tests/kit/autoscale/rules.py`): Neon's rule (every 5 s, load1 / 0.9), the
script of Proxmox's users (every 300 s, one up above 80 %, one down below 20 %), and HPA's with its defaults (every
15 s, 80 %, down by the highest goal of 300 s).

- **slack**: vCPU-seconds that were given and had nothing to do.
- **pressure left**: vCPU-seconds that could have been given, and would have been used.
- **turns**: changes of direction an hour.
- **to enough**: seconds from too few vCPUs to enough of them, median and longest.
"""


def figures(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """Return all figures, by trace and rule, and how ours compare with HPA's over all traces in a row."""
    by_trace = {
        trace: {
            each.rule: {
                "slack_vcpu_s": round(each.slack, 1),
                "pressure_left_vcpu_s": round(each.lack, 1),
                "used_vcpu_s": round(each.used, 1),
                "resizes_per_hour": round(each.resizes_an_hour, 1),
                "turns_per_hour": round(each.turns_an_hour, 1),
                "to_enough_median_s": round(each.time_to_enough[0], 2),
                "to_enough_longest_s": round(each.time_to_enough[1], 2),
            }
            for each in ends
        }
        for trace, ends in outcomes.items()
    }
    whole = by_trace[next(reversed(by_trace))]
    ours, hpa = whole["vcpuctl"], whole["HPA"]
    return {
        "schema_version": 1,
        "slack_ratio_hpa": round(ours["slack_vcpu_s"] / hpa["slack_vcpu_s"], 3),
        "pressure_ratio_hpa": round(ours["pressure_left_vcpu_s"] / hpa["pressure_left_vcpu_s"], 3),
        "traces": by_trace,
    }


def page(found: Mapping[str, Any], plots: Mapping[str, str]) -> str:
    """Return the page; ``plots`` are file names by trace."""
    lines = [_HEAD.format(most=SETTINGS.max)]
    lines.append(
        f"Over all loads in a row vcpuctl's slack is {found['slack_ratio_hpa']:.2f} of HPA's, and the pressure left "
        f"{found['pressure_ratio_hpa']:.2f} of HPA's.\n"
    )
    for trace, rules in reversed(found["traces"].items()):
        lines += [f"## {trace[0].upper()}{trace[1:]}", ""]
        if trace in plots:
            lines += [f"![{trace}: vCPUs over time, by rule]({plots[trace]})", ""]
        lines += [
            "| rule | slack, vCPU-s | pressure left, vCPU-s | used, vCPU-s | resizes/h | turns/h | to enough, s |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {rule} | {each['slack_vcpu_s']:.0f} | {each['pressure_left_vcpu_s']:.0f} | {each['used_vcpu_s']:.0f} | "
            f"{each['resizes_per_hour']:.1f} | {each['turns_per_hour']:.1f} | "
            f"{each['to_enough_median_s']:.1f} (longest {each['to_enough_longest_s']:.0f}) |"
            for rule, each in rules.items()
        ]
        lines.append("")
    return "\n".join(lines)


def plot(trace: Trace, outcomes: Sequence[Outcome], file: Path) -> None:
    """Draw what was needed and what each rule gave, over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    unit, name = (60.0, "minutes") if trace.seconds <= 7200 else (3600.0, "hours")
    figure, rows = plt.subplots(
        len(outcomes), 1, sharex=True, sharey=True, figsize=(9, 1.15 * len(outcomes) + 1.1), layout="constrained"
    )
    for row, each in zip(rows, outcomes, strict=True):
        times = [time / unit for time, _, _ in each.line]
        color, dashes = _LINES[each.rule]
        row.fill_between(times, [need for _, _, need in each.line], step="post", color="#cfd8dc", linewidth=0)
        row.plot(times, [given for _, given, _ in each.line], drawstyle="steps-post", color=color, ls=dashes, lw=1.4)
        row.set_ylabel(each.rule, rotation=0, ha="right", va="center", color=color)
        row.set_ylim(0, SETTINGS.max + 0.6)
        row.set_yticks([0, SETTINGS.max // 2, SETTINGS.max])
        row.grid(axis="y", lw=0.3)
        for side in ("top", "right"):
            row.spines[side].set_visible(False)
    rows[0].set_title(f"{trace.name}: vCPUs given (line), tasks that could run (grey)", fontsize=10)
    rows[-1].set_xlabel(name)
    # As pixels: a line of some ten thousand points is megabytes of SVG. The same figures give the same file.
    figure.savefig(file, dpi=100, metadata={"Software": None})
    plt.close(figure)


def write(folder: Path, traces: Sequence[Trace], outcomes: Mapping[str, Sequence[Outcome]], *, plots: bool) -> Any:
    """Write page, figures and plots into the folder. Return the figures."""
    found = figures(outcomes)
    names: dict[str, str] = {}
    (folder / "autoscale").mkdir(parents=True, exist_ok=True)
    for trace in traces:
        name = "autoscale/" + "-".join("".join(c if c.isalnum() else " " for c in trace.name).split()) + ".png"
        if plots:
            plot(trace, outcomes[trace.name], folder / name)
        names[trace.name] = name
    (folder / "autoscale.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "autoscale.md").write_text(page(found, names), encoding="utf-8")
    return found
