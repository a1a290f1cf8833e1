# SPDX-License-Identifier: Apache-2.0
"""The wire between the process that holds a VM and others: JSON objects, one a line, on a unix socket.

Lines and not gRPC, because a command that only asks would pay more for loading gRPC than for all else (ADR 23). Both
ends are vcpuctl, of whatever version: fields are only added, and what is not known is left unread.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from ..core import codes
from ..core.reason import Origin, Reason
from ..documents import of_reason, read_reason
from ..errors import (
    AgentGoneError,
    FaultError,
    OutcomeLostError,
    QemuError,
    QemuGoneError,
    RefusedError,
    UnreachableError,
    UsageError,
    VcpuctlError,
)

Message = dict[str, Any]

#: The longest answer, in bytes: a map of 65536 slots is shorter.
LONGEST = 64 << 20
#: The longest call, in bytes: one that names 16384 slots is shorter. Who serves holds up to twice that for each caller.
LONGEST_CALL = 256 << 10

_KINDS: dict[str, type[VcpuctlError]] = {
    "usage": UsageError,
    "refused": RefusedError,
    "qemu": QemuError,
    "qemu-gone": QemuGoneError,
    "agent-gone": AgentGoneError,
    "unreachable": UnreachableError,
    "outcome-lost": OutcomeLostError,
    "fault": FaultError,
}


def line(message: Message) -> bytes:
    """Return the message as it is sent."""
    return json.dumps(message).encode() + b"\n"


async def receive(reader: asyncio.StreamReader, begun: bytes = b"") -> Message | None:
    """Return the next message, of which ``begun`` was read already; None at the end, or if what comes is none."""
    try:
        message = json.loads(begun + await reader.readuntil(b"\n"))
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def of_error(error: VcpuctlError) -> Message:
    """Return the message that a call ended with this error."""
    kind = next((name for name, known in _KINDS.items() if isinstance(error, known)), "refused")
    return {"error": of_reason(error.reason), "kind": kind}


def read_error(message: Message) -> VcpuctlError:
    """Return the error that ``of_error`` made the message from."""
    kind = _KINDS.get(message.get("kind", ""), RefusedError)
    try:
        return kind(read_reason(message["error"]))
    except (KeyError, TypeError, ValueError):
        text = "the process that holds the VM says no, in words that this vcpuctl does not know"
        return kind(Reason(codes.BAD_CALL, Origin.VCPUCTL, text, "use the same version everywhere"))
