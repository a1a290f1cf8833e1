# SPDX-License-Identifier: Apache-2.0
"""What goes to stdout: JSON documents (design, section 7) and, for people, tables."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vcpu_host.core.model import LEVELS
from vcpu_host.core.view import SlotView, ThreadView, VmView

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from vcpu_host.core.finding import Finding
    from vcpu_host.core.migration import Comparison
    from vcpu_host.core.model import Outcome, Reason, Slot
    from vcpu_host.core.plan import Plan
    from vcpu_host.core.result import OperationResult
    from vcpu_host.core.shape import Place
    from vcpu_host.numa import Assigned

SCHEMA_VERSION = 1

_STATE_STYLE = {"online": "green", "empty": "dim", "partial": "yellow", "offline": "yellow", "plugged": "yellow"}
_OUTCOME_STYLE = {"done": "green", "refused": "yellow", "partial": "yellow", "failed": "red", "unknown": "magenta"}
_LEVELS = [f"{name}-id" for name in LEVELS]
_LEVEL_STYLE = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "red"}


def load() -> None:
    """Import what draws tables."""
    import rich.console
    import rich.table
    import rich.text  # noqa: F401 - for its side effect


def emit_json(document: dict[str, object]) -> None:
    """One JSON document on stdout, and nothing else."""
    print(json.dumps({"schema_version": SCHEMA_VERSION, **document}), flush=True)  # noqa: T201 - stdout is the product


def view_document(view: VmView) -> dict[str, object]:
    """``vcpuctl list -o json``, without the schema's version."""
    agent = view.agent
    return {
        "vm": {
            "name": view.host.vm_name,
            "qemu_version": view.host.version_text,
            "machine": view.host.machine,
            "arch": view.host.arch,
            "accel": view.host.accel,
            "status": view.host.status,
            "possible_vcpus": view.possible_vcpus,
            "plugged_vcpus": view.plugged_vcpus,
            "online_vcpus": view.online_vcpus,
            "migration": view.host.migration or None,
            "no_hotplug": view.host.no_hotplug.to_json() if view.host.no_hotplug else None,
        },
        "agent": None
        if agent is None
        else {
            "connected": True,
            "version": agent.version,
            "kernel": agent.kernel,
            "boot_id": agent.boot_id,
            "platform": agent.platform,
            "eject_gate": agent.eject_gate,
        },
        "agent_trouble": view.agent_trouble.to_json() if view.agent_trouble else None,
        "record_trouble": view.record_trouble.to_json() if view.record_trouble else None,
        "slots": [_slot_document(slot) for slot in view.slots],
        "unexplained_guest_cpus": [cpu.number for cpu in view.strangers],
    }


def _slot_document(view: SlotView) -> dict[str, object]:
    return {
        "slot": view.index,
        "props": dict(view.slot.props),
        "type": view.slot.type,
        "vcpus": view.slot.vcpus,
        "state": str(view.state),
        "id": view.slot.device_id,
        "qom_path": view.slot.qom_path,
        "pending": None
        if view.pending is None
        else {
            "operation": str(view.pending.kind),
            "id": view.pending.device_id,
            "since": datetime.fromtimestamp(view.pending.since, UTC).isoformat(timespec="seconds"),
        },
        "removable": view.not_removable is None,
        "not_removable": view.not_removable.to_json() if view.not_removable else None,
        "node": node_of(view),
        "threads": [
            {
                "guest_cpu": thread.cpu.number if thread.cpu else None,
                "online": thread.online,
                "host_tid": thread.host_tid,
                "firmware_id": thread.firmware_id or None,
                "guest_node": thread.cpu.node if thread.cpu else None,
            }
            for thread in view.threads
        ],
    }


def node_of(view: SlotView) -> int | None:
    """The slot's NUMA node: QEMU's word, or else the guest's."""
    if view.slot.node is not None:
        return view.slot.node
    return next((t.cpu.node for t in view.threads if t.cpu is not None and t.cpu.node is not None), None)


