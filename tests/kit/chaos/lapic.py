# SPDX-License-Identifier: Apache-2.0
"""Whether QEMU has lost an interrupt of an emulated x86 CPU: one is in service for good, and the CPU sleeps.

Seen under TCG (10.0.13) on a busy host, of a guest that booted: CPU 1 halted in Linux's idle loop with its timer's
vector in service, so that no interrupt of that class came through any more, and the boot stood still. Linux ends an
interrupt (EOI) before it does anything else for it, and sleeps in none.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

from kit.chaos.home import pause

#: Seconds from one look to the next: what is the same in both lasts.
AGAIN = 5.0
_IN_SERVICE = re.compile(r"^ISR\s+(\d[\d ]*)", re.MULTILINE)


class Monitor(Protocol):
    """QEMU's monitor, which says what a command returns."""

    def execute(self, command: str, /, **arguments: Any) -> Any: ...


def lost(qmp: Monitor) -> str:
    """Say which CPU that is, and the interrupts; return "" if there is none, or if the machine is no x86."""
    before = _sleeping(qmp)
    if not before:
        return ""
    pause(AGAIN)
    after = _sleeping(qmp)
    found = [
        f"CPU {index} sleeps with interrupt {vectors} in service"
        for index, vectors in before.items()
        if after.get(index) == vectors
    ]
    return ", ".join(found)


def _sleeping(qmp: Monitor) -> dict[int, str]:
    """The CPUs that are halted with interrupts in service, and which."""
    cpus = qmp.execute("query-cpus-fast")
    return {
        cpu["cpu-index"]: match[1].strip()
        for cpu in cpus
        if cpu["target"] in {"i386", "x86_64"}
        and "HLT=1" in _say(qmp, "info registers", cpu["cpu-index"])
        and (match := _IN_SERVICE.search(_say(qmp, "info lapic", cpu["cpu-index"]))) is not None
    }


def _say(qmp: Monitor, line: str, index: int) -> str:
    return str(qmp.execute("human-monitor-command", command_line=line, cpu_index=index))
