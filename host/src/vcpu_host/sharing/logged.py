# SPDX-License-Identifier: Apache-2.0
"""Tells the system's journal how operations end: each leaves one entry, whichever way it ended.

The process that carries an operation out writes its result. Where there is none, because nothing was begun, whoever
asked for the operation writes that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..core import codes
from ..errors import UsageError, VcpuctlError
from ..local.target import Target

if TYPE_CHECKING:
    from ..core.operation.result import OperationResult
    from ..core.planning.plan import Request
    from ..vm.coordinator import Coordinator


def log(
    target: Target, holder: str, result: OperationResult, vm: Coordinator | None = None, for_uid: int | None = None
) -> str:
    """Write the entry. Return what became of it, in words.

    ``holder`` is this process's command, ``for_uid`` the user that it did this for if that is somebody else. ``vm``
    tells what the target does not: QEMU's process, and its name for the VM.
    """
    # Late: the operation is over, and most commands never come here.
    from .. import documents
    from ..core.log_entry import Subject
    from ..local import journald
    from ..local.unix_sockets import place

    identity = None if vm is None else vm.identity
    name = target.name or ("" if vm is None else vm.name)
    subject = Subject(name, place(target.qmp), None if identity is None else identity.pid)
    caller = journald.this_process(holder, for_uid)
    return str(journald.log_operation(subject, caller, documents.of_result(result), result.before, result.after))


@contextmanager
def no_result(target: Target, holder: str, request: Request) -> Iterator[None]:
    """Write the entry of an operation that this block asks for, and that ends by an error.

    Nothing was changed then, unless the error says that nobody knows. Words that do not fit the VM (UsageError) are no
    operation.
    """
    began = time.monotonic()
    try:
        yield
    except UsageError:
        raise
    except VcpuctlError as error:
        from ..core.operation.result import OperationResult
        from ..core.reason import Outcome

        outcome = Outcome.UNKNOWN if error.reason.code == codes.SERVICE_LOST else Outcome.REFUSED
        log(target, holder, OperationResult(request, outcome, (), time.monotonic() - began, error.reason))
        raise
