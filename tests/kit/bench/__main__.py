# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmark and writes ``build/bench.json``; ``--only`` runs a part of it, and then writes nothing.

``--base`` measures an older commit, too, pair by pair. ``--fleet`` measures many VMs instead, on fakes, and writes
``build/fleet.json``. ``--peers`` measures vcpuctl beside virsh, on a domain of libvirt, into ``build/peers.json``.
``--autoscale`` measures from a load to its vCPUs, into ``build/autoscale.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from kit.bench import base, fleet, own, peers, real, report, request, scale
from kit.lab import Lab

OUTPUT = real.ROOT / "build" / "bench.json"
#: What is long and is not printed.
_SAMPLES = ("seconds", "base_samples")


def over_the_floor(lab: Lab, rounds: int, say: real.Say) -> dict[str, Any]:
    """Ratios, cold and warm, with their samples."""
    cold, warm = real.cold(lab, rounds, say), real.warm(lab, rounds, say)
    return {
        "ratio_p50": report.ratios(cold, 0.50),
        "ratio_p99": report.ratios(cold, 0.99),
        "ratio_p50_warm": report.ratios(warm, 0.50),
        "ratio_p99_warm": report.ratios(warm, 0.99),
        "ratio_p50_least": report.ratios(cold, 0.50, "least"),
        "ratio_p50_least_warm": report.ratios(warm, 0.50, "least"),
        "least": {
            f"{name}{kind}": report.over_least(samples, name)
            for kind, samples in (("", cold), ("_warm", warm))
            for name in ("plug_1", "plug_8")
        },
        "seconds": {"cold": report.seconds(cold), "warm": report.seconds(warm)},
    }


def of_the_agent(lab: Lab, rounds: int, say: real.Say) -> dict[str, Any]:
    """What vcpud costs a guest in which nothing happens, and what a request does that asks for nothing."""
    asked = request.measure(lab, rounds, say)
    with lab.vm(real.COLD) as vm:
        wakeups = real.agent_wakeups_per_min(vm)
        say("agent: one idle minute watched")
        rss = real.agent_rss_mb(vm)
    return {"agent_wakeups_per_min": round(wakeups, 1), "agent_rss_mb": round(rss, 1), **asked}


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="cycles of each kind (default: 7)")
    parser.add_argument(
        "--only", choices=("floor", "own", "agent", "base", "scale"), help="measure this part and print it"
    )
    parser.add_argument("--base", metavar="COMMIT", help="measure this older commit beside today's tree, too")
    parser.add_argument("--fleet", action="store_true", help="measure many VMs in one process, on fakes")
    parser.add_argument("--peers", action="store_true", help="measure vcpuctl beside virsh")
    parser.add_argument("--autoscale", action="store_true", help="measure from a load to its vCPUs, in 20 rounds")
    parser.add_argument("--more", action="store_true", help="with --autoscale: so many --rounds beside those there are")
    args = parser.parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {text}", file=sys.stderr, flush=True)

    found: dict[str, Any] = {}
    if args.fleet:
        print(json.dumps(fleet.write(args.rounds, say), indent=2))
        return 0
    if args.peers:
        print(json.dumps(peers.write(max(args.rounds, peers.LEAST_ROUNDS), say), indent=2))
        return 0
    if args.autoscale:
        from kit.bench import autoscale

        with Lab(progress=say) as lab:
            rounds = args.rounds if args.more else autoscale.ROUNDS
            found = autoscale.write(lab, rounds, say, more=args.more)
        print(json.dumps({name: value for name, value in found.items() if name != "samples"}, indent=2))
        return 0
    with Lab(progress=say) as lab:
        if args.only in (None, "own"):
            found |= own.measure(args.rounds, say)
        if args.base is not None and args.only in (None, "base"):
            found |= base.measure(lab, args.base, args.rounds, say)
        if args.only == "scale" or (args.base is not None and args.only is None):
            found |= scale.measure(lab, say)
        if args.only in (None, "agent"):
            found |= of_the_agent(lab, args.rounds, say)
        if args.only in (None, "floor"):
            found |= over_the_floor(lab, args.rounds, say)
        if args.only is None:
            with lab.vm(real.COLD) as vm:
                found = {"versions": report.versions(vm), "rounds": args.rounds, **found}
    if args.only is None:
        report.write(OUTPUT, found)
        say(f"written: {OUTPUT.relative_to(real.ROOT)}")
    print(json.dumps({name: value for name, value in found.items() if name not in _SAMPLES}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