# --- for people -----------------------------------------------------------------------------------------------------


def console() -> Console:
    """A console on stdout that cuts nothing when stdout is a file or a pipe, and shows words as they are.

    With markup a guest's words could be links, colours, or a mistake that ends the command.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() else 240
    return Console(
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=not sys.stdout.isatty(),
        no_color="NO_COLOR" in os.environ,
    )


def show(*parts: RenderableType) -> None:
    """Print for people."""
    console().print(*parts, sep="\n")


def _table(*columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="fold")
    return table


def _styled(text: str, styles: dict[str, str], key: str) -> Text:
    from rich.text import Text

    return Text(text, styles.get(key, ""))


def view_table(view: VmView) -> RenderableType:
    """``vcpuctl list`` for people."""
    from rich.console import Group
    from rich.text import Text

    table = _table("SLOT", "STATE", "GUEST CPU", "ID", "PROPS", "NODE", "HOST TID")
    for slot in view.slots:
        table.add_row(
            str(slot.index),
            _styled(str(slot.state), _STATE_STYLE, str(slot.state)),
            _join(_cpu_word(thread) for thread in slot.threads),
            slot.slot.device_id or ("(boot)" if slot.slot.filled else "-"),
            props_text(slot.slot),
            _join([node_of(slot)]),
            _join(thread.host_tid for thread in slot.threads),
        )
    online = "?" if view.online_vcpus is None else str(view.online_vcpus)
    host = view.host
    head = (
        f"{host.vm_name or 'VM'}: QEMU {host.version_text} {host.machine} ({host.accel}), {host.status}"
        f"{f', migration: {host.migration}' if host.migrating else ''}; "
        f"vCPUs: {online} online, {view.plugged_vcpus} plugged, {view.possible_vcpus} possible"
    )
    if view.agent is not None:
        agent = f"agent: vcpud {view.agent.version}, Linux {view.agent.kernel}"
        if view.agent.eject_gate is not None:
            agent += f"; eject gate: {view.agent.eject_gate}"
    else:
        agent = f"agent: {view.agent_trouble.text}" if view.agent_trouble else "agent: none"
    parts: list[RenderableType] = [Text(head), Text(agent), table]
    if host.no_hotplug is not None:
        parts.append(Text(f"no hotplug: {host.no_hotplug}"))
    if view.record_trouble is not None:
        parts.append(Text(str(view.record_trouble), "red"))
    for slot in view.slots:
        if slot.pending is not None:
            when = datetime.fromtimestamp(slot.pending.since).astimezone().isoformat(" ", "seconds")
            parts.append(Text(f"pending: {slot.pending.kind} of slot {slot.index}, since {when}", "yellow"))
    return Group(*parts)


def plan_table(plan: Plan) -> RenderableType:
    """``vcpuctl plan`` for people."""
    from rich.console import Group
    from rich.text import Text

    lines: list[RenderableType] = []
    if plan.recover:
        names = ", ".join(str(step.slot.index) for step in plan.recover)
        lines.append(Text(f"first: the removal of {names} is brought to its end; then the plan is made anew", "yellow"))
    if plan.steps:
        table = _table("#", "STEP", "SLOT", "ID", "WHY", "IF IT FAILS")
        for number, step in enumerate(plan.steps, 1):
            name = step.device_id or "(boot)"
            table.add_row(str(number), str(step.kind), str(step.slot.index), name, step.why, plan.on_failure(step))
        lines.append(table)
    for refusal in plan.refusals:
        where = "" if refusal.slot is None else f"slot {refusal.slot}: "
        lines.append(Text(f"refused: {where}{refusal.reason}", "yellow"))
    if not lines:
        lines.append(Text("nothing to do"))
    return Group(*lines)


def result_table(result: OperationResult) -> RenderableType:
    """An operation's result for people."""
    from rich.console import Group
    from rich.text import Text

    lines: list[RenderableType] = []
    if result.slots:
        table = _table("SLOT", "ID", "OUTCOME", "GUEST CPU", "PHASES", "REASON")
        for slot in result.slots:
            phases = " ".join(f"{name} {seconds:.3f}s" for name, seconds in slot.phases.items())
            table.add_row(
                str(slot.slot),
                slot.device_id or "-",
                _styled(str(slot.outcome), _OUTCOME_STYLE, str(slot.outcome)),
                _join(f"cpu{number}" for number in slot.guest_cpus),
                phases or "-",
                str(slot.reason) if slot.reason else "",
            )
        lines.append(table)
    lines += [
        Text(
            f"begun before: removal of slot {slot.slot}: {slot.outcome}" + (f" ({slot.reason})" if slot.reason else "")
        )
        for slot in result.recovered
    ]
    word = str(result.outcome)
    text = f"{result.request.operation}: {word} in {result.elapsed:.3f} s"
    if not result.slots and result.outcome == "done":
        text += " (nothing to do)"
    lines.append(_styled(text, _OUTCOME_STYLE, word))
    if result.reason is not None and not any(slot.reason == result.reason for slot in result.slots):
        lines.append(Text(str(result.reason)))
    return Group(*lines)


