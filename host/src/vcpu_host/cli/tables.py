# SPDX-License-Identifier: Apache-2.0
"""What people read on stdout: for each document the blocks that show it, and the console that shows them.

Reasons stand below the tables, each once, with the slots that it is about: they are the longest and the last to be
missed. ``layout`` sees to it that nothing is cut off.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

from vcpu_host.core.model import LEVELS, Recorded, SlotState
from vcpu_host.core.reason import Outcome
from vcpu_host.core.text import ranges
from vcpu_host.documents import Document, of_finding, read_reason

from .layout import Block, Column, Line, Span, Table, compose
from .render import emit, writing

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

    from vcpu_host.core.migration.compare import Comparison
    from vcpu_host.core.migration.shape import Place
    from vcpu_host.core.reason import Reason
    from vcpu_host.vm.numa_assign import Assigned

_STATE_STYLE = {"online": "green", "empty": "dim", "partial": "yellow", "offline": "yellow", "plugged": "yellow"}
OUTCOME_STYLE = {"done": "green", "refused": "yellow", "partial": "yellow", "failed": "red", "unknown": "magenta"}
_LEVELS = [f"{name}-id" for name in LEVELS]
_LEVEL_STYLE = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "red"}
_FINDING = 9  # columns before a finding's text


#: A user who wants rich to draw although stdout is no terminal sets one of these (rich.console.Console.is_terminal).
_DRAW = ("FORCE_COLOR", "TTY_COMPATIBLE")


def is_drawn() -> bool:
    """Return whether rich draws what ``show`` shows: on a terminal.

    What is written into a file or a pipe has no styles.
    """
    return sys.stdout.isatty() or any(os.environ.get(name) for name in _DRAW)


def load() -> None:
    """Import what draws."""
    import rich.console
    import rich.text  # noqa: F401 - for its side effect


def console(file: TextIO | None = None) -> Console:
    """Return a console on stdout, or on another stream that leads there, that shows words as they are.

    With markup a guest's words could be links, colours, or a mistake that ends the command.
    """
    from rich.console import Console

    plain = "NO_COLOR" in os.environ
    return Console(file=file, highlight=False, markup=False, emoji=False, soft_wrap=True, no_color=plain)


def show(blocks: Sequence[Block]) -> None:
    """Write for people: for a terminal's width, or, into a file or a pipe, for none. No blocks are no line.

    Raise as ``render.writing``.
    """
    if not blocks:
        return
    if not is_drawn():
        emit("\n".join("".join(words for words, _ in line) for line in compose(blocks, None)))
        return
    screen = console()
    with writing():
        screen.print(text(blocks, screen.width if sys.stdout.isatty() else None))


def text(blocks: Sequence[Block], width: int | None) -> Text:
    """Return the blocks as rich shows them."""
    from rich.text import Text

    lines = [Text.assemble(*((words, style) for words, style in line)) for line in compose(blocks, width)]
    return Text("\n").join(lines)


class Screen:
    """The blocks as they are shown again and again, for the width that the terminal has then."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Yield the blocks, by rich's protocol."""
        del console
        yield text(self._blocks, options.max_width)


# --- list and watch -------------------------------------------------------------------------------------------------


#: So many empty slots in a row are one row of the table on a terminal.
_RUN = 3
_WIDE = (Column("VCPUS"), Column("TYPE"), Column("REMOVABLE"), Column("FIRMWARE ID", breaks=True), Column("QOM PATH"))


def view_blocks(view: Document, *, wide: bool = False, collapse: bool = False) -> list[Block]:
    """Return what ``vcpuctl list`` shows. ``wide``: every column. ``collapse``: a run of empty slots is one row."""
    columns = (
        *(Column("SLOT"), Column("STATE"), Column("GUEST CPU", breaks=True), Column("ID")),
        *(Column("PROPS", breaks=True), Column("NODE", breaks=True), Column("HOST TID", breaks=True)),
    )
    slots = view["slots"]
    runs = _runs(slots) if collapse and not wide else [[slot] for slot in slots]
    rows = [
        _run_row(run) if len(run) > 1 else _slot_row(run[0]) + (_wide_cells(run[0]) if wide else []) for run in runs
    ]
    return [*_vm_lines(view), Table((*columns, *_WIDE) if wide else columns, rows), *_below(view)]


