# SPDX-License-Identifier: Apache-2.0
"""Which QEMU a VM's monitor leads to, as far as that can be told from here."""

from __future__ import annotations

from typing import NamedTuple


class ProcessId(NamedTuple):
    """A process that no later one on this host is equal to.

    ``pid`` is its id in the PID namespace with the inode number ``namespace``; ``started`` is when it was started, in
    clock ticks since the host's boot (proc_pid_stat(5), field 22).
    """

    pid: int
    started: int
    namespace: int


class SocketId(NamedTuple):
    """What listens on a unix socket, for as long as it does.

    ``path`` has no symbolic links, or is "@NAME". ``inode`` is the file's; 0 if there is no file (any more).
    """

    path: str
    inode: int = 0


class DomainId(NamedTuple):
    """A domain of libvirt's, by its own UUID and by that of the host that runs it (virConnectGetCapabilities)."""

    uuid: str
    host: str


class VmIdentity(NamedTuple):
    """A VM, told apart from all others on this host; one that libvirt owns, from all others anywhere.

    ``by`` is QEMU's process, or the domain. Where that cannot be seen from here, it is the monitor's socket: then
    whoever comes by another monitor of the same VM has another identity for it. ``listens``: the process was seen
    to listen on the monitor's socket itself, so that nobody stands between. ``first_thread`` is the thread of
    QEMU's first vCPU, if it can be seen: earlier versions knew the VM by that, and a domain has it in common with its
    QEMU's own monitors.
    """

    by: ProcessId | SocketId | DomainId
    listens: bool = False
    first_thread: ProcessId | None = None

    @property
    def pid(self) -> int | None:
        """The process id of QEMU, as seen from here; None where the process cannot be seen."""
        return self.by.pid if isinstance(self.by, ProcessId) else None
