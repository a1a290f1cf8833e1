# SPDX-License-Identifier: Apache-2.0
"""A fault of vcpuctl's own, met while it works for others: its log has all of it, and they are told in words."""

from __future__ import annotations

import traceback
from contextlib import suppress

from ..core import codes
from ..core.reason import Origin, Reason
from ..core.text import printable
from ..errors import FaultError, OutcomeLostError, VcpuctlError
from .log import tell

#: The longest text of a failure that nobody foresaw, in characters.
_LONGEST = 1000
_MORE = "the stderr of whoever answered has more (of the service: journalctl -u vcpuctl); please report it"
_UNKNOWN = "it is not known how far the operation came"


def logged(name: str, error: Exception) -> Reason:
    """Write to stderr that this went wrong with what has this name. Return the reason for others."""
    tell(f"{name}: a fault of vcpuctl's own")
    with suppress(OSError):  # a log that takes nothing ends nothing
        traceback.print_exception(error)
    return reason(error)


def reason(error: Exception) -> Reason:
    """Return what others are told of it."""
    text = f"a fault of vcpuctl's own: {printable(repr(error), _LONGEST)}"
    return Reason(codes.FAULT, Origin.VCPUCTL, text, _MORE)


def met(name: str, error: Exception, *, changes: bool) -> VcpuctlError:
    """Log it as ``logged``. Return the error with which a call ends; ``changes``: it was to change the VM."""
    told = logged(name, error)
    if not changes:
        return FaultError(told)
    hint = f"vcpuctl list shows how the VM stands; {told.hint}"
    return OutcomeLostError(Reason(told.code, told.who, f"{told.text}: {_UNKNOWN}", hint))
