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
    """Look, and say what was found. Ends with status 1 if there is a problem, so that scripts can ask."""
    try:
        with Progress.of(args) as progress:
            found = await vm_of(args).ask(Call(Kind.DOCTOR), progress.hear)
    except VcpuctlError as error:
        reason = error.reason
        found = documents.of_findings([Finding(Level.PROBLEM, reason.code, reason.text, reason.hint)])
    findings = found["findings"]
    if args.output == "json":
        render.emit_json(found)
    else:
        from . import tables

        told = [each for each in findings if not args.quiet or each["level"] in (Level.WARNING, Level.PROBLEM)]
        tables.show(tables.findings_blocks(told))
    return Exit.FAILED if any(finding["level"] == Level.PROBLEM for finding in findings) else Exit.DONE