def comparison_table(
    step: str, comparison: Comparison, plugged: Sequence[Place], outcome: Outcome, reason: Reason | None
) -> RenderableType:
    """``vcpuctl migrate check`` and ``prepare`` for people."""
    from rich.console import Group
    from rich.text import Text

    lines: list[RenderableType] = [Text(f"plugged on the destination: slot {p.index}, as {p.name}") for p in plugged]
    if comparison.differences:
        lines.append(findings_table([difference.finding for difference in comparison.differences]))
    if reason is not None:
        lines.append(Text(str(reason), "red"))
    word = str(outcome)
    text = f"migrate {step}: {word}"
    if not comparison.obstacles:
        text += " (the destination has the vCPUs that the VM has)"
    lines.append(_styled(text, _OUTCOME_STYLE, word))
    return Group(*lines)


def assigned_table(assigned: Assigned) -> RenderableType:
    """``vcpuctl numa assign`` for people."""
    from rich.console import Group
    from rich.text import Text

    lines: list[RenderableType] = []
    if assigned.nodes:
        table = _table("SLOT", "PROPS", "NODE")
        for slot in assigned.slots:
            table.add_row(str(slot.index), props_text(slot), str(assigned.nodes[slot.index]))
        lines.append(table)
    word = str(assigned.outcome)
    lines.append(_styled(f"numa assign: {word}{assigned.what}", _OUTCOME_STYLE, word))
    if assigned.reason is not None:
        lines.append(Text(str(assigned.reason)))
        lines += [Text(line, overflow="fold") for line in assigned.lines]
    return Group(*lines)


def findings_table(findings: Sequence[Finding]) -> RenderableType:
    """``vcpuctl doctor`` for people."""
    from rich.console import Group
    from rich.text import Text

    lines: list[RenderableType] = []
    for finding in findings:
        line = Text()
        line.append(f"{finding.level:8}", _LEVEL_STYLE.get(str(finding.level), ""))
        line.append(f" {finding.text}")
        lines.append(line)
        if finding.fix:
            lines.append(Text(f"         fix: {finding.fix}"))
    return Group(*lines)


def _join(values: Iterable[object]) -> str:
    return ",".join("-" if value is None else str(value) for value in values) or "-"


def props_text(slot: Slot) -> str:
    """From the outermost level to the innermost; names that we do not know come first, as QEMU has them."""
    props = sorted(slot.props.items(), key=lambda item: _LEVELS.index(item[0]) if item[0] in _LEVELS else -1)
    return " ".join(f"{name.removesuffix('-id')}={value}" for name, value in props)


def _cpu_word(thread: ThreadView) -> str | None:
    return f"cpu{thread.cpu.number}" if thread.cpu else None
