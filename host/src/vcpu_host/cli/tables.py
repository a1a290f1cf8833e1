# SPDX-License-Identifier: Apache-2.0
"""What people read on stdout: for each command the blocks that it shows, and the console that shows them.

Reasons stand below the tables, each once, with the slots that it is about: they are the longest and the last to be
missed. ``layout`` sees to it that nothing is cut off.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from vcpu_host.core import descriptors
from vcpu_host.core.model import LEVELS, SlotState
from vcpu_host.core.text import ranges
from vcpu_host.core.view import SlotView, VmView

from .layout import Block, Column, Line, Span, Table, compose

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

    from vcpu_host.core.finding import Finding
    from vcpu_host.core.migration.compare import Comparison
    from vcpu_host.core.migration.shape import Place
    from vcpu_host.core.model import Slot
    from vcpu_host.core.operation.result import OperationResult, SlotResult
    from vcpu_host.core.planning.plan import Plan
    from vcpu_host.core.reason import Outcome, Reason
    from vcpu_host.vm.numa_assign import Assigned

_STATE_STYLE = {"online": "green", "empty": "dim", "partial": "yellow", "offline": "yellow", "plugged": "yellow"}
OUTCOME_STYLE = {"done": "green", "refused": "yellow", "partial": "yellow", "failed": "red", "unknown": "magenta"}
_LEVELS = [f"{name}-id" for name in LEVELS]
_LEVEL_STYLE = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "red"}
_FINDING = 9  # columns before a finding's text


def load() -> None:
    """Import what draws."""
    import rich.console
    import rich.text  # noqa: F401 - for its side effect


def console() -> Console:
    """A console on stdout that shows words as they are.

    With markup a guest's words could be links, colours, or a mistake that ends the command.
    """
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True, no_color="NO_COLOR" in os.environ)


def show(blocks: Sequence[Block]) -> None:
    """Print for people: for a terminal's width, or, into a file or a pipe, for none. No blocks are no line."""
    if not blocks:
        return
    screen = console()
    screen.print(text(blocks, screen.width if sys.stdout.isatty() else None))


def text(blocks: Sequence[Block], width: int | None) -> Text:
    """The blocks as rich shows them."""
    from rich.text import Text

    lines = [Text.assemble(*((words, style) for words, style in line)) for line in compose(blocks, width)]
    return Text("\n").join(lines)


class Screen:
    """The blocks as they are shown again and again, for the width that the terminal has then."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Rich's protocol."""
        del console
        yield text(self._blocks, options.max_width)


# --- list and watch -------------------------------------------------------------------------------------------------


#: So many empty slots in a row are one row of the table on a terminal.
_RUN = 3
_WIDE = (Column("VCPUS"), Column("TYPE"), Column("REMOVABLE"), Column("FIRMWARE ID", breaks=True), Column("QOM PATH"))


def view_blocks(view: VmView, *, wide: bool = False, collapse: bool = False) -> list[Block]:
    """Return what ``vcpuctl list`` shows. ``wide``: every column. ``collapse``: a run of empty slots is one row."""
    columns = (
        *(Column("SLOT"), Column("STATE"), Column("GUEST CPU", breaks=True), Column("ID")),
        *(Column("PROPS", breaks=True), Column("NODE", breaks=True), Column("HOST TID", breaks=True)),
    )
    runs = _runs(view.slots) if collapse and not wide else [[slot] for slot in view.slots]
    rows = [
        _run_row(run) if len(run) > 1 else _slot_row(run[0]) + (_wide_cells(run[0]) if wide else []) for run in runs
    ]
    return [*_vm_lines(view), Table((*columns, *_WIDE) if wide else columns, rows), *_below(view)]


def for_terminal(view: VmView, output: str) -> list[Block]:
    """Return what list and watch show where stdout is a terminal, or a file; ``output`` is the word behind -o."""
    return view_blocks(view, wide=output == "wide", collapse=sys.stdout.isatty())


def _runs(slots: Iterable[SlotView]) -> Iterator[list[SlotView]]:
    """Yield the slots in rows: those of a run of _RUN or more empty slots of one node together, others alone."""
    for (empty, _), group in itertools.groupby(slots, lambda slot: (_nothing_to_tell(slot), node_text(slot))):
        run = list(group)
        if empty and len(run) >= _RUN:
            yield run
        else:
            yield from ([slot] for slot in run)


