# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl channel``: whether a domain of libvirt's has the agent's channel, and giving it one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from vcpu_host.core import codes
from vcpu_host.core.channel import no_channel
from vcpu_host.core.domains import adding
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.core.text import printable
from vcpu_host.documents import Document
from vcpu_host.documents.domains import of_channel
from vcpu_host.errors import UsageError
from vcpu_host.libvirt.channel import add, look
from vcpu_host.local.target import Domain

from . import render
from .exitcodes import Exit, of_outcome
from .layout import Block, Line
from .target import target_of
from .vms import about

#: What each definition is called.
_DEFINITIONS = (("running", "the running domain"), ("persistent", "the persistent definition"))
_NONE = {
    "running": "the domain is off: there is nothing that runs",
    "persistent": "the domain is transient: there is no definition for a next start",
}


async def channel(args: argparse.Namespace) -> Exit:
    """Look, or with ``--apply`` add what is missing. To be without the channel is no failure of a look."""
    target = target_of(args)
    if not isinstance(target, Domain):
        text = "vcpuctl channel is about domains of libvirt's, and this VM is reached by its sockets"
        raise UsageError(Reason(codes.BAD_USAGE, Origin.VCPUCTL, text, f"its port is on a command line: {_PORT}"))
    ended = await (add if args.apply else look)(target.uri, target.domain)
    document = of_channel(ended)
    if args.output == "json":
        render.emit_json(document)
    elif not (args.quiet and args.apply and ended.outcome is Outcome.DONE):
        from . import tables

        tables.show(list(blocks(document, applied=args.apply)))
    return of_outcome(ended.outcome)


_PORT = no_channel().hint


def blocks(document: Document, *, applied: bool) -> Iterator[Block]:
    """Yield what people see of the document. ``applied``: what was missing was to be added."""
    yield Line(document["channel_xml"], whole=True)
    for key, what in _DEFINITIONS:
        yield Line(_NONE[key]) if document[key] is None else _line(what, document[key])
    missing = any(document[key] is not None and not document[key]["channel"] for key, _ in _DEFINITIONS)
    if missing and not applied:
        domain = document["domain"]
        yield Line(f"{adding(document['connect'], printable(domain['name']), domain['uuid'])} adds it")


def _line(what: str, definition: dict[str, Any]) -> Line:
    if definition["added"]:
        return Line(f"{what}: added", "green")
    if definition["channel"]:
        return Line(f"{what} has it")
    why = f": {about(definition['reason'])}" if definition["reason"] is not None else ""
    return Line(f"{what} does not have it{why}", "yellow")