def for_terminal(view: Document, output: str) -> list[Block]:
    """Return what list and watch show where stdout is a terminal, or a file; ``output`` is the word behind -o."""
    return view_blocks(view, wide=output == "wide", collapse=sys.stdout.isatty())


def _runs(slots: Iterable[Document]) -> Iterator[list[Document]]:
    """Yield the slots in rows: those of a run of _RUN or more empty slots of one node together, others alone."""
    for (empty, _), group in itertools.groupby(slots, lambda slot: (_nothing_to_tell(slot), node_text(slot))):
        run = list(group)
        if empty and len(run) >= _RUN:
            yield run
        else:
            yield from ([slot] for slot in run)


def _nothing_to_tell(slot: Document) -> bool:
    return slot["state"] == SlotState.EMPTY and slot["pending"] is None


def _run_row(run: Sequence[Document]) -> list[str | Span]:
    first, last = run[0], run[-1]
    return [
        f"{first['slot']}-{last['slot']}",
        _styled(first["state"], _STATE_STYLE),
        "-",
        "-",
        f"{props_text(first['props'])} to {props_text(last['props'])}",
        node_text(first),
        "-",
    ]


def _wide_cells(slot: Document) -> list[str | Span]:
    why = slot["not_removable"]
    return [
        str(slot["vcpus"]),
        slot["type"],
        "yes" if why is None else why["code"],
        _join(thread["firmware_id"] for thread in slot["threads"]),
        slot["qom_path"] or "-",
    ]


def _owner_lines(view: Document) -> Iterator[Line]:
    owner = view["vm"].get("owner")  # a service of an older version says nothing of it
    if owner is None:
        return
    yield Line(f"owner: {owner['name']}{', by its record alone' if owner['record_alone'] else ''}")
    behind = [str(slot["slot"]) for slot in view["slots"] if slot.get("recorded") == Recorded.BEHIND]
    if behind:
        yield Line(f"owner: its record and QEMU differ in slots {', '.join(behind)}: see vcpuctl doctor", "red")


def _vm_lines(view: Document) -> Iterator[Line]:
    vm, agent, trouble = view["vm"], view["agent"], view["agent_trouble"]
    moving = f", migration: {vm['migration']}" if vm["migrating"] else ""
    online = "?" if vm["online_vcpus"] is None else str(vm["online_vcpus"])
    yield Line(
        f"{vm['name'] or 'VM'}: QEMU {vm['qemu_version']} {vm['machine']} ({vm['accel']}), {vm['status']}"
        f"{moving}; "
        f"vCPUs: {online} online, {vm['plugged_vcpus']} plugged, {vm['possible_vcpus']} possible"
    )
    yield from _owner_lines(view)
    if agent is not None:
        gate = "" if agent["eject_gate"] is None else f"; eject gate: {agent['eject_gate']}"
        yield Line(f"agent: vcpud {agent['version']}, Linux {agent['kernel']}{gate}")
    if trouble is not None:
        yield Line("agent: " + str(read_reason(trouble)).removeprefix("agent: "))
    elif agent is None:
        yield Line("agent: none")


def _slot_row(slot: Document) -> list[str | Span]:
    threads = slot["threads"]
    return [
        str(slot["slot"]),
        _styled(slot["state"], _STATE_STYLE),
        _join(_cpu_name(thread["guest_cpu"]) for thread in threads),
        slot["id"] or ("(boot)" if slot["filled"] else "-"),
        props_text(slot["props"]),
        node_text(slot),
        _join(thread["host_tid"] for thread in threads),
    ]


def _cpu_name(number: int | None) -> str | None:
    return None if number is None else f"cpu{number}"


