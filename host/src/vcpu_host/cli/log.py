# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl log``: what was done to VMs, by whom and how it ended, as the system's journal has it."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import datetime

from vcpu_host import documents
from vcpu_host.core import codes
from vcpu_host.core.log_entry import LogEntry, change, reason_line, told, who
from vcpu_host.errors import UsageError
from vcpu_host.local.journalctl import Journal
from vcpu_host.local.target import Target, known

from . import render, tables
from .exitcodes import Exit
from .layout import Block, Column, Line, Span, Table
from .target import check_many, many, meant, target_of

_HINT = "entries of other users are not shown: only members of the group systemd-journal may read them"


async def log(args: argparse.Namespace) -> Exit:
    """Show the newest entries, the oldest of them first, or with ``--follow`` each as it comes, until interrupted."""
    names, sockets = about(args)
    lines = None if args.lines == "all" else args.lines
    journal = Journal(names=names, sockets=sockets, since=args.since, lines=lines, follow=args.follow)
    if args.follow:
        await _follow(journal, args.output)
        return Exit.DONE
    async with aclosing(journal.entries()) as entries:
        found = [entry async for entry in entries]
    if args.output == "json":
        render.emit_json(documents.of_log(found, journal.skipped, complete=not journal.hidden))
    else:
        tables.show(blocks(found))
    _remark(journal)
    return Exit.DONE


def about(
    args: argparse.Namespace, environment: Mapping[str, str] = os.environ
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names, and the sockets or other places, that entries are about; none is all VMs.

    A name stands for its place, too: somebody else may have named that. One whose file has gone is a name alone.
    Raise UsageError for options that other commands refuse.
    """
    several = many(args, environment)
    if several:
        check_many(args)
        if args.all_vms:
            return (), ()
        # Late: it has what commands for many VMs need.
        from .fleet import names_of

        names = names_of(several, known())
        return tuple(names), tuple(_places(names))
    try:
        target = target_of(args, environment)
    except UsageError as error:
        if error.reason.code == codes.NO_VM and args.agent is None:
            return (), ()
        name, _ = meant(args, environment)
        if error.reason.code == codes.NO_SUCH_VM and name is not None:
            return (name,), ()
        raise
    return (target.name,) if target.name else (), (target.place,)


def _places(vms: Sequence[str]) -> Iterator[str]:
    for vm in vms:
        try:
            yield Target.named(vm).place
        except UsageError as error:
            if error.reason.code != codes.NO_SUCH_VM:
                raise


async def _follow(journal: Journal, output: str) -> None:
    """Print each entry until there is a signal."""
    task = asyncio.create_task(_print_each(journal, output))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


async def _print_each(journal: Journal, output: str) -> None:
    skipped = 0
    async with aclosing(journal.entries()) as entries:
        async for entry in entries:
            if output == "json":
                render.emit_json(documents.of_log([entry], journal.skipped - skipped, complete=not journal.hidden))
                skipped = journal.skipped
            else:
                tables.show(_followed(entry))


def _remark(journal: Journal) -> None:
    """Say on stderr what the table does not show."""
    if journal.skipped:
        print(f"vcpuctl: {journal.skipped} entries were left out: vcpuctl has not written them", file=sys.stderr)  # noqa: T201
    if journal.hidden:
        print(f"vcpuctl: {_HINT}", file=sys.stderr)  # noqa: T201 - stderr is for people


def blocks(entries: Sequence[LogEntry]) -> list[Block]:
    """Return the table, and below it the reasons, each led by the time of its entry."""
    if not entries:
        return [Line("no entries")]
    columns = (
        *(Column("TIME"), Column("VM", breaks=True), Column("WHO", breaks=True), Column("OPERATION", breaks=True)),
        *(Column("OUTCOME"), Column("PLUGGED"), Column("ONLINE"), Column("SECONDS")),
    )
    rows: list[list[str | Span]] = [
        [
            _time(entry),
            _vm(entry),
            who(entry.caller, entry.login_uid),
            f"{entry.operation} {entry.requested}",
            (str(entry.outcome), tables.OUTCOME_STYLE[str(entry.outcome)]),
            change(entry.plugged),
            change(entry.online),
            f"{entry.elapsed:.3f}",
        ]
        for entry in entries
    ]
    return [Table(columns, rows), *(line for entry in entries for line in _reasons(entry, f"{_time(entry)}  "))]


def _followed(entry: LogEntry) -> list[Block]:
    ended = f"{entry.outcome} in {entry.elapsed:.3f} s"
    counted = f"vCPUs plugged {change(entry.plugged)}, online {change(entry.online)}"
    line = told(_vm(entry), f"{entry.operation} {entry.requested}", entry.caller, ended, counted)
    style = tables.OUTCOME_STYLE[str(entry.outcome)]
    return [Line(line, style, lead=f"{_time(entry)}  "), *_reasons(entry, "    ")]


def _reasons(entry: LogEntry, lead: str) -> list[Line]:
    return [Line(reason_line(each), lead=lead) for each in entry.reasons]


def _vm(entry: LogEntry) -> str:
    return entry.subject.name or entry.subject.socket or "-"


def _time(entry: LogEntry) -> str:
    """Return the entry's time in this host's time, as journalctl has it."""
    return datetime.fromtimestamp(entry.time).astimezone().strftime("%Y-%m-%d %H:%M:%S")
