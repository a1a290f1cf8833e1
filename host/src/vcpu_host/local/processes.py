# SPDX-License-Identifier: Apache-2.0
"""Which process is QEMU, as seen from here.

A process may live in another PID namespace (a container): it then has one id here and another one there. Two things
tell which it is: the kernel, for the other end of a unix socket, and the ids of its threads, which QEMU tells for its
vCPUs.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.identity import ProcessId, SocketId, VmIdentity
from ..core.text import printable
from .unix_sockets import place

if TYPE_CHECKING:
    from ..core.descriptors import Descriptors

#: Bytes that are read of a command line. libvirt's, with hundreds of devices, have a tenth of it.
_LONGEST_LINE = 1 << 20


def peer(sock: socket.socket) -> int:
    """Return the id that the process which listens at the other end of ``sock`` has here.

    Return 0 if it cannot be seen from here.

    (unix(7), SO_PEERCRED. It is the one that called listen(2) last, and QEMU calls it on sockets that it was handed,
    too: socket_listen, util/qemu-sockets.c.)
    """
    return _credentials(sock)[0]


def peer_user(sock: socket.socket) -> int:
    """Return the id of the user whose process is at the other end of ``sock``, as it was when it connected.

    (unix(7).)
    """
    return _credentials(sock)[1]


def _credentials(sock: socket.socket) -> tuple[int, int, int]:
    """Return the process, the user and the group at the other end."""
    layout = "3i"
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(layout))
    pid, uid, gid = struct.unpack(layout, raw)
    return pid, uid, gid


def describe(pid: int) -> str:
    """Return the process with this id here, for people: "process 1234 (socat)"."""
    if pid <= 0:
        return "a process that cannot be seen from here"
    command = printable(_read(f"{pid}/comm").decode(errors="replace").strip())
    return f"process {pid} ({command})" if command else f"process {pid}"


def identify(listener: int, thread_id: int | None, path: str) -> VmIdentity:
    """Return the QEMU that has a thread of that id, in its own PID namespace, and is reached by the socket at ``path``.

    ``listener`` is the ``peer`` there. It may be somebody who passes the bytes on: then a process here that has such a
    thread is taken for QEMU, if its command line names qemu. So is the listener where there is no vCPU yet (None).
    """
    if has_thread(listener, thread_id) if thread_id is not None else _says_qemu(listener):
        process = process_id(listener)
        if process is not None:
            return VmIdentity(process, listens=True, first_thread=_thread(process, thread_id))
    elif thread_id is not None and listener > 0:
        owner = _owner(thread_id)
        process = process_id(owner) if _says_qemu(owner) else None
        if process is not None:
            return VmIdentity(process, first_thread=_thread(process, thread_id))
    return VmIdentity(_socket_id(path))


def has_thread(pid: int, thread_id: int) -> bool:
    """Return whether this process has a thread that is ``thread_id`` in the thread's innermost PID namespace.

    (proc_pid_status(5), NSpid: the ids of a thread from the namespace of /proc to its own.)
    """
    try:
        threads = [int(thread) for thread in os.listdir(f"/proc/{pid}/task")] if pid > 0 else []
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    if len(_ids(pid, pid)) == 1:
        return thread_id in threads
    return any(_ids(pid, thread)[-1:] == [thread_id] for thread in threads)


def _thread(process: ProcessId, thread_id: int | None) -> ProcessId | None:
    """Return the process's thread with this id, if that is its id here, too: in another PID namespace it is not."""
    return None if thread_id is None or _owner(thread_id) != process.pid else process_id(thread_id)


def qemus_thread(thread_id: int) -> ProcessId | None:
    """Return the thread with this id here, if it is a QEMU's; else None."""
    return process_id(thread_id) if _says_qemu(_owner(thread_id)) else None


def process_id(pid: int) -> ProcessId | None:
    """Return which process or thread has this id here; None if there is none."""
    began = started(pid)
    return None if began is None else ProcessId(pid, began, _namespace())


def ended(process: ProcessId) -> bool:
    """Return whether the process was seen from here and is no more."""
    return process.namespace == _namespace() and started(process.pid) != process.started


