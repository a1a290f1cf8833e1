# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl export`` and ``vcpuctl migrate``: what another QEMU needs to take the VM over, and whether it has it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from vcpu_host import documents
from vcpu_host.core import codes
from vcpu_host.core.migration.export import ExportError, arguments
from vcpu_host.core.migration.shape import Shape
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.errors import RefusedError, UsageError
from vcpu_host.local import inputs
from vcpu_host.local.target import Target
from vcpu_host.sharing.calls import Call, Kind
from vcpu_host.sharing.hold import open_vm
from vcpu_host.vm.coordinator import Coordinator

from . import render
from .connect import command_line, vm_of
from .exitcodes import Exit, of_outcome
from .progress import Progress
from .target import socket_of, sockets_of

#: How libvirt does it.
_WAY = "virsh migrate --live DOMAIN URI: libvirt takes the vCPUs along, those that were plugged too"

#: No export of 65536 slots is larger.
_MOST = 64 << 20


async def export(args: argparse.Namespace) -> Exit:
    """Run ``vcpuctl export``: nothing is changed."""
    sockets_of(args, _WAY)
    with Progress.of(args) as progress:
        answer = await vm_of(args).ask(Call(Kind.SHAPE), progress.hear)
    shape = Shape.from_json(answer).with_default_ids(answer["default_ids"])
    try:
        start = arguments(shape)
    except ExportError as error:
        raise RefusedError(error.reason) from error
    if args.output == "json":
        render.emit_json(documents.of_export(shape, start))
    elif args.form == "qmp":
        print(f"for a QEMU that was started with\n{start.at_start}", file=sys.stderr)  # noqa: T201 - for people
        render.emit(start.qmp)
    else:
        render.emit(start.shell)
    return Exit.DONE


async def migrate(args: argparse.Namespace) -> Exit:
    """Run ``vcpuctl migrate check`` and ``prepare``."""
    async with _sides(args) as (source, destination):
        if args.migrate == "prepare":
            prepared = await destination.prepare(source)
            outcome, document = prepared.outcome, documents.of_prepared(prepared)
            comparison, plugged = prepared.comparison, prepared.plugged
            reason = prepared.reason
        else:
            comparison = await destination.compare(source)
            outcome = Outcome.REFUSED if comparison.obstacles else Outcome.DONE
            document = documents.of_comparison(comparison, outcome)
            plugged, reason = (), None
    if args.output == "json":
        render.emit_json(document)
    elif not (args.quiet and outcome is Outcome.DONE):
        from . import tables

        tables.show(tables.comparison_blocks(args.migrate, comparison, plugged, outcome, reason))
    return of_outcome(outcome)


@asynccontextmanager
async def _sides(args: argparse.Namespace) -> AsyncIterator[tuple[Shape, Coordinator]]:
    """Yield the source, live or from what it exported, and the destination."""
    if args.source is not None:
        shape = _read(args.source)
        async with _held(sockets_of(args, _WAY)) as destination:
            yield shape, destination
        return
    here, there = _two(args)
    async with _held(here) as vm, _held(there) as destination:
        yield await vm.shape(), destination


def _held(target: Target) -> AbstractAsyncContextManager[Coordinator]:
    """Return what holds one side: both are to stay as they are meanwhile."""
    return open_vm(target, command_line())


def _two(args: argparse.Namespace) -> tuple[Target, Target]:
    """Return the sockets of both sides.

    Raise UsageError if they are one: it would wait for the lock that it holds itself.
    """
    here, there = sockets_of(args, _WAY), Target(socket_of(args.to, "the monitor of the QEMU that waits"))
    if here.place == there.place:
        text = f"{there.qmp} is the monitor of the VM itself"
        hint = "--to names the QEMU that waits for the VM; where that is the only one here, give --from FILE"
        raise UsageError(Reason(codes.SAME_VM, Origin.VCPUCTL, text, hint))
    return here, there


def _read(path: str) -> Shape:
    """Return an export. Raise UsageError if it is none."""
    try:
        document = inputs.json_document(path, _MOST)
        version = document.get("schema_version") if isinstance(document, dict) else None
        if version != documents.SCHEMA_VERSION:
            raise ValueError(
                f"its schema_version is {version!r:.40}, and this vcpuctl reads {documents.SCHEMA_VERSION}"
            )
        return Shape.from_json(document)
    except (ValueError, RecursionError) as error:  # the last: to show a value that is nested deeply
        hint = "give what vcpuctl -o json export wrote on the source's host"
        raise UsageError(
            Reason(codes.BAD_EXPORT, Origin.VCPUCTL, f"cannot read the export {path}: {inputs.why(error)}", hint)
        ) from error
