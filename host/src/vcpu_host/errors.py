# SPDX-License-Identifier: Apache-2.0
"""Every error that vcpuctl raises, with whose fault it is and what to do next.

    VcpuctlError
    ├── UsageError            the caller's words do not fit this VM (nothing was tried)
    ├── RefusedError          we, QEMU or the host's system said no (nothing was changed)
    ├── QemuError             QEMU answered a command with an error
    ├── FaultError            a mistake in vcpuctl ended a question
    ├── OutcomeLostError      an operation was begun, and nobody is left who could tell how it ended
    └── UnreachableError      nobody answers, or the answerer went away
        ├── QemuGoneError     QEMU's monitor: connection lost, QEMU died
        └── AgentGoneError    the guest agent: absent, silent, stopped, too old

Each carries a :class:`~vcpu_host.core.model.Reason`, whose ``code`` is stable. The exit status of each class stands in
one table, ``cli/exitcodes.py``.
"""

from __future__ import annotations

import time

from .core import codes
from .core.reason import Origin, Reason


class VcpuctlError(Exception):
    """Root of the tree."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason

    @classmethod
    def of(cls, code: str, text: str, *, who: Origin = Origin.VCPUCTL, hint: str = "") -> VcpuctlError:
        """Return the error with a reason made of these parts."""
        return cls(Reason(code, who, text, hint))


class UsageError(VcpuctlError):
    """What was asked for does not fit: unknown slot, bad props, a socket that is not a monitor."""


def bad_slot(text: str) -> UsageError:
    """Return the error of a selector that this VM has no slot for, or that nobody understands; ``text`` says why."""
    return UsageError(Reason(codes.BAD_SLOT, Origin.VCPUCTL, text, "vcpuctl list shows the slots and their names"))


class RefusedError(VcpuctlError):
    """Refused before anything was changed."""


def at_work() -> RefusedError:
    """Return the error of a second operation on a VM beside one that this process carries out."""
    text = "this process is at work on the VM already"
    return RefusedError(Reason(codes.VM_BUSY, Origin.VCPUCTL, text, "wait until that operation has ended"))


class QemuError(VcpuctlError):
    """QEMU rejected a command. ``qmp_class`` is QMP's error class (GenericError, DeviceNotFound ...)."""

    def __init__(self, reason: Reason, qmp_class: str = "GenericError") -> None:
        super().__init__(reason)
        self.qmp_class = qmp_class


class OutcomeLostError(VcpuctlError):
    """An operation was begun, and nobody is left to tell how it ended: what it began may still happen.

    The process that carried it out has ended, or its answer is not waited for, or could not be written.
    """


class TooLateError(Exception):
    """What had to be sent by a certain time was held up until that had passed, and was not sent: nothing was done.

    No command ends with it: who set the time asks anew.
    """


def in_time(not_after: float | None) -> None:
    """Raise TooLateError if it is later than that, on the loop's clock. To be called at the very moment of sending."""
    if not_after is not None and time.monotonic() > not_after:
        raise TooLateError


class FaultError(VcpuctlError):
    """A mistake in vcpuctl, which whoever asked cannot do anything about."""


class UnreachableError(VcpuctlError):
    """Nobody answers at the other end."""


class QemuGoneError(UnreachableError):
    """The monitor cannot be reached, or its connection was lost."""


class AgentGoneError(UnreachableError):
    """The guest agent cannot be reached, or its session was lost."""
