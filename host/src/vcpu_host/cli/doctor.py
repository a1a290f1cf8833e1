# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl doctor``: where other commands end with an error, this one makes a finding of it and goes on."""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Iterator

from vcpu_host import documents
from vcpu_host.core import codes
from vcpu_host.core.diagnosis import above_recommended, diagnose
from vcpu_host.core.finding import Finding, Level
from vcpu_host.core.identity import VmIdentity
from vcpu_host.core.view import VmView
from vcpu_host.errors import VcpuctlError

from . import render
from .connect import coordinator
from .exitcodes import Exit
from .target import sockets


async def doctor(args: argparse.Namespace) -> Exit:
    """Look, and say what was found. Ends with status 1 if there is a problem, so that scripts can ask."""
    findings: list[Finding] = []
    try:
        where = sockets(args)
        findings += _permissions(where.qmp, "monitor")
        async with coordinator(args) as vm:
            view = await vm.look()
            findings += _process(vm.identity)
            findings += _kvm(view, vm.identity)
        if view.host.channel is not None and view.host.channel.socket is not None:
            findings += _permissions(view.host.channel.socket, "agent channel")
        findings += diagnose(view)
    except VcpuctlError as error:
        findings.append(Finding(Level.PROBLEM, error.reason.code, error.reason.text, error.reason.hint))
    if args.output == "json":
        render.emit_json(documents.of_findings(findings))
    else:
        from . import tables

        told = [each for each in findings if not args.quiet or each.level in (Level.WARNING, Level.PROBLEM)]
        tables.show(tables.findings_blocks(told))
    return Exit.FAILED if any(finding.level is Level.PROBLEM for finding in findings) else Exit.DONE


def _process(identity: VmIdentity | None) -> Iterator[Finding]:
    """What two vcpuctl on one VM know of each other hangs on it (``lock``, ``journal``)."""
    if identity is not None and identity.pid is None:
        yield Finding(
            Level.WARNING,
            codes.PROCESS_UNSEEN,
            "QEMU's process cannot be seen from here (another PID namespace, another host, or hidden /proc), so a "
            "vcpuctl that comes by another monitor of this VM is not kept out, and does not see what is pending",
            "give vcpuctl one monitor of this VM and no other, or run it where QEMU's process is to be seen",
        )


def _kvm(view: VmView, identity: VmIdentity | None) -> Iterator[Finding]:
    """What this host's KVM says, if it is the one that runs the VM: QEMU's process is seen here."""
    if view.host.accel == "kvm" and identity is not None and identity.pid is not None:
        from vcpu_host.local.kvm import recommended_vcpus

        yield from above_recommended(view, recommended_vcpus())


def _permissions(path: str, what: str) -> Iterator[Finding]:
    """Whoever can write to these sockets owns the VM."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # the connection attempt says it better
    if stat.S_ISSOCK(mode) and mode & stat.S_IWOTH:
        yield Finding(
            Level.WARNING,
            codes.OPEN_SOCKET,
            f"every user of this host can write to the {what} socket {path}",
            f"chmod o-rwx {path}, and keep it in a directory that only the VM's owner can enter",
        )
