# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl vms``: the VMs that are configured, and the QEMU processes of this host."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from vcpu_host.core import codes
from vcpu_host.core.reason import Reason
from vcpu_host.core.text import printable
from vcpu_host.core.vms import Configured, Vms, join
from vcpu_host.documents import Document
from vcpu_host.documents.vms import of_vms
from vcpu_host.local import qemus, target

from . import render
from .exitcodes import Exit
from .layout import Block, Column, Line, Table
from .target import check_no_vm

#: The longest text that is shown, in characters.
_LONGEST = 2000


async def vms(args: argparse.Namespace) -> Exit:
    """Look, and show what there is. A file that is wrong is shown, and does not change the exit status."""
    check_no_vm(args)
    document = of_vms(look())
    if args.output == "json":
        render.emit_json(document)
    else:
        from . import tables

        tables.show(blocks(document, wide=args.output == "wide"))
    return Exit.DONE


def look() -> Vms:
    """Return what is configured and what runs on this host."""
    processes, unseen = qemus.seen()
    return join(list(configured()), processes, unseen, str(target.own_directory()))


def configured() -> Iterator[Configured]:
    """Yield each file of vms.d."""
    counts: dict[str, str] = {}
    for path, says in target.listed():
        # What is told of a directory that may not be read is about no VM.
        name, file = printable(path.stem if path.suffix == ".toml" else ""), printable(str(path))
        hidden_by = counts.get(name)
        if name and not (isinstance(says, Reason) and says.code == codes.NO_SUCH_VM):  # which --vm passes over
            counts.setdefault(name, file)
        if isinstance(says, Reason):
            yield Configured(name, file, trouble=says, hidden_by=hidden_by)
        elif isinstance(says, target.Domain):
            yield Configured(name, file, hidden_by=hidden_by, libvirt=says.uri, domain=says.domain)
        else:
            yield Configured(name, file, says.qmp, says.agent, None, hidden_by, qemus.key_of(says.qmp))


def blocks(document: Document, *, wide: bool = False) -> list[Block]:
    """Return what people see of the document. ``wide``: every column, and processes that are configured, too."""
    files, all_processes = document["configured"], document["processes"]
    processes = [each for each in all_processes if wide or not each["configured"]]
    shown: list[Block] = [_files(files, wide=wide) if files else Line("no VM is configured")]
    shown += _about_files(files)
    if processes:
        shown += [Line(""), _processes(processes)]
        for each in processes:
            shown += _about_process(each)
    if document["unseen"] is not None:
        shown.append(Line(about(document["unseen"]), "yellow"))
    return shown


def _files(files: list[dict[str, Any]], *, wide: bool) -> Table:
    columns = [Column("NAME"), Column("REACHED AT", breaks=True), Column("PROCESS", breaks=True)]
    columns += [Column("AGENT", breaks=True), Column("FILE", breaks=True)] if wide else []
    rows = [
        [
            file["name"],
            printable(_place(file)),
            ",".join(map(str, file["pids"])) or "-",
            *([printable(file["agent"] or "-"), file["file"]] if wide else []),
        ]
        for file in files
    ]
    return Table(columns, rows)


def _place(file: dict[str, Any]) -> str:
    return f"{file['libvirt']} {file['domain']}" if file["libvirt"] else file["qmp"] or "-"


def _about_files(files: list[dict[str, Any]]) -> Iterator[Line]:
    for file in files:
        if file["trouble"] is not None:
            where = "" if file["file"] in file["trouble"]["text"] else f"{file['file']}: "
            yield Line(where + about(file["trouble"]), "red")
        if file["hidden_by"] is not None:
            yield Line(f"{file['file']}: not used, {file['hidden_by']} comes before it", "yellow")


def _processes(processes: list[dict[str, Any]]) -> Table:
    columns = [Column("PROCESS"), Column("USER"), Column("NAME", breaks=True), Column("MONITOR", breaks=True)]
    rows = [
        [
            str(each["pid"]),
            each["user"],
            each["name"] or "-",
            ", ".join(monitor["told"] for monitor in each["monitors"]) or "-",
            "yes" if each["port"] else "no",
        ]
        for each in processes
    ]
    return Table([*columns, Column("AGENT'S PORT")], rows)


def _about_process(each: dict[str, Any]) -> Iterator[Line]:
    for reason in each["lacks"]:
        yield Line(f"process {each['pid']}: {about(reason)}", "yellow")
    if each["configured"]:
        yield Line(f"process {each['pid']} is {', '.join(each['configured'])}")
    if each["add"] is not None:
        yield Line(f"process {each['pid']} becomes {each['add']['name']} by:")
        yield Line(each["add"]["command"], lead="  ", whole=True)


def about(reason: dict[str, Any]) -> str:
    """Return the reason's text and, if it has one, its hint."""
    return printable(f"{reason['text']}; {reason['hint']}" if reason["hint"] else reason["text"], _LONGEST)
