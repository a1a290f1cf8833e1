# SPDX-License-Identifier: Apache-2.0
"""What ``vcpuctl doctor`` finds with a VM that can be opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from ..core import codes
from ..core.diagnosis import above_recommended, diagnose
from ..core.finding import Finding, Level
from ..core.identity import SocketId, VmIdentity
from ..core.view import VmView
from ..local.processes import qemu_of


def findings(view: VmView, identity: VmIdentity | None, monitor: str) -> Iterator[Finding]:
    """Yield what a look shows, and what this host knows of the VM; ``monitor`` is the path of its socket."""
    yield from _permissions(monitor, "monitor")
    yield from _process(identity)
    yield from _kvm(view, identity)
    if view.host.channel is not None and view.host.channel.socket is not None:
        yield from _permissions(view.host.channel.socket, "agent channel")
    yield from diagnose(view)


def _process(identity: VmIdentity | None) -> Iterator[Finding]:
    """Yield a warning if QEMU's process cannot be seen.

    What two vcpuctl on one VM know of each other hangs on it (``lock``, ``journal``).
    """
    if identity is not None and isinstance(identity.by, SocketId):
        yield Finding(
            Level.WARNING,
            codes.PROCESS_UNSEEN,
            "QEMU's process cannot be seen from here (another PID namespace, another host, or hidden /proc), so a "
            "vcpuctl that comes by another monitor of this VM is not kept out, and does not see what is pending",
            "give vcpuctl one monitor of this VM and no other, or run it where QEMU's process is to be seen",
        )


def _kvm(view: VmView, identity: VmIdentity | None) -> Iterator[Finding]:
    """Yield what this host's KVM says, if it is the one that runs the VM: QEMU's process is seen here."""
    if view.host.accel == "kvm" and identity is not None and qemu_of(identity) is not None:
        from ..local.kvm import recommended_vcpus

        yield from above_recommended(view, recommended_vcpus())


def _permissions(path: str, what: str) -> Iterator[Finding]:
    """Yield a warning if every user can write to this socket. Whoever can write to these sockets owns the VM."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # the connection attempt says it better
    if stat.S_ISSOCK(mode) and mode & stat.S_IWOTH:
        yield Finding(
            Level.WARNING,
            codes.OPEN_SOCKET,
            f"every user of this host can write to the {what} socket {path}",
            f"chmod o-rwx {path}, and keep it in a directory that only the VM's owner can enter",
        )
