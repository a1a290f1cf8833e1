# SPDX-License-Identifier: Apache-2.0
"""What each run state of a VM means for its CPUs, and what is to be done about it.

In all of them but "running" the guest's CPUs stand still: neither the guest nor its agent can do its part, so nothing
is plugged, unplugged or switched, though QEMU would take a device_add in every one of them; what QEMU has is shown.

The states are those of RunState (qapi/run-state.json; "preconfig" was one of them from 3.0 to 5.1). What ``cont`` does
in each is in qmp_cont and runstate_needs_reset (monitor/qmp-cmds.c, system/runstate.c): it is refused after a shutdown
and an internal error; it is taken, and does harm, on a guest that has panicked ("runs" then, and is dead) and on the
half of a snapshot whose loading failed; a sleeping guest sleeps on. All of that was seen on 10.0 and 11.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from . import codes
from .model import HostView
from .reason import Origin, Reason


class RunState(NamedTuple):
    """One state. ``what`` says what is the matter, ``do`` what ends it, ``leave`` what seems to help and does not.

    ``over``: this very guest will not go on, whatever is done here.
    """

    what: str
    do: str
    leave: str = ""
    code: codes.Code = codes.VM_NOT_RUNNING
    over: bool = False

    @property
    def hint(self) -> str:
        """What to do, and what not."""
        return f"{self.do}; {self.leave}" if self.leave else self.do


_ANEW = "system_reset and then cont start the guest anew, without what it had not saved"

RUN_STATES: Mapping[str, RunState] = MappingProxyType(
    {
        "prelaunch": RunState(
            "QEMU waits with its start (-S), or with the one after a reset",
            "cont lets it run, when all is ready for it",
        ),
        "preconfig": RunState(
            "QEMU waits for its configuration (--preconfig)",
            "x-exit-preconfig has the machine made; vcpuctl numa assign gives its slots nodes before",
        ),
        "paused": RunState("somebody has paused it", "cont lets it run, when whoever paused it is done"),
        "suspended": RunState("its guest sleeps (ACPI S3)", "system_wakeup wakes it", "cont leaves it asleep"),
        "shutdown": RunState(
            "its guest has shut down, and QEMU stays (-no-shutdown)", _ANEW, "cont alone is refused", over=True
        ),
        "internal-error": RunState(
            "QEMU or KVM could not go on with it: QEMU's log says why",
            f"when you have looked, {_ANEW}",
            "cont alone is refused",
            over=True,
        ),
        "guest-panicked": RunState(
            "its guest has panicked",
            f"dump-guest-memory keeps what is to be looked at; {_ANEW}",
            "cont alone has the dead guest run",
            over=True,
        ),
        "io-error": RunState(
            "a disk has failed, and QEMU keeps the guest's request (werror=stop, rerror=stop)",
            "mend the disk (query-block and QEMU's log name it), then cont repeats the request",
        ),
        "watchdog": RunState(
            "the guest's watchdog has run out: the guest hangs, or was too slow",
            f"look at its console; cont lets it go on as it is; {_ANEW}",
        ),
        "debug": RunState("a debugger holds it", "have the debugger continue it, or let it go"),
        "save-vm": RunState("its state is being saved", "repeat it when that has ended"),
        "restore-vm": RunState(
            "a snapshot is being loaded, or could not be loaded",
            "wait for the end of the loading; if it failed, device_add the CPUs that the snapshot has and QEMU lacks, "
            "load it once more (loadvm), or another one, and then cont",
            "cont before that would run what is half loaded",
        ),
        "colo": RunState("it stands still for a checkpoint of COLO", "repeat it when COLO has ended"),
        "inmigrate": RunState(
            "this QEMU waits for its VM, which is still to come by migration",
            "repeat it when the VM has come; vcpuctl migrate check and prepare are for before",
            code=codes.VM_AWAITED,
        ),
        "finish-migrate": RunState(
            "the VM is moving to another QEMU at this moment", "repeat it on the destination", code=codes.VM_MOVED
        ),
        "postmigrate": RunState(
            "the VM has moved to another QEMU, this one only keeps what it was",
            "repeat it on the destination; if it is certain that the VM never ran there, cont lets it run here again",
            code=codes.VM_MOVED,
            over=True,
        ),
    }
)

#: Whose VM is on its way, to here or from here.
AWAY = frozenset({"inmigrate", "finish-migrate", "postmigrate"})

_UNKNOWN = RunState(
    "vcpuctl does not know this state", "see what QEMU's documentation says of it (RunState), and what ends it"
)
_MOVING = RunState("its migration is under way", "repeat it when that has ended, on the side that runs")
#: The destination of a postcopy migration that broke off is "paused" for query-status, and takes a cont.
_BROKEN_OFF = RunState(
    "its migration has broken off, and part of its memory is on the other host",
    "migrate-recover on the destination, and migrate with resume on the source, go on with it",
    "cont would run it without that memory",
)


def run_state(host: HostView) -> RunState | None:
    """Return what is the matter with a VM that does not run; None for one that does."""
    if host.running:
        return None
    if host.status in ("paused", "finish-migrate") and host.migration.startswith(("postcopy-paused", "postcopy-rec")):
        return _BROKEN_OFF
    if host.status == "paused" and host.migrating:
        return _MOVING
    return RUN_STATES.get(host.status, _UNKNOWN)


def is_over(status: str) -> bool:
    """Return whether a guest in this state will not go on: what it was asked for will never come about."""
    state = RUN_STATES.get(status)
    return state is not None and state.over


def not_running(host: HostView) -> Reason:
    """Return why nothing can be done to a VM that does not run."""
    state = run_state(host) or _UNKNOWN
    if state.code != codes.VM_NOT_RUNNING:
        return Reason(state.code, Origin.VCPUCTL, state.what, state.hint)
    text = f"the VM is not running (status: {host.status}): {state.what}"
    return Reason(codes.VM_NOT_RUNNING, Origin.VCPUCTL, text, state.hint)
