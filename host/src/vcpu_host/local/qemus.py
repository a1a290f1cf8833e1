# SPDX-License-Identifier: Apache-2.0
"""The QEMU processes of this host, from /proc alone: nothing is connected to, and no process notices.

What a process says of itself is its owner's word: anybody can start one with any command line.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress

from ..core import codes
from ..core.qemu_argv import Chardev, CommandLine, program, read
from ..core.reason import Origin, Reason
from ..core.text import printable
from ..core.vms import Monitor, Process
from . import processes
from .unix_sockets import is_abstract, listeners

_HINT = "run it as root, or as QEMU's user"


def seen() -> tuple[list[Process], Reason | None]:
    """Return the processes that look like a QEMU, by their ids, and what to say if some processes cannot be seen."""
    pids = processes.pids()
    lines = {pid: processes.arguments(pid) for pid in pids}
    found = [process for pid, words in lines.items() if words and (process := _process(pid, words)) is not None]
    return list(_without_copies(found, lines)), _unseen(pids, lines)


def listening(names: Iterable[str]) -> dict[str, int]:
    """Return the id of the QEMU that alone listens at each of these sockets, where that can be seen from here.

    Sockets that several processes have open are nobody's: one of them may have made those of many QEMUs.
    """
    wanted: dict[str, list[str]] = {}
    for name in names:
        if (key := key_of(name)) is not None:
            wanted.setdefault(key, []).append(name)
    sockets = _sockets(wanted)
    found: dict[str, set[int]] = {}
    for pid in processes.pids() if sum(map(len, sockets.values())) > 1 else ():
        argv = program(processes.arguments(pid) or ())
        if argv and _is_qemu(pid, argv[0]):
            for inode in sockets.keys() & _inodes(pid):
                for name in sockets[inode]:
                    found.setdefault(name, set()).add(pid)
    return {name: pids.pop() for name, pids in found.items() if len(pids) == 1}


def listener(name: str) -> int:
    """Return the id of the process that alone has the listening socket of this name open; 0 if that cannot be seen.

    For a socket that takes no connection, which would tell it (``processes.peer``).
    """
    key = key_of(name)
    sockets = {} if key is None else _sockets({key: [name]})
    having = [pid for pid in processes.pids() if sockets.keys() & _inodes(pid)] if sockets else []
    return having[0] if len(having) == 1 else 0


def _sockets(wanted: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the names that each listening socket has, by its inode number; ``wanted`` are those by their keys.

    A name that two sockets were bound to leads to one of them, and it is not known to which.
    """
    found: dict[str, list[str]] = {}
    for bound, inode in listeners():
        if (is_abstract(bound) or os.path.isabs(bound)) and (key := key_of(bound) or "") in wanted:
            found.setdefault(key, []).append(inode)
    return {inodes[0]: wanted[key] for key, inodes in found.items() if len(inodes) == 1}


def _inodes(pid: int) -> set[str]:
    """Return the inode numbers of the sockets that the process has open; none if that may not be seen."""
    targets = []
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # closed meanwhile
                    targets.append(os.readlink(entry.path))
    except OSError:
        return set()
    return {target[len("socket:[") : -1] for target in targets if target.startswith("socket:[")}


def key_of(name: str) -> str | None:
    """Return what is the same for all names of one socket, as seen from here; None if there is none."""
    if is_abstract(name):
        return name
    try:
        return _key(os.stat(name))
    except (OSError, ValueError):  # the latter: a NUL in the name
        return None


def _key(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}"


def _unseen(pids: Iterable[int], lines: dict[int, tuple[str, ...] | None]) -> Reason | None:
    """Return what hidepid= of /proc hides (proc(5)): what is in the processes, or, with 2, that there are any.

    Process 1 is there in every PID namespace.
    """
    shut = sum(words is None for words in lines.values())
    if not shut and 1 in pids:
        return None
    which = f"{shut} processes of other users cannot be read" if shut else "processes of other users cannot be seen"
    text = f"{which} (hidepid= of /proc), and there may be VMs among them"
    return Reason(codes.PROCESSES_UNSEEN, Origin.VCPUCTL, text, "run it as root")


def _process(pid: int, words: tuple[str, ...]) -> Process | None:
    """Return the process if it looks like a QEMU, and has a monitor, the agent's port, or what was not read."""
    argv = program(words)
    if not argv or not _is_qemu(pid, argv[0]):
        return None
    says = read(argv)
    started, user = processes.started(pid), processes.user(pid)
    if started is None or user is None or not (says.monitors or says.port or says.unread):
        return None
    return Process(pid, _name_of(user), started, says, tuple(_monitors(pid, says)))


def _is_qemu(pid: int, program: str) -> bool:
    """Return whether the program's name, or that of its file, is one of QEMU's: it may be started by another name."""
    try:
        file = os.readlink(f"/proc/{pid}/exe")
    except OSError:  # another user's, or ended
        file = ""
    names = {os.path.basename(program), os.path.basename(file.removesuffix(" (deleted)"))}
    return any("qemu" in name or name == "kvm" for name in names)


