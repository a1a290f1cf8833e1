# SPDX-License-Identifier: Apache-2.0
"""The exit statuses, and the one table that gives each outcome and each error its own."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import TYPE_CHECKING

from vcpu_host.core import codes
from vcpu_host.core.reason import Outcome
from vcpu_host.errors import OutcomeLostError, QemuError, RefusedError, UnreachableError, UsageError, VcpuctlError

if TYPE_CHECKING:
    from vcpu_host.documents import Document


class Exit(IntEnum):
    """What the shell sees. The man page takes from here what each status means."""

    DONE = 0
    """Done: on both sides, as asked for."""
    FAILED = 1
    """Failed, and undone; doctor: there is a problem; a question: a fault of vcpuctl's own ended it."""
    USAGE = 2
    """Usage: the words are no command, or do not fit this VM."""
    REFUSED = 3
    """Refused: nothing was changed."""
    UNKNOWN = 4
    """Unknown: the time ran out, the wait was interrupted, or the process that did it ended; it may still happen."""
    UNREACHABLE = 5
    """QEMU or the agent cannot be reached, or QEMU went away in the middle."""
    PARTIAL = 6
    """Partial: some slots are done, others are not."""


#: From the best to the worst: all is as asked; nothing was changed; some of it was; nobody knows.
_FROM_BEST = (Exit.DONE, Exit.REFUSED, Exit.USAGE, Exit.PARTIAL, Exit.FAILED, Exit.UNREACHABLE, Exit.UNKNOWN)

_OUTCOMES = {
    Outcome.DONE: Exit.DONE,
    Outcome.FAILED: Exit.FAILED,
    Outcome.REFUSED: Exit.REFUSED,
    Outcome.UNKNOWN: Exit.UNKNOWN,
    Outcome.PARTIAL: Exit.PARTIAL,
}

_ERRORS: tuple[tuple[type[VcpuctlError], Exit], ...] = (
    (UsageError, Exit.USAGE),
    (RefusedError, Exit.REFUSED),
    (UnreachableError, Exit.UNREACHABLE),
    (QemuError, Exit.REFUSED),
    (OutcomeLostError, Exit.UNKNOWN),
)

#: Causes that end an operation because nobody is left to ask, as unknown, or as refused before it had begun.
_GONE = frozenset({codes.QEMU_GONE, codes.QEMU_SILENT})


def of_result(result: Document) -> Exit:
    """Return the status of an operation's result (``documents.of_result``)."""
    outcome, reason = Outcome(result["outcome"]), result["reason"]
    if outcome in (Outcome.UNKNOWN, Outcome.REFUSED) and reason is not None and reason["code"] in _GONE:
        return Exit.UNREACHABLE
    return of_outcome(outcome)


def of_plan(plan: Document) -> Exit:
    """Return the status of a plan (``documents.of_plan``): that with which the operation would end."""
    refusals = plan["refusals"]
    if not refusals:
        return Exit.DONE
    return Exit.UNREACHABLE if refusals[0]["unreachable"] else Exit.REFUSED


def of_outcome(outcome: Outcome) -> Exit:
    """Return the status of an outcome as such."""
    return _OUTCOMES[outcome]


def worst(statuses: Iterable[Exit]) -> Exit:
    """Return the status of the whole that has parts with these statuses; without parts it is done."""
    return max(statuses, key=_FROM_BEST.index, default=Exit.DONE)


def of_error(error: VcpuctlError) -> Exit:
    """Return the status of an error that ended a command before there was a result."""
    for kind, status in _ERRORS:
        if isinstance(error, kind):
            return status
    return Exit.FAILED
