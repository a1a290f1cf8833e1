# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl doctor``: where other commands end with an error, this one makes a finding of it and goes on."""

from __future__ import annotations

import argparse

from vcpu_host import documents
from vcpu_host.core.finding import Finding, Level
from vcpu_host.errors import VcpuctlError
from vcpu_host.sharing.calls import Call, Kind

from . import render
from .connect import vm_of
from .exitcodes import Exit
from .progress import Progress


async def doctor(args: argparse.Namespace) -> Exit:
    """Look, and say what was found. End with status 1 if there is a problem, so that scripts can ask."""
    try:
        with Progress.of(args) as progress:
            found = await vm_of(args).ask(Call(Kind.DOCTOR), progress.hear)
    except VcpuctlError as error:
        found = of_error(error)
    if args.output == "json":
        render.emit_json(found)
    else:
        from . import tables

        tables.show(tables.findings_blocks(told(found, quiet=args.quiet)))
    return status(found)


def of_error(error: VcpuctlError) -> documents.Document:
    """Return the findings where a VM could not be asked at all."""
    reason = error.reason
    return documents.of_findings([Finding(Level.PROBLEM, reason.code, reason.text, reason.hint)])


def told(found: documents.Document, *, quiet: bool) -> list[documents.Document]:
    """Return the findings that people are shown."""
    return [each for each in found["findings"] if not quiet or each["level"] in (Level.WARNING, Level.PROBLEM)]


def status(found: documents.Document) -> Exit:
    """Return the exit status."""
    return Exit.FAILED if any(each["level"] == Level.PROBLEM for each in found["findings"]) else Exit.DONE