def _without_copies(found: Iterable[Process], lines: dict[int, tuple[str, ...] | None]) -> Iterator[Process]:
    """Yield each QEMU once: a child that has its parent's words is a copy that cleans up (-run-with async-teardown)."""
    for process in found:
        parent = processes.parent(process.pid)
        if parent is None or lines.get(parent) != lines[process.pid]:
            yield process


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _monitors(pid: int, says: CommandLine) -> Iterator[Monitor]:
    """Yield the monitors that may be reached."""
    for chardev in says.monitors:
        if chardev.reachable:
            bound = chardev.bound or _handed(pid, chardev.fd)
            yield Monitor(chardev.told, None, _not_told(chardev)) if bound is None else _monitor(pid, bound)


def _handed(pid: int, descriptor: int | None) -> str | None:
    """Return the name that the socket with this number in the process is bound to; None if it cannot be known."""
    try:
        target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
    except OSError:
        return None
    inode = target.removeprefix("socket:[").removesuffix("]")
    return next((name for name, number in listeners() if number == inode), None)


def _not_told(chardev: Chardev) -> Reason:
    return Reason(
        codes.SOCKET_ELSEWHERE,
        Origin.VCPUCTL,
        f"QEMU was handed its monitor's socket (fd={chardev.fd}), and what it is called cannot be seen from here",
        f"{_HINT}; or ask whoever started QEMU for the path",
    )


def _monitor(pid: int, bound: str) -> Monitor:
    """Return the monitor of that name, with what leads to it from here."""
    told = printable(bound, 160)
    if not _is_text(bound):
        return Monitor(told, None, _elsewhere(told, "it is not UTF-8, and what vms.d and QMP say is"))
    if is_abstract(bound):
        if any(name == bound for name, _ in listeners()):
            return Monitor(told, bound, key=bound)
        return Monitor(told, None, _elsewhere(told, "nobody listens there in this network namespace"))
    if not os.path.isabs(bound):
        try:
            bound = os.path.normpath(os.path.join(os.readlink(f"/proc/{pid}/cwd"), bound))
        except OSError:
            return Monitor(told, None, _elsewhere(told, "it is relative to a directory that cannot be seen"))
    apart = _is_apart(pid)
    inside = _stat(f"/proc/{pid}/root{bound}") if apart else None
    there = _stat(bound)
    if apart and (not isinstance(inside, os.stat_result) or not _same(inside, there)):
        key = _key(inside) if isinstance(inside, os.stat_result) else None
        return Monitor(told, None, _elsewhere(told, "QEMU lives in a container, with a file system of its own"), key)
    if not isinstance(there, os.stat_result):
        return Monitor(told, None, _not_there(told, there))
    trouble = _no_way_in(bound, told, there)
    return Monitor(told, None if trouble else bound, trouble, _key(there))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a byte that os.fsdecode has kept
        return False
    return True


def _stat(path: str) -> os.stat_result | int:
    """Return the file's status, or the errno."""
    try:
        return os.stat(path)
    except OSError as error:
        return error.errno or errno.EIO


def _same(one: os.stat_result, other: os.stat_result | int) -> bool:
    return isinstance(other, os.stat_result) and os.path.samestat(one, other)


def _is_apart(pid: int) -> bool:
    """Return whether the process has another mount namespace.

    Where that may not be seen, its PID namespace, which everybody may see, stands for it.
    """
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
    except OSError:
        return processes.is_nested(pid)


def _elsewhere(told: str, why: str) -> Reason:
    return Reason(
        codes.SOCKET_ELSEWHERE,
        Origin.VCPUCTL,
        f"QEMU calls its monitor {told}, which does not lead to it from here: {why}",
        "name the socket by its path here, if it has one: qmp = in vms.d, or --qmp SOCKET",
    )


def _not_there(told: str, number: int) -> Reason:
    if number in (errno.EACCES, errno.EPERM):
        return _forbidden(told, errno.errorcode[number])
    name = errno.errorcode.get(number, "")
    text = f"QEMU calls its monitor {told}, and there is no such socket: somebody has removed it, or renamed it"
    return Reason(codes.NO_SUCH_SOCKET, Origin.VCPUCTL, text, "restart the VM, or move the socket back", name)


def _forbidden(told: str, name: str) -> Reason:
    text = f"this user may not connect to QEMU's monitor {told}"
    return Reason(codes.NOT_PERMITTED, Origin.VCPUCTL, text, _HINT, name)


def _no_way_in(path: str, told: str, status: os.stat_result) -> Reason | None:
    if not stat.S_ISSOCK(status.st_mode):
        text = f"QEMU calls its monitor {told}, and what is there now is no socket"
        return Reason(codes.NOT_A_SOCKET, Origin.VCPUCTL, text, "restart the VM, or move the socket back")
    return None if os.access(path, os.W_OK) else _forbidden(told, "EACCES")
