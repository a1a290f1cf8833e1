# SPDX-License-Identifier: Apache-2.0
"""Why something is not so, or was not done, and how an operation ended."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Outcome(StrEnum):
    """How an operation, or its part for one slot, ended."""

    DONE = "done"
    PARTIAL = "partial"
    REFUSED = "refused"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Origin(StrEnum):
    """Who said no."""

    VCPUCTL = "vcpuctl"
    QEMU = "qemu"
    FIRMWARE = "firmware"
    GUEST = "guest"
    AGENT = "agent"
    LIBVIRT = "libvirt"


class Reason(NamedTuple):
    """Why something is not so, or was not done (promise 4).

    ``code`` is stable and for programs: one of ``core.codes``, or one that a newer agent sent. ``text`` holds the words
    of the one who refused; ``hint`` says what to do; ``errno`` is the guest kernel's name of the error ("EBUSY"), empty
    if no system call failed.
    """

    code: str
    who: Origin
    text: str
    hint: str = ""
    errno: str = ""

    def __str__(self) -> str:
        words = f"{self.who}: {self.text}"
        if self.errno and self.errno not in self.text:
            words += f" ({self.errno})"
        return f"{words}; {self.hint}" if self.hint else words
