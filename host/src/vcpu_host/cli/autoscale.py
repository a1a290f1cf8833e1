# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl autoscale``: what the service's autoscaler decides for VMs, from what, and what became of it."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from vcpu_host.core.fleet import NoMatchError, named
from vcpu_host.core.reason import Reason
from vcpu_host.core.text import printable, some_vcpus
from vcpu_host.documents import Document, read_reason
from vcpu_host.documents import autoscale as documents
from vcpu_host.errors import UsageError, VcpuctlError
from vcpu_host.local.target import AnyTarget, known
from vcpu_host.sharing.calls import Call, Kind

from . import render, tables
from .connect import vm_at
from .exitcodes import Exit, of_error, worst
from .layout import Block, Column, Line, Span, Table
from .target import check_many, many, target_of

_STYLE = {"up": "green", "down": "cyan", "hold": "dim"}
_VERDICTS = {"passes": "green", "bounds": "yellow", "holds": "yellow"}


async def autoscale(args: argparse.Namespace) -> Exit:
    """Ask for each VM that is named, switch it if that is wanted, and show it."""
    switch = args.step if args.step in ("on", "off") else ""
    targets = _targets(args)
    ends = await asyncio.gather(*(_asked(target, switch) for target in targets.values()))
    found = [(name, end if isinstance(end, dict) else end.reason) for name, end in zip(targets, ends, strict=True)]
    document = documents.of_autoscale(found)
    if args.output == "json":
        render.emit_json(document)
    else:
        tables.show(blocks(document["vms"], args.step))
    return worst([Exit.DONE if isinstance(end, dict) else of_error(end) for end in ends])


def _targets(args: argparse.Namespace) -> dict[str, AnyTarget | Reason]:
    """Return the VMs by their names; of a pattern's, or of all, only those whose file has [autoscale], or is wrong."""
    words = many(args)
    if not words:
        target = target_of(args)
        return {printable(target.name or target.told): target}
    check_many(args)
    files = known()
    try:
        names = named(words, files)
    except NoMatchError:
        return {}
    found = {name: files[name] for name in names if name in files}
    return {
        name: target for name, target in found.items() if isinstance(target, Reason) or target.autoscale is not None
    }


async def _asked(target: AnyTarget | Reason, switch: str) -> Document | VcpuctlError:
    if isinstance(target, Reason):
        return UsageError(target)
    try:
        return await vm_at(target).ask(Call(Kind.AUTOSCALE, switch=switch), lambda message: None)
    except VcpuctlError as error:
        return error


def blocks(vms: Sequence[Document], step: str) -> list[Block]:
    """Return what people are shown."""
    if not vms:
        return [Line("no VM in vms.d has [autoscale]")]
    good = [vm for vm in vms if vm["error"] is None]
    bad = [Line(f"{vm['name']}: {read_reason(vm['error'])}", "yellow") for vm in vms if vm["error"] is not None]
    if step == "history":
        return [*_history(good), *bad]
    if step == "explain":
        return [*(block for vm in good for block in _explained(vm)), *bad]
    return [*_status(good), *bad]


def _status(vms: Sequence[Document]) -> list[Block]:
    if not vms:
        return []
    names = ("VM", "MODE", "ONLINE", "GOAL", "USED", "WAIT", "STOLEN", "PRESSURE", "WHY")
    rows = [_status_row(vm) for vm in vms]
    return [
        Table([Column(name, breaks=name == "VM") for name in names], rows),
        *(Line(vm["decision"]["text"], lead=f"{vm['name']}: ") for vm in vms),
    ]


def _status_row(vm: Document) -> list[str | Span]:
    decision, load = vm["decision"], vm["decision"]["load"] or {}
    return [
        vm["name"],
        vm["mode"] if vm["enabled"] else "off",
        str(decision["online"]),
        (str(decision["goal"]), _STYLE[decision["direction"]]),
        *(_figure(load.get(name)) for name in ("used", "waiting", "steal")),
        _share(load.get("pressure")),
        decision["code"],
    ]


def _history(vms: Sequence[Document]) -> list[Block]:
    entries = sorted(
        ((entry["time"], vm["name"], entry) for vm in vms for entry in vm["history"]), key=lambda each: each[:2]
    )
    if not entries:
        return [Line("nothing was decided yet")]
    rows: list[list[str | Span]] = [
        [
            datetime.fromtimestamp(time).astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            name,
            (f"{entry['online']} -> {entry['goal']}" if entry["direction"] != "hold" else str(entry["online"]), ""),
            entry["code"],
            _became(entry),
        ]
        for time, name, entry in entries
    ]
    columns = [Column("TIME"), Column("VM", breaks=True), Column("VCPUS"), Column("WHY"), Column("DONE", breaks=True)]
    return [Table(columns, rows)]


def _became(entry: Document) -> str | Span:
    if not entry["acted"]:
        return "" if entry["direction"] == "hold" else ("observed", "dim")
    if entry["outcome"] is None:
        return "under way"
    said = f"{entry['outcome']} in {entry['elapsed']:.1f} s"
    return (f"{said}: {entry['words']}" if entry["words"] else said, tables.OUTCOME_STYLE[entry["outcome"]])


def _explained(vm: Document) -> list[Block]:
    decision, settings, load = vm["decision"], vm["settings"], vm["decision"]["load"]
    goal, online = decision["goal"], decision["online"]
    verb = {"up": f"grow to {goal}", "down": f"shrink to {goal}", "hold": f"stay at {goal}"}[decision["direction"]]
    would = "is to" if vm["mode"] == "act" and vm["enabled"] else "would"
    found: list[Block] = [
        Line(
            f"{vm['name']}: {some_vcpus(online)} online, {would} {verb} (from {decision['min']} to {decision['max']})"
        ),
        Line(_load(load), lead="  load    "),
    ]
    if decision["need"] is not None:
        need = (
            f"{some_vcpus(decision['need'])} now; {decision['highest_need']} at most in {settings['down_window']:g} s"
        )
        found.append(Line(need, lead="  needs   "))
    found += [
        Line(f"{check['code']}: {check['text']}", _VERDICTS[check["verdict"]], lead=f"  {check['verdict']:7} ")
        for check in decision["checks"]
    ]
    guest = vm["guest"]
    lacks = [] if guest is None else [words for key, words in _LACKS.items() if not guest[key]]
    if lacks:
        found.append(Line(f"the guest's kernel does not tell {', '.join(lacks)}", lead="  note    "))
    return found


#: What a guest may not tell, and does without.
_LACKS = {"pressure": "pressure (PSI)", "run_queues": "wait times (schedstat)"}


def _load(load: Any) -> str:
    if load is None:
        return "not known"
    parts = [f"{load['used']:.2f} vCPUs used", f"{load['steal']:.2f} stolen"]
    if load["waiting"] is not None:
        parts.append(f"{load['waiting']:.2f} tasks wait")
    if load["pressure"] is not None:
        parts.append(f"some task waits {load['pressure']:.0%} of the time")
    if load["memory"] is not None:
        parts.append(f"for memory {load['memory']:.0%}")
    return f"{', '.join(parts)}, over {load['covers']:.1f} s"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
