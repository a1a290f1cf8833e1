# SPDX-License-Identifier: Apache-2.0
"""What people read of a command for several VMs: a line a VM, reasons below, and how many ended how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vcpu_host.core.finding import Level
from vcpu_host.core.reason import Outcome
from vcpu_host.core.text import ranges
from vcpu_host.documents import Document, read_reason

from . import doctor
from .exitcodes import Exit
from .layout import Block, Column, Line, Span, Table
from .operate import as_asked
from .tables import OUTCOME_STYLE, findings_blocks, plan_blocks, result_blocks

if TYPE_CHECKING:
    from vcpu_host.core.reason import Reason

#: In these words it is told how many VMs ended with each status.
_WORDS = {
    Exit.DONE: "done",
    Exit.FAILED: "failed",
    Exit.USAGE: "misused",
    Exit.REFUSED: "refused",
    Exit.UNKNOWN: "unknown",
    Exit.UNREACHABLE: "unreachable",
    Exit.PARTIAL: "partial",
}


def blocks(document: Document, *, wide: bool = False, quiet: bool = False) -> list[Block]:
    """Return what is shown of the document (``documents.of_fleet``). ``wide``: all that there is of each VM."""
    command, members = document["command"], document["vms"]
    if command == "doctor":
        return [block for member in members for block in _doctor(member, quiet=quiet)]
    if command == "list":
        return _listed(members, wide=wide)
    if command == "plan" or document["dry_run"]:
        return [block for member in members for block in _whole(member)]
    shown = [member for member in members if not (quiet and _as_asked(member))]
    if not shown:
        return []
    summary = Line(f"{command}: {_counts(members)} in {document['elapsed']:.3f} s", _style(document["exit_status"]))
    if wide:
        return [*(block for member in shown for block in _whole(member)), summary]
    return [_outcomes(shown), *_reasons(shown), *_hurt(shown), summary]


# --- list -------------------------------------------------------------------------------------------------------------


def _listed(members: list[Document], *, wide: bool) -> list[Block]:
    columns = [Column(name) for name in ("VM", "POSSIBLE", "PLUGGED", "ONLINE")]
    columns += [Column("AGENT", breaks=True), Column("PENDING", breaks=True)]
    if wide:
        columns += [Column("STATUS"), Column("QEMU"), Column("MACHINE", breaks=True), Column("ACCEL")]
        columns += [Column("KERNEL", breaks=True)]
    return [Table(columns, [_list_row(member, wide=wide) for member in members]), *_reasons(members)]


def _list_row(member: Document, *, wide: bool) -> list[str | Span]:
    view = member["document"]
    if view is None:
        return [member["vm"], *["-"] * 3, (member["error"]["code"], "red"), *["-"] * (6 if wide else 1)]
    vm, agent, trouble = view["vm"], view["agent"], view["agent_trouble"]
    told: str | Span = (trouble["code"], "yellow") if trouble is not None else "none"
    online = "?" if vm["online_vcpus"] is None else str(vm["online_vcpus"])
    pending = [slot["slot"] for slot in view["slots"] if slot["pending"] is not None]
    row: list[str | Span] = [member["vm"], str(vm["possible_vcpus"]), str(vm["plugged_vcpus"]), online]
    row += [told if agent is None or trouble is not None else agent["version"]]
    row += [(f"slot {ranges(pending)}", "yellow") if pending else "-"]
    if wide:
        row += [vm["status"], vm["qemu_version"], vm["machine"], vm["accel"], "-" if agent is None else agent["kernel"]]
    return row


# --- operations -------------------------------------------------------------------------------------------------------


def _outcomes(members: list[Document]) -> Table:
    """Return how each operation ended: a row a VM."""
    columns = (Column("VM"), Column("VCPUS"), Column("OUTCOME"), Column("SLOTS", breaks=True), Column("SECONDS"))
    return Table(columns, [_outcome_row(member) for member in members])


def _outcome_row(member: Document) -> list[str | Span]:
    result = member["document"]
    wanted = "-" if member["vcpus"] is None else str(member["vcpus"])
    if result is None:
        return [member["vm"], wanted, (_word(member["exit_status"]), _style(member["exit_status"])), "-", "-"]
    slots = ranges(sorted(slot["slot"] for slot in result["slots"])) or "-"
    outcome = (result["outcome"], OUTCOME_STYLE.get(result["outcome"], ""))
    return [member["vm"], wanted, outcome, slots, f"{result['elapsed']:.3f}"]


def _as_asked(member: Document) -> bool:
    return member["document"] is not None and as_asked(member["document"])


def _reasons(members: list[Document]) -> Iterator[Line]:
    """Yield each reason once, with the VMs whose reason it is."""
    about: dict[Reason, list[str]] = {}
    for member in members:
        for reason in dict.fromkeys(map(read_reason, _reasons_of(member))):
            about.setdefault(reason, []).append(member["vm"])
    for reason, names in about.items():
        yield Line(f"{', '.join(names)}: {reason}")


def _hurt(members: list[Document]) -> Iterator[Line]:
    """Yield what each operation did to programs of the guest that lose something by it."""
    for member in members:
        document = member["document"] or {}
        for note in document.get("notes", ()):
            if note["level"] == Level.WARNING:
                yield Line(f"{member['vm']}: {note['what']}", "yellow")


def _reasons_of(member: Document) -> Iterator[Document]:
    document = member["document"]
    if document is None:
        yield member["error"]
    elif "vm" in document:
        yield from (document[name] for name in ("agent_trouble", "record_trouble") if document[name] is not None)
    else:
        if document["reason"] is not None:
            yield document["reason"]
        unlike = (slot for slot in document["slots"] if slot["outcome"] != Outcome.DONE)
        yield from (slot["reason"] for slot in unlike if slot["reason"] is not None)


def _counts(members: list[Document]) -> str:
    """Return how many VMs ended how: "46 done, 2 refused"."""
    counts = Counter(member["exit_status"] for member in members)
    return ", ".join(f"{counts[status]} {word}" for status, word in _WORDS.items() if counts[status])


def _word(status: int) -> str:
    return _WORDS[Exit(status)]


def _style(status: int) -> str:
    return OUTCOME_STYLE.get(_word(status), "red")


# --- all of each VM ---------------------------------------------------------------------------------------------------


def _whole(member: Document) -> list[Block]:
    """Return a heading, and what the command shows of one VM."""
    document = member["document"]
    heading = Line(f"{member['vm']}:", "bold")
    if document is None:
        return [heading, Line(str(read_reason(member["error"])), "red")]
    if "refusals" in document:
        return [heading, *plan_blocks(document)]
    return [heading, *result_blocks(document)]


def _doctor(member: Document, *, quiet: bool) -> list[Block]:
    findings = findings_blocks(doctor.told(member["document"], quiet=quiet))
    return [Line(f"{member['vm']}:", "bold"), *findings] if findings else []
