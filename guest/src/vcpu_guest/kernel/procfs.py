# SPDX-License-Identifier: Apache-2.0
"""Reads /proc: tasks that a refusal is explained by, the boot id, the kernel's command line.

kernel/tasks.py reads of /proc who may run on which CPU, kernel/load.py how busy it is; no other module reads there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

#: include/uapi/linux/sched.h
SCHED_DEADLINE: Final = 6
#: Field 41 of /proc/PID/stat counted from 1 (proc(5)); the fields after the name begin with number 3.
_POLICY_INDEX: Final = 41 - 3
#: The unit's ProcSubset= hides /proc/cmdline, so its sandbox has the file at the first path. Without a sandbox it is at
#: the second one.
COMMAND_LINE_PATHS: Final = ("/run/vcpud-cmdline", "/proc/cmdline")
#: Characters; more than any architecture's COMMAND_LINE_SIZE and what a boot configuration adds.
_LONGEST_LINE: Final = 65536


def deadline_tasks(proc: str | Path = "/proc", limit: int = 4) -> tuple[str, ...]:
    """Return the threads under SCHED_DEADLINE as "name (pid 12)", at most `limit` of them.

    /proc/PID/stat shows the policy even with ProcSubset=pid and without any capability, as long as the reader's
    group is the one that hidepid= exempts, which by default is root's (fs/proc/base.c, has_pid_permissions).
    """
    found: list[str] = []
    for pid in sorted((int(name) for name in os.listdir(proc) if name.isdigit()), reverse=True):
        for tid in _threads(f"{proc}/{pid}/task"):
            stat = _read(f"{proc}/{pid}/task/{tid}/stat")
            name, policy = _name_and_policy(stat)
            if policy == SCHED_DEADLINE:
                found.append(f"{name} (pid {tid})")
                if len(found) >= limit:
                    return tuple(found)
    return tuple(found)


def runs(command: str, proc: str | Path = "/proc") -> bool:
    """Say whether a process of that command name runs (/proc/PID/comm has its first 15 bytes)."""
    return any(_read(f"{proc}/{pid}/comm").strip() == command[:15] for pid in os.listdir(proc) if pid.isdigit())


def boot_id(environment: Mapping[str, str], proc: str | Path = "/proc") -> str:
    """Return the kernel's boot id in its usual form with dashes, "" if it is not to be had.

    The unit's sandbox hides /proc/sys, so the unit passes systemd's own %b as VCPUD_BOOT_ID.
    """
    text = (
        (environment.get("VCPUD_BOOT_ID") or _read(f"{proc}/sys/kernel/random/boot_id"))
        .strip()
        .replace("-", "")
        .lower()
    )
    if len(text) != 32 or not all(c in "0123456789abcdef" for c in text):
        return ""
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def command_line(paths: Sequence[str | Path] = COMMAND_LINE_PATHS) -> str:
    """Return the kernel's command line from the first file that can be read; "" if none can."""
    for path in paths:
        text = _read(path, _LONGEST_LINE)
        if text:
            return text
    return ""


def _threads(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:  # the process ended meanwhile
        return []


def _read(path: str | Path, size: int = 4096) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(size)
    except OSError:  # the process ended meanwhile, or the file is hidden from us
        return ""


def _name_and_policy(stat: str) -> tuple[str, int | None]:
    # The name stands in parentheses, and may itself contain parentheses.
    head, _, tail = stat.rpartition(")")
    name = "".join(c if c.isprintable() else "?" for c in head.partition("(")[2])
    fields = tail.split()
    return name, int(fields[_POLICY_INDEX]) if len(fields) > _POLICY_INDEX else None
