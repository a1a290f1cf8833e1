# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl vms --connect``: the domains of one libvirt."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from vcpu_host.core.domains import join
from vcpu_host.core.text import printable
from vcpu_host.documents import Document
from vcpu_host.documents.domains import of_domains
from vcpu_host.libvirt.domains import listed
from vcpu_host.local import target

from . import render
from .exitcodes import Exit
from .layout import Block, Column, Line, Table
from .target import check_no_vm, uri_of
from .vms import about, configured

#: libvirt's words for states that people know by others (virsh list).
_STATES = {"shutoff": "shut off", "shutdown": "in shutdown", "blocked": "idle", "nostate": "no state"}


async def domains(args: argparse.Namespace) -> Exit:
    """Ask libvirt, by a connection that can change nothing, and show what there is."""
    check_no_vm(args, may=["--connect"])
    uri = uri_of(args)
    found = join(uri, await listed(uri), list(configured()), str(target.own_directory()))
    document = of_domains(found)
    if args.output == "json":
        render.emit_json(document)
    else:
        from . import tables

        tables.show(blocks(document, wide=args.output == "wide"))
    return Exit.DONE


def blocks(document: Document, *, wide: bool = False) -> list[Block]:
    """Return what people see of the document. ``wide``: every column."""
    found = document["domains"]
    if not found:
        return [Line(f"{printable(document['connect'])} has no domain")]
    shown: list[Block] = [_table(found, wide=wide)]
    for each in found:
        shown += _about(each)
    return shown


def _table(found: list[dict[str, Any]], *, wide: bool) -> Table:
    columns = [Column("DOMAIN", breaks=True), Column("STATE", breaks=True), Column("VCPUS"), Column("CHANNEL")]
    columns += [Column("VM", breaks=True)]
    columns += [Column("PERSISTENT"), Column("UUID")] if wide else []
    rows = [
        [
            printable(each["name"]),
            _STATES.get(each["state"], each["state"]),
            "-" if each["vcpus"] is None else f"{each['vcpus']}/{each['most_vcpus']}",
            _channel(each),
            ",".join(each["configured"]) or "-",
            *(["yes" if each["persistent"] else "no", each["uuid"]] if wide else []),
        ]
        for each in found
    ]
    return Table(columns, rows)


def _channel(each: dict[str, Any]) -> str:
    """Return whether the agent's channel is there, and whether a program in the guest has it open."""
    if each["channel"] is None:
        return "-"
    if not each["channel"]:
        return "no"
    return {True: "open", False: "closed", None: "yes"}[each["connected"]]


def _about(each: dict[str, Any]) -> Iterator[Line]:
    name = printable(each["name"])
    for reason in each["lacks"]:
        yield Line(f"domain {name}: {about(reason)}", "yellow")
    if each["add"] is not None:
        yield Line(f"domain {name} becomes {each['add']['name']} by:")
        yield Line(each["add"]["command"], lead="  ", whole=True)
