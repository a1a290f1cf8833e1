# SPDX-License-Identifier: Apache-2.0
"""Writes what was done into the system's journal, by journald's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

One datagram is one entry. Nothing here waits for long, and a system without journald is no error: an operation has
ended when it is written down, and its result counts, whatever becomes of the entry.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from ..core.log_entry import Caller, Subject, fields
from ..core.operation.counts import Counts

SOCKET = "/run/systemd/journal/socket"
#: How long a journal that takes no entries is waited for, in seconds.
PATIENCE = 0.2
#: How long a name service is waited for that may be on the network, in seconds.
_NAME_PATIENCE = 0.2
#: What users' names were found to be, by their numbers: the last of each list, which may come later.
_NAMES: dict[int, list[str]] = {}
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Told(StrEnum):
    """What became of an entry."""

    WRITTEN = "written"
    NO_JOURNAL = "no journal"  # nobody listens: this system has no journald
    LOST = "lost"  # journald did not take it in time, or at all


def log_operation(
    subject: Subject, caller: Caller, document: Mapping[str, Any], before: Counts | None, after: Counts | None
) -> Told:
    """Write the entry for an operation that ended as ``document`` (``documents.of_result``) says."""
    return send(fields(subject, caller, document, before, after))


def this_process(command: str, for_uid: int | None = None) -> Caller:
    """Return this process as the one that changes a VM. The user's name is left out if nobody knows it in time."""
    import threading

    uid = os.getuid()
    names = _NAMES.get(uid)
    if names is None:
        names = _NAMES[uid] = [""]
        # A name service that hangs must not: so it is asked beside, by a thread that the process's end does not wait
        # for. And once: a service writes thousands of entries.
        asked = threading.Thread(target=_look_up, args=(uid, names), daemon=True)
        asked.start()
        asked.join(_NAME_PATIENCE)
    return Caller(uid, names[-1], command, for_uid)


def _look_up(uid: int, names: list[str]) -> None:
    import pwd

    try:
        names.append(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return  # a number without a name


def encode(entry: Iterable[tuple[str, str]]) -> bytes:
    """Return the entry as journald reads it: a value with a line break in it is preceded by its length."""
    parts = []
    for name, value in entry:
        data = value.encode(errors="backslashreplace")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)


def send(entry: Iterable[tuple[str, str]], path: str = SOCKET, patience: float = PATIENCE) -> Told:
    """Hand the entry to journald, which is waited for no longer than ``patience``, in seconds."""
    data = encode(entry)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as journal:
        try:
            journal.connect(path)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return Told.NO_JOURNAL
        except OSError:
            return Told.LOST
        try:
            _send(journal, data, time.monotonic() + patience)
        except OSError:
            return Told.LOST
    return Told.WRITTEN


def _send(journal: socket.socket, data: bytes, until: float) -> None:
    """Send the entry as it is, or, where it is too large for a datagram, as a sealed file. Raise OSError."""
    try:
        _in_time(journal, [data], [], until)
    except OSError as error:
        if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
            raise
        file = os.memfd_create("vcpuctl-journal", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            with open(file, "wb", closefd=False) as writer:
                writer.write(data)
            # journald maps the file: it takes none that its writer could still change (journald-native.c).
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
            _in_time(journal, [], [file], until)
        finally:
            os.close(file)


def _in_time(journal: socket.socket, data: list[bytes], files: list[int], until: float) -> None:
    """Send one datagram, when the journal has room for it. Raise TimeoutError if it gets none, or another OSError."""
    while True:
        try:
            socket.send_fds(journal, data, files) if files else journal.send(data[0])
        except BlockingIOError:
            left = until - time.monotonic()
            ready = select.poll()
            ready.register(journal, select.POLLOUT)
            if left <= 0 or not ready.poll(left * 1000):
                raise TimeoutError("journald takes no entries") from None
        else:
            return
