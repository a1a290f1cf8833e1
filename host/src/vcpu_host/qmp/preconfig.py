# SPDX-License-Identifier: Apache-2.0
"""The ``Preconfig`` role: a QEMU that was started with --preconfig, and takes few commands until it is told to go on.

``x-exit-preconfig`` is unstable in QEMU's words. It is sent here and nowhere else, since the user asks for just that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ..core import codes
from ..core.identity import VmIdentity
from ..core.model import Slot
from ..core.numa import NODE, assignment
from ..core.reason import Reason
from ..errors import QemuError, QemuGoneError, RefusedError
from . import ages, replies
from .events import EventHub
from .monitor import SocketMonitor
from .traps import bad_reply

if TYPE_CHECKING:
    from .roles import Monitor

#: More than any slot's place at any level, and little enough for any of QEMU's integers.
_NOWHERE = 1 << 30


async def connect(path: str, *, timeout: float = 5.0, call_timeout: float = 60.0) -> QmpPreconfig:
    """Return the QEMU behind the monitor socket at ``path``.

    Times are in seconds, errors those of ``vmm.connect``. A command may take as long as the making of a machine with
    all of its memory.
    """
    return QmpPreconfig(await SocketMonitor.connect(path, EventHub(), timeout=timeout, call_timeout=call_timeout))


class QmpPreconfig:
    """See ``ports.Preconfig``."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    async def identity(self) -> VmIdentity:
        """Return which QEMU this is. There may be no vCPU yet by whose thread that could be proved."""
        return self._monitor.identify(None)

    async def commands(self) -> frozenset[str]:
        """Return what query-commands lists."""
        commands = replies.command_names(await self._monitor.call("query-commands"))
        reason = ages.too_old(replies.version(self._monitor.qemu_version), commands)
        if reason is not None:
            raise RefusedError(reason)
        return commands

    async def waits(self) -> bool:
        """Return whether it waits, by what is refused.

        QEMU calls the state by its name up to 5.2 alone, and then "prelaunch".
        """
        status = replies.entry(await self._monitor.call("query-status"), "query-status")
        if status.get("status") == "preconfig":
            return True
        try:
            await self._monitor.call("query-cpus-fast")
        except QemuError as error:
            if error.reason.code == codes.PRECONFIG:
                return True
            raise
        return False

    async def slots(self) -> tuple[Slot, ...]:
        """Return query-hotpluggable-cpus.

        Before there is a machine no slot is filled, and those without a node have none.
        """
        return replies.slots(await self._monitor.call("query-hotpluggable-cpus"), [])

    async def nodes(self, slots: Sequence[Slot], candidates: Collection[int]) -> tuple[int, ...]:
        """Return which of these nodes there are.

        No query says so. But QEMU looks at the node before it looks for the slot (hw/core/numa.c, set_numa_options), so
        a slot that there is not tells them apart, and nothing is set.
        """
        asked = sorted(candidates) if slots else []
        known = await asyncio.gather(*(self._has(slots[0], node) for node in asked))
        return tuple(node for node, there in zip(asked, known, strict=True) if there)

    async def _has(self, slot: Slot, node: int) -> bool:
        nowhere = {name: _NOWHERE for name, value in slot.props.items() if type(value) is int and name != NODE}
        try:
            await self._monitor.call("set-numa-node", {"type": "cpu", **slot.props, **nowhere, NODE: node})
        except QemuError as error:
            if error.reason.code in (codes.NO_SUCH_NODE, codes.NO_SUCH_SLOT):
                return error.reason.code == codes.NO_SUCH_SLOT
            raise
        raise bad_reply("set-numa-node", "it takes a slot that the machine does not have")

    async def set_node(self, slot: Slot, node: int) -> None:
        """Give one slot its node. Raise QemuError."""
        await self._monitor.call("set-numa-node", {"type": "cpu", **assignment(slot, node)})

    async def leave(self) -> None:
        """Have QEMU make the machine. Raise QemuGoneError if it ends of that."""
        try:
            await self._monitor.call("x-exit-preconfig")
        except QemuGoneError as error:
            reason = error.reason
            hint = "see what QEMU wrote to its stderr: the machine cannot be made of what it was started with"
            raise QemuGoneError(
                Reason(reason.code, reason.who, f"{reason.text}, on leaving preconfig", hint)
            ) from error

    async def close(self) -> None:
        """End the connection: never hang; may be repeated."""
        await self._monitor.close()