def _nothing_to_tell(slot: SlotView) -> bool:
    return slot.state is SlotState.EMPTY and slot.pending is None


def _run_row(run: Sequence[SlotView]) -> list[str | Span]:
    first, last = run[0], run[-1]
    return [
        f"{first.index}-{last.index}",
        _styled(str(first.state), _STATE_STYLE),
        "-",
        "-",
        f"{props_text(first.slot)} to {props_text(last.slot)}",
        node_text(first),
        "-",
    ]


def _wide_cells(slot: SlotView) -> list[str | Span]:
    return [
        str(slot.slot.vcpus),
        slot.slot.type,
        "yes" if slot.not_removable is None else slot.not_removable.code,
        _join(thread.firmware_id or None for thread in slot.threads),
        slot.slot.path or "-",
    ]


def _vm_lines(view: VmView) -> Iterator[Line]:
    online = "?" if view.online_vcpus is None else str(view.online_vcpus)
    host = view.host
    yield Line(
        f"{host.vm_name or 'VM'}: QEMU {host.version_text} {host.machine} ({host.accel}), {host.status}"
        f"{f', migration: {host.migration}' if host.migrating else ''}; "
        f"vCPUs: {online} online, {view.plugged_vcpus} plugged, {view.possible_vcpus} possible"
    )
    if view.agent is not None:
        gate = "" if view.agent.eject_gate is None else f"; eject gate: {view.agent.eject_gate}"
        yield Line(f"agent: vcpud {view.agent.version}, Linux {view.agent.kernel}{gate}")
    if view.agent_trouble is not None:
        yield Line("agent: " + str(view.agent_trouble).removeprefix("agent: "))
    elif view.agent is None:
        yield Line("agent: none")


def _slot_row(slot: SlotView) -> list[str | Span]:
    return [
        str(slot.index),
        _styled(str(slot.state), _STATE_STYLE),
        _join(f"cpu{thread.cpu.number}" if thread.cpu else None for thread in slot.threads),
        slot.slot.device_id or ("(boot)" if slot.slot.filled else "-"),
        props_text(slot.slot),
        node_text(slot),
        _join(thread.host_tid for thread in slot.threads),
    ]


def node_text(slot: SlotView) -> str:
    """The slot's NUMA node in QEMU, and that of its CPUs in the guest where the guest numbers them otherwise."""
    node = slot.node
    guests = sorted({t.cpu.node for t in slot.threads if t.cpu is not None and t.cpu.node is not None} - {node})
    return _join([node]) + (f" (guest: {_join(guests)})" if guests else "")


def _below(view: VmView) -> Iterator[Line]:
    if view.host.no_hotplug is not None:
        yield Line(f"no hotplug: {view.host.no_hotplug}")
    if view.record_trouble is not None:
        yield Line(str(view.record_trouble), "red")
    has = view.host.descriptors
    if has is not None and descriptors.are_few(has, view.host.accel):
        few = descriptors.found(has, view.host.accel)
        yield Line(f"{few.text}; {few.fix}", "yellow")
    for slot in view.slots:
        if slot.pending is not None:
            when = datetime.fromtimestamp(slot.pending.since).astimezone().isoformat(" ", "seconds")
            yield Line(f"pending: {slot.pending.kind} of slot {slot.index}, since {when}", "yellow")


# --- operations -------------------------------------------------------------------------------------------------------


def plan_blocks(plan: Plan) -> list[Block]:
    """``vcpuctl plan``."""
    blocks: list[Block] = []
    if plan.recover:
        names = ", ".join(str(step.slot.index) for step in plan.recover)
        blocks.append(
            Line(f"first: the removal of {names} is brought to its end; then the plan is made anew", "yellow")
        )
    if plan.steps:
        columns = (Column("#"), Column("STEP"), Column("SLOT"), Column("ID"), Column("WHY", breaks=True))
        rows = [
            [
                str(number),
                str(each.kind),
                str(each.slot.index),
                each.device_id or "(boot)",
                each.why,
                plan.on_failure(each),
            ]
            for number, each in enumerate(plan.steps, 1)
        ]
        blocks.append(Table((*columns, Column("IF IT FAILS", breaks=True)), rows))
    for refusal in plan.refusals:
        where = "" if refusal.slot is None else f"slot {refusal.slot}: "
        blocks.append(Line(f"refused: {where}{refusal.reason}", "yellow"))
    return blocks or [Line("nothing to do")]


