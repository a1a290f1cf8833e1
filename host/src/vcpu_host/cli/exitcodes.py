# SPDX-License-Identifier: Apache-2.0
"""The exit statuses, and the one table that gives each outcome and each error its own."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from vcpu_host.core import codes
from vcpu_host.core.reason import Outcome
from vcpu_host.errors import QemuError, RefusedError, UnreachableError, UsageError, VcpuctlError

if TYPE_CHECKING:
    from vcpu_host.core.operation.result import OperationResult


class Exit(IntEnum):
    """What the shell sees."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNKNOWN = 4
    UNREACHABLE = 5
    PARTIAL = 6


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
)

#: Causes that end an operation because nobody is left to ask, as unknown, or as refused before it had begun.
_GONE = frozenset({codes.QEMU_GONE, codes.QEMU_SILENT})


def of_result(result: OperationResult) -> Exit:
    """The status of an operation's result."""
    open_still = result.outcome in (Outcome.UNKNOWN, Outcome.REFUSED)
    if open_still and result.reason is not None and result.reason.code in _GONE:
        return Exit.UNREACHABLE
    return of_outcome(result.outcome)


def of_outcome(outcome: Outcome) -> Exit:
    """The status of an outcome as such."""
    return _OUTCOMES[outcome]


def of_error(error: VcpuctlError) -> Exit:
    """The status of an error that ended a command before there was a result."""
    for kind, status in _ERRORS:
        if isinstance(error, kind):
            return status
    return Exit.FAILED
