# SPDX-License-Identifier: Apache-2.0
"""Tells the system's journal how operations end: each leaves one entry, whichever way it ended.

The process that carries an operation out writes how that ended. Where none has begun to, whoever asked for it writes
why.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ..errors import OutcomeLostError, UsageError, VcpuctlError
from ..local.target import AnyTarget
from . import fault

if TYPE_CHECKING:
    from ..core.operation.result import OperationResult
    from ..vm.coordinator import Coordinator
    from .calls import Call


def log(
    target: AnyTarget, holder: str, result: OperationResult, vm: Coordinator | None = None, for_uid: int | None = None
) -> str:
    """Write the entry. Return what became of it, in words.

    ``holder`` is this process's command, ``for_uid`` the user that it did this for if that is somebody else. ``vm``
    tells what the target does not: QEMU's process, and its name for the VM.
    """
    # Late: the operation is over, and most commands never come here.
    from .. import documents
    from ..core.log_entry import Subject
    from ..local import journald

    identity = None if vm is None else vm.identity
    name = target.name or ("" if vm is None else vm.name)
    subject = Subject(name, target.place, None if identity is None else identity.pid)
    caller = journald.this_process(holder, for_uid)
    return str(journald.log_operation(subject, caller, documents.of_result(result), result.before, result.after))


def _never() -> bool:
    return False


@asynccontextmanager
async def no_result(
    call: Call, write: Callable[[OperationResult], Awaitable[None]], *, begun: Callable[[], bool] = _never
) -> AsyncIterator[None]:
    """Have the end of a call written down that changes the VM, and that ends this block by an error.

    Nothing was changed then, unless the error says that nobody knows. Words that do not fit the VM (UsageError) are no
    operation. ``begun``: it was begun, and whoever carries it out writes it down. Of a mistake in vcpuctl nobody knows
    how far the operation had come.
    """
    since = time.monotonic()
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if call.request is not None and call.changes and not begun():
            from ..core.operation.result import OperationResult
            from ..core.reason import Outcome

            foreseen = isinstance(error, VcpuctlError)
            outcome = Outcome.REFUSED if foreseen and not isinstance(error, OutcomeLostError) else Outcome.UNKNOWN
            reason = error.reason if isinstance(error, VcpuctlError) else fault.reason(error)
            await write(OperationResult(call.request, outcome, (), time.monotonic() - since, reason))
        raise
