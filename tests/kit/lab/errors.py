# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in the lab; every error's text carries what a reader needs to see first."""

from __future__ import annotations


class LabError(Exception):
    """Root of the lab's errors."""


class CommandError(LabError):
    """A host command (mmdebstrap, qemu-img, ...) failed; the text ends with its last lines."""


class WaitTimeoutError(LabError):
    """A condition did not come true in time; the text ends with the console's tail."""


class VmDiedError(LabError):
    """QEMU ended while it was needed; the text ends with its own last words."""


class QmpError(LabError):
    """QEMU answered a command with an error.

    ``cls`` is the error class (``GenericError``, ``DeviceNotFound``, ...), ``desc`` QEMU's own text.
    """

    def __init__(self, cls: str, desc: str) -> None:
        super().__init__(f"{cls}: {desc}")
        self.cls = cls
        self.desc = desc


class ShellError(LabError):
    """A command in the guest ended with a status other than 0."""

    def __init__(self, command: str, status: int, output: str) -> None:
        super().__init__(f"guest command {command!r} ended with status {status}: {output.strip()}")
        self.status = status
        self.output = output
