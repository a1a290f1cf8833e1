# SPDX-License-Identifier: Apache-2.0
"""A fault of vcpuctl's own: its log, or the stderr of a command, has all of it, and whoever asked is told in words."""

from __future__ import annotations

import sys
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
#: The same where that stderr is the caller's own.
ABOVE = "stderr has more; please report it, with that"
_UNKNOWN = "it is not known how far the operation came"


def logged(name: str, error: Exception) -> Reason:
    """Write to stderr that this went wrong with what has this name. Return the reason for others."""
    tell(f"{name}: a fault of vcpuctl's own")
    _trace(error)
    return reason(error)


def _trace(error: Exception) -> None:
    """Write the traceback to stderr. A line of it may repeat words of somebody else's."""
    with suppress(OSError):  # a log that takes nothing ends nothing
        for line in "".join(traceback.format_exception(error)).splitlines():
            sys.stderr.write(f"{printable(line, _LONGEST)}\n")
        sys.stderr.flush()


def reason(error: Exception, more: str = _MORE) -> Reason:
    """Return what others are told of it; ``more`` says where there is more, and what to do."""
    text = f"a fault of vcpuctl's own: {printable(repr(error), _LONGEST)}"
    return Reason(codes.FAULT, Origin.VCPUCTL, text, more)


def met(name: str, error: Exception, *, changes: bool, more: str = _MORE) -> VcpuctlError:
    """Log it as ``logged``. Return the error with which a call ends; ``changes``: it was to change the VM."""
    logged(name, error)
    told = reason(error, more)
    if not changes:
        return FaultError(told)
    hint = f"vcpuctl list shows how the VM stands; {told.hint}"
    return OutcomeLostError(Reason(told.code, told.who, f"{told.text}: {_UNKNOWN}", hint))
