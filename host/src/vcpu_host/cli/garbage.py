# SPDX-License-Identifier: Apache-2.0
"""When Python looks for garbage in a process of ours: it may take as long as what the process is there for."""

from __future__ import annotations

import gc

#: Objects that a command makes, beyond those that went, before the newest are looked at; Python's own choice is 700. A
#: command on fifty VMs takes a tenth less of the processor so, and has some megabytes more at most.
_SELDOM = 50_000


def put_off() -> None:
    """Look for none until ``begin``: while modules are loaded there is next to none."""
    gc.disable()


def begin(*, seldom: bool) -> None:
    """Go on as ``put_off`` left it: all that stays is loaded now.

    ``seldom`` is for a command, which makes much at once or little for long.
    """
    if gc.isenabled():
        return
    gc.freeze()
    if seldom:
        gc.set_threshold(_SELDOM)
    gc.enable()


def end() -> None:
    """Look for none at the end of the process, which gives back everything."""
    gc.freeze()