def qemu_of(identity: VmIdentity) -> int | None:
    """Return the id that the VM's QEMU has here; None if it cannot be seen from here, or is no more.

    A domain's is the process of its first vCPU's thread, as far as libvirt runs on this host.
    """
    known = identity.by if isinstance(identity.by, ProcessId) else identity.first_thread
    return None if known is None or ended(known) else _owner(known.pid) or None


def descriptors(pid: int) -> Descriptors | None:
    """Return how many file descriptors the process has open and may have; None where that cannot be seen."""
    # Late: whoever only asks a service does not need it.
    from ..core.descriptors import Descriptors

    limit = _limit(pid)
    count = _count(pid) if limit else 0
    return Descriptors(count, limit, pid, _ceiling()) if count else None


def _count(pid: int) -> int:
    """Return how many the process has open; 0 if it cannot be seen.

    Linux tells anybody since 6.2, as the directory's size, and before that its user.
    """
    try:
        return os.stat(f"/proc/{pid}/fd").st_size or len(os.listdir(f"/proc/{pid}/fd"))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0


def _limit(pid: int) -> int:
    """Return the limit that counts, the soft one (proc_pid_limits(5)).

    Return 0 if it cannot be seen, or there is none.
    """
    for line in _read(f"{pid}/limits").splitlines():
        if line.startswith(b"Max open files"):
            soft = line.split()[3]
            return int(soft) if soft.isdigit() else 0
    return 0


def _ceiling() -> int:
    """Return the highest limit that anybody, root too, can give a process (proc_sys_fs(5), nr_open)."""
    return int(_read("sys/fs/nr_open") or 0)


def _socket_id(path: str) -> SocketId:
    real = place(path)
    try:
        inode = os.stat(real).st_ino
    except FileNotFoundError:  # an abstract name, or a socket that was removed under the connection
        inode = 0
    return SocketId(real, inode)


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def started(pid: int) -> int | None:
    """Return when the process or thread was started, in clock ticks since boot; None if there is none."""
    # The name in parentheses may hold anything, parentheses too.
    fields = _read(f"{pid}/stat").rpartition(b")")[2].split()
    return int(fields[19]) if len(fields) > 19 else None


def pids() -> list[int]:
    """Return the ids of all processes that are to be seen from here, in ascending order."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())


def arguments(pid: int) -> tuple[str, ...] | None:
    """Return the process's command line; None if this user may not read it.

    Empty for one that has none (a kernel thread), or has ended. A longer one than any real one is cut.
    """
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            line = file.read(_LONGEST_LINE)
    except PermissionError:
        return None
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(os.fsdecode(word) for word in line.removesuffix(b"\0").split(b"\0")) if line else ()


def user(pid: int) -> int | None:
    """Return the real id of the process's user; None if it has ended. (/proc/PID may be root's: proc(5).)"""
    ids = _status(str(pid)).get("Uid", "").split()
    return int(ids[0]) if ids else None


def parent(pid: int) -> int | None:
    """Return the id of the process's parent; None if the process has ended."""
    number = _status(str(pid)).get("PPid")
    return None if number is None else int(number)


def is_nested(pid: int) -> bool:
    """Return whether the process lives in a PID namespace below ours, as in a container."""
    return len(_status(str(pid)).get("NSpid", "").split()) > 1


def _says_qemu(pid: int) -> bool:
    return pid > 0 and b"qemu" in _read(f"{pid}/cmdline")


def _owner(thread_id: int) -> int:
    """Return the process that the thread with this id here belongs to; 0 if there is none."""
    return int(_status(str(thread_id)).get("Tgid", "0"))


def _ids(pid: int, thread_id: int) -> list[int]:
    """Return the thread's ids. A kernel without PID namespaces has one for each, and tells no more of it."""
    return [int(number) for number in _status(f"{pid}/task/{thread_id}").get("NSpid", str(thread_id)).split()]


def _status(which: str) -> dict[str, str]:
    """Return what /proc/WHICH/status says; empty if there is no such process, or it may not be seen."""
    lines = _read(f"{which}/status").decode(errors="replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _read(which: str) -> bytes:
    """Return a file below /proc; empty if the process has ended, or may not be seen."""
    try:
        return Path("/proc", which).read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