def result_blocks(result: OperationResult) -> list[Block]:
    """An operation's result."""
    blocks: list[Block] = []
    if result.slots:
        columns = (Column("SLOT"), Column("ID"), Column("OUTCOME"), Column("GUEST CPU", breaks=True))
        rows = [_result_row(slot) for slot in result.slots]
        blocks += [Table((*columns, Column("PHASES", breaks=True)), rows), *_reasons(result.slots)]
    for slot in result.recovered:
        why = f" ({slot.reason})" if slot.reason else ""
        blocks.append(Line(f"begun before: removal of slot {slot.slot}: {slot.outcome}{why}"))
    nothing = " (nothing to do)" if not result.slots and result.outcome == "done" else ""
    words = f"{result.request.operation}: {result.outcome} in {result.elapsed:.3f} s{nothing}"
    blocks.append(Line(words, OUTCOME_STYLE.get(str(result.outcome), "")))
    if result.reason is not None and not any(slot.reason == result.reason for slot in result.slots):
        blocks.append(Line(str(result.reason)))
    return blocks


def _result_row(slot: SlotResult) -> list[str | Span]:
    return [
        str(slot.slot),
        slot.device_id or "-",
        _styled(str(slot.outcome), OUTCOME_STYLE),
        _join(f"cpu{number}" for number in slot.guest_cpus),
        " ".join(f"{name} {seconds:.3f}s" for name, seconds in slot.phases.items()) or "-",
    ]


def _reasons(slots: Iterable[SlotResult]) -> Iterator[Line]:
    """Each reason once, with the slots whose reason it is."""
    about: dict[Reason, list[int]] = {}
    for slot in slots:
        if slot.reason is not None:
            about.setdefault(slot.reason, []).append(slot.slot)
    for reason, numbers in about.items():
        yield Line(f"slot{'s' * (len(numbers) > 1)} {ranges(numbers)}: {reason}")


def comparison_blocks(
    step: str, comparison: Comparison, plugged: Sequence[Place], outcome: Outcome, reason: Reason | None
) -> list[Block]:
    """``vcpuctl migrate check`` and ``prepare``."""
    blocks: list[Block] = [Line(f"plugged on the destination: slot {p.index}, as {p.name}") for p in plugged]
    blocks += findings_blocks([difference.finding for difference in comparison.differences])
    if reason is not None:
        blocks.append(Line(str(reason), "red"))
    same = "" if comparison.obstacles else " (the destination has the vCPUs that the VM has)"
    return [*blocks, Line(f"migrate {step}: {outcome}{same}", OUTCOME_STYLE.get(str(outcome), ""))]


def assigned_blocks(assigned: Assigned) -> list[Block]:
    """``vcpuctl numa assign``."""
    blocks: list[Block] = []
    if assigned.nodes:
        columns = (Column("SLOT"), Column("PROPS", breaks=True), Column("NODE"))
        rows = [[str(slot.index), props_text(slot), str(assigned.nodes[slot.index])] for slot in assigned.slots]
        blocks.append(Table(columns, rows))
    style = OUTCOME_STYLE.get(str(assigned.outcome), "")
    blocks.append(Line(f"numa assign: {assigned.outcome}{assigned.what}", style))
    if assigned.reason is not None:
        blocks.append(Line(str(assigned.reason)))
        blocks += [Line(line, whole=True) for line in assigned.lines]
    return blocks


def findings_blocks(findings: Sequence[Finding]) -> list[Block]:
    """``vcpuctl doctor``."""
    blocks: list[Block] = []
    for finding in findings:
        level = str(finding.level)
        blocks.append(Line(finding.text, lead=f"{level:{_FINDING}}", lead_style=_LEVEL_STYLE.get(level, "")))
        if finding.fix:
            blocks.append(Line(f"fix: {finding.fix}", lead=" " * _FINDING))
    return blocks


# --- words ------------------------------------------------------------------------------------------------------------


def _styled(word: str, styles: dict[str, str]) -> Span:
    return word, styles.get(word, "")


def _join(values: Iterable[object]) -> str:
    return ",".join("-" if value is None else str(value) for value in values) or "-"


def props_text(slot: Slot) -> str:
    """As a selector may name the slot, from the outermost level to the innermost; names unknown to us come first."""
    props = sorted(slot.props.items(), key=lambda item: _LEVELS.index(item[0]) if item[0] in _LEVELS else -1)
    return ",".join(f"{name.removesuffix('-id')}={value}" for name, value in props)
