# SPDX-License-Identifier: Apache-2.0
"""Why the kernel refused to switch a CPU: what bears on it is read right after the refusal."""

from __future__ import annotations

import errno
import os

from vcpu_guest.core import cmdline, reasons
from vcpu_guest.core.model import Reason
from vcpu_guest.kernel import procfs
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms import Platform


def explain(sysfs: Sysfs, platform: Platform, number: int, code: int, *, online: bool, opened: bool) -> Reason:
    """Return the reason for the errno `code` of a write that was to bring cpuN online or offline.

    `opened`: the kernel's file could be opened, so it is the write itself that failed.
    """
    context = _context(sysfs, number, code, online=online, opened=opened)
    known = None
    if online and opened:
        known = platform.would_not_start(sysfs, number, code, context.arguments)
    return known or reasons.explain(code, context, online=online)


def _context(sysfs: Sysfs, number: int, code: int, *, online: bool, opened: bool) -> reasons.Context:
    busy_going_down = code == errno.EBUSY and not online
    return reasons.Context(
        number=number,
        has_online=sysfs.has_online(number),
        online=sysfs.mask("online"),
        isolated=sysfs.mask("isolated"),
        nohz_full=sysfs.mask("nohz_full"),
        smt_control=sysfs.smt_control(),
        deadline_tasks=procfs.deadline_tasks() if busy_going_down else (),
        possible=sysfs.mask("possible"),
        arguments=cmdline.bearing_on_cpus(procfs.command_line()),
        opened=opened,
        root=os.geteuid() == 0,
    )