def node_text(slot: Document) -> str:
    """Return the slot's NUMA node in QEMU, and that of its CPUs in the guest where the guest numbers them otherwise."""
    node = slot["node"]
    guests = sorted({thread["guest_node"] for thread in slot["threads"]} - {node, None})
    return _join([node]) + (f" (guest: {_join(guests)})" if guests else "")


def _below(view: Document) -> Iterator[Line]:
    vm = view["vm"]
    if vm["no_hotplug"] is not None:
        yield Line(f"no hotplug: {read_reason(vm['no_hotplug'])}")
    deaf = view.get("guest_trouble")  # a service of an older version says nothing of it
    if deaf is not None:
        yield Line(str(read_reason(deaf)), "red")
    if view["record_trouble"] is not None:
        yield Line(str(read_reason(view["record_trouble"])), "red")
    few = None if vm["descriptors"] is None else vm["descriptors"]["few"]
    if few is not None:
        yield Line(f"{few['text']}; {few['fix']}", "yellow")
    for slot in view["slots"]:
        pending = slot["pending"]
        if pending is not None:
            when = datetime.fromisoformat(pending["since"]).astimezone().isoformat(" ", "seconds")
            yield Line(f"pending: {pending['operation']} of slot {slot['slot']}, since {when}", "yellow")


# --- operations -------------------------------------------------------------------------------------------------------


def plan_blocks(plan: Document) -> list[Block]:
    """Return what ``vcpuctl plan`` shows."""
    blocks: list[Block] = []
    if plan["recover"]:
        names = ", ".join(str(step["slot"]) for step in plan["recover"])
        blocks.append(
            Line(f"first: the removal of {names} is brought to its end; then the plan is made anew", "yellow")
        )
    if plan["steps"]:
        columns = (Column("#"), Column("STEP"), Column("SLOT"), Column("ID"), Column("WHY", breaks=True))
        rows = [
            [str(number), step["step"], str(step["slot"]), step["id"] or "(boot)", step["why"], step["on_failure"]]
            for number, step in enumerate(plan["steps"], 1)
        ]
        blocks.append(Table((*columns, Column("IF IT FAILS", breaks=True)), rows))
    for refusal in plan["refusals"]:
        where = "" if refusal["slot"] is None else f"slot {refusal['slot']}: "
        blocks.append(Line(f"refused: {where}{read_reason(refusal['reason'])}", "yellow"))
    blocks += _notes(plan)
    return blocks or [Line("nothing to do")]


def result_blocks(result: Document) -> list[Block]:
    """Return what is shown of an operation's result."""
    blocks: list[Block] = []
    slots, outcome, reason = result["slots"], result["outcome"], result["reason"]
    if slots:
        columns = (Column("SLOT"), Column("ID"), Column("OUTCOME"), Column("GUEST CPU", breaks=True))
        rows = [_result_row(slot) for slot in slots]
        blocks += [Table((*columns, Column("PHASES", breaks=True)), rows), *_reasons(slots)]
    for slot in result["recovered"]:
        why = f" ({read_reason(slot['reason'])})" if slot["reason"] else ""
        blocks.append(Line(f"begun before: removal of slot {slot['slot']}: {slot['outcome']}{why}"))
    nothing = " (nothing to do)" if not slots and outcome == Outcome.DONE else ""
    words = f"{result['operation']}: {outcome} in {result['elapsed']:.3f} s{nothing}"
    blocks.append(Line(words, OUTCOME_STYLE.get(outcome, "")))
    if reason is not None and not any(slot["reason"] == reason for slot in slots):
        blocks.append(Line(str(read_reason(reason))))
    return [*blocks, *_notes(result)]


