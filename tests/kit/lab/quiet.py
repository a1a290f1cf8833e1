# SPDX-License-Identifier: Apache-2.0
"""Stops a VM where it can be moved without loss.

QEMU's emulated XICS loses an interrupt for which a CPU has been called, but has not come yet, when the VM is moved:
that its input was raised is not in the stream (``pending_interrupts`` is no field of vmstate_ppc_cpu,
target/ppc/machine.c), nor is it raised again from what is there (``xirr``; icp_post_load, hw/intc/xics.c, acts for KVM
alone). And no further one gets through behind it (icp_check_ipi, icp_irq): that CPU has had its last interrupt but for
the timer's, and a guest whose console's or port's interrupts go there falls silent.
"""

from __future__ import annotations

import re
import time

from kit.lab.errors import LabError
from kit.lab.qmp import Qmp

#: What ``info pic`` says of a CPU's presenter (icp_pic_print_info): its priority, and the number of what waits.
_PRESENTER = re.compile(r"^CPU \d+ XIRR=[0-9a-f]{2}([0-9a-f]{6})\b", re.MULTILINE)
#: Seconds in which a moment is found. Under load one in a few is such.
_PATIENCE = 30.0


def loses_interrupts(machine: str, accel: str) -> bool:
    """Whether it matters when a VM of that -machine is stopped to be moved."""
    return "ic-mode=xics" in machine.split(",") and accel == "tcg"


def waiting(pic: str) -> bool:
    """Whether, by ``info pic``, an interrupt waits for its CPU to take it."""
    presenters = _PRESENTER.findall(pic)
    if not presenters:
        raise LabError(f"no XICS in what 'info pic' says: {pic!r}")
    return any(int(number, 16) for number in presenters)


def stop(qmp: Qmp) -> None:
    """Stop the VM, or let one that stands go on for an instant, until no interrupt waits.

    Raises LabError if that is never so, or if the VM has left meanwhile.
    """
    until = time.monotonic() + _PATIENCE
    qmp.execute("stop")
    while waiting(qmp.execute("human-monitor-command", command_line="info pic")):
        if time.monotonic() > until:
            raise LabError(f"for {_PATIENCE} s an interrupt has been waiting whenever the VM was stopped")
        status = qmp.execute("query-status")["status"]
        if status != "paused":  # it runs elsewhere, or is about to: to go on here as well would ruin its disk
            raise LabError(f"an interrupt was waiting when the VM left (status: {status})")
        qmp.execute("cont")
        qmp.execute("stop")
