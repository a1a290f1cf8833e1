# SPDX-License-Identifier: Apache-2.0
"""Tells the system's journal how an operation ended, whichever way it did."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from vcpu_host.core.operation.result import OperationResult
from vcpu_host.core.planning.plan import Request
from vcpu_host.core.reason import Outcome
from vcpu_host.errors import UsageError, VcpuctlError
from vcpu_host.local.target import Target
from vcpu_host.logs import Log
from vcpu_host.vm.coordinator import Coordinator

from .connect import command_line


class Logged:
    """One operation on one VM, for its entry. ``name`` is the VM's name in vms.d, empty if it has none."""

    def __init__(self, target: Target, name: str, log: Log) -> None:
        self._target = target
        self._name = name
        self._log = log

    def ended(self, result: OperationResult, vm: Coordinator | None = None) -> None:
        """Write the entry. ``vm`` tells what the target does not: QEMU's process, and its name for the VM."""
        # Late: the operation is over, and most commands never come here.
        from vcpu_host import documents
        from vcpu_host.core.log_entry import Subject
        from vcpu_host.local import journald
        from vcpu_host.local.unix_sockets import place

        identity = None if vm is None else vm.identity
        name = self._name or ("" if vm is None else vm.name)
        subject = Subject(name, place(self._target.qmp), None if identity is None else identity.pid)
        caller = journald.this_process(command_line())
        told = journald.log_operation(subject, caller, documents.of_result(result), result.before, result.after)
        self._log.info("journal", entry=str(told))


@contextmanager
def logged(target: Target, name: str, request: Request, log: Log) -> Iterator[Logged]:
    """Give an operation its entry: ``ended`` writes it, or an error that ends the block as a refusal.

    Words that do not fit the VM (UsageError) are no operation.
    """
    entry, began = Logged(target, name, log), time.monotonic()
    try:
        yield entry
    except UsageError:
        raise
    except VcpuctlError as error:
        entry.ended(OperationResult(request, Outcome.REFUSED, (), time.monotonic() - began, error.reason))
        raise
