# SPDX-License-Identifier: Apache-2.0
"""Rules for the administrator's hooks: which run, in which order, and what their ends mean. cpus/hooks.py runs them."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from vcpu_guest.core import cpulist
from vcpu_guest.core.model import Reason
from vcpu_guest.core.workload import escaped

#: The events. A hook gets the event as its first argument; the event's directory has this name and ".d".
PRE_OFFLINE = "pre-offline"
POST_ONLINE = "post-online"

#: The names that run-parts(8) accepts, so that files which editors and packages leave behind are no hooks.
_NAME = re.compile(r"[A-Za-z0-9_-]+")
#: The most bytes of a hook's output that are passed on ("..." marks a cut).
MAX_WORDS = 200


@dataclass(frozen=True, slots=True)
class Ended:
    """How a hook ended.

    `problem` says why it could not run, or not to its end. If it is "", `status` is the exit status, negative for a
    signal. `output` is the last part of what the hook wrote to stdout and stderr.
    """

    name: str
    problem: str = ""
    status: int = 0
    output: bytes = b""


def order(names: Iterable[str]) -> tuple[str, ...]:
    """Return the hooks among a directory's entries, in the order in which they run."""
    return tuple(sorted(name for name in names if _NAME.fullmatch(name)))


def objection(mode: int, uid: int, owner: int) -> str:
    """Return why a file or directory of this mode and owner is not trusted, and what to do; "" if it is trusted."""
    if stat.S_ISLNK(mode):
        return "it is a symbolic link: put the file itself there"
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return "it is no regular file"
    if uid != owner:
        return f"it belongs to user {uid}: chown root"
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "others than its owner may write to it: chmod go-w"
    return ""


def words(output: bytes) -> str:
    """Return the last line that is not blank, without control characters, at most MAX_WORDS long; "..." marks a cut."""
    for line in reversed(output.decode("utf-8", "replace").splitlines()):
        text = "".join(character for character in line if character.isprintable()).strip()
        if text:
            return escaped(text, MAX_WORDS)
    return ""


def failure(ended: Ended) -> str:
    """Return what went wrong, in words; "" if nothing did."""
    if ended.problem:
        how = ended.problem
    elif ended.status:
        how = f"signal {-ended.status}" if ended.status < 0 else f"status {ended.status}"
    else:
        return ""
    said = words(ended.output)
    return f"{ended.name} ({how}){': ' + said if said else ''}"


def veto(ended: Ended, cpus: str) -> Reason | None:
    """Return the reason why the CPUs of this list stay online; None if the hook lets them go."""
    problem = failure(ended)
    if not problem:
        return None
    these = cpulist.brief(cpulist.parse(cpus))
    return Reason(
        "hook-refused",
        f"a hook of the guest's administrator does not let CPUs {these} go offline: {problem}; "
        "see to what it says, or ask who put it into /etc/vcpud/hooks.d",
    )