def _notes(document: Document) -> Iterator[Line]:
    """Yield what it does to the guest's programs, or has done; an older service tells nothing of it."""
    told = [refusal["reason"] for refusal in document.get("refusals", ())]
    told += [
        reason for reason in (document.get("reason"), *(each["reason"] for each in document.get("slots", ()))) if reason
    ]
    said = {reason["text"] for reason in told}  # a refusal for the programs' sake has said it already
    for note in document.get("notes", ()):
        if note["what"] in said:
            continue
        level = note["level"]
        yield Line(note["what"], lead=f"{level:{_FINDING}}", lead_style=_LEVEL_STYLE.get(level, ""))
        if note["fix"]:
            yield Line(f"fix: {note['fix']}", lead=" " * _FINDING)


def _result_row(slot: Document) -> list[str | Span]:
    return [
        str(slot["slot"]),
        slot["id"] or "-",
        _styled(slot["outcome"], OUTCOME_STYLE),
        _join(f"cpu{number}" for number in slot["guest_cpus"]),
        " ".join(f"{name} {seconds:.3f}s" for name, seconds in slot["phases"].items()) or "-",
    ]


def _reasons(slots: Iterable[Document]) -> Iterator[Line]:
    """Yield each reason once, with the slots whose reason it is."""
    about: dict[Reason, list[int]] = {}
    for slot in slots:
        if slot["reason"] is not None:
            about.setdefault(read_reason(slot["reason"]), []).append(slot["slot"])
    for reason, numbers in about.items():
        yield Line(f"slot{'s' * (len(numbers) > 1)} {ranges(numbers)}: {reason}")


def comparison_blocks(
    step: str, comparison: Comparison, plugged: Sequence[Place], outcome: Outcome, reason: Reason | None
) -> list[Block]:
    """Return what ``vcpuctl migrate check`` and ``prepare`` show."""
    blocks: list[Block] = [Line(f"plugged on the destination: slot {p.index}, as {p.name}") for p in plugged]
    blocks += findings_blocks(of_finding(difference.finding) for difference in comparison.differences)
    if reason is not None:
        blocks.append(Line(str(reason), "red"))
    same = "" if comparison.obstacles else " (the destination has the vCPUs that the VM has)"
    return [*blocks, Line(f"migrate {step}: {outcome}{same}", OUTCOME_STYLE.get(str(outcome), ""))]


def assigned_blocks(assigned: Assigned) -> list[Block]:
    """Return what ``vcpuctl numa assign`` shows."""
    blocks: list[Block] = []
    if assigned.nodes:
        columns = (Column("SLOT"), Column("PROPS", breaks=True), Column("NODE"))
        rows = [[str(slot.index), props_text(slot.props), str(assigned.nodes[slot.index])] for slot in assigned.slots]
        blocks.append(Table(columns, rows))
    style = OUTCOME_STYLE.get(str(assigned.outcome), "")
    blocks.append(Line(f"numa assign: {assigned.outcome}{assigned.what}", style))
    if assigned.reason is not None:
        blocks.append(Line(str(assigned.reason)))
        blocks += [Line(line, whole=True) for line in assigned.lines]
    return blocks


def findings_blocks(findings: Iterable[Document]) -> list[Block]:
    """Return what ``vcpuctl doctor`` shows."""
    blocks: list[Block] = []
    for finding in findings:
        level = finding["level"]
        blocks.append(Line(finding["text"], lead=f"{level:{_FINDING}}", lead_style=_LEVEL_STYLE.get(level, "")))
        if finding["fix"]:
            blocks.append(Line(f"fix: {finding['fix']}", lead=" " * _FINDING))
    return blocks


# --- words ------------------------------------------------------------------------------------------------------------


def _styled(word: str, styles: dict[str, str]) -> Span:
    return word, styles.get(word, "")


def _join(values: Iterable[object]) -> str:
    return ",".join("-" if value is None else str(value) for value in values) or "-"


def props_text(props: Mapping[str, object]) -> str:
    """Return the properties as a selector may name the slot, from the outermost level to the innermost.

    Names unknown to us come first.
    """
    ordered = sorted(props.items(), key=lambda item: _LEVELS.index(item[0]) if item[0] in _LEVELS else -1)
    return ",".join(f"{name.removesuffix('-id')}={value}" for name, value in ordered)
