# SPDX-License-Identifier: Apache-2.0
"""The directory of what a run leaves for the next one: locks and records, for their owner alone."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .core.model import Reason, Who
from .errors import RefusedError


def directory() -> Path:
    """Where it is: the system's for root, the user's own otherwise."""
    if os.geteuid() == 0:
        return Path("/run/vcpuctl")
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base, "vcpuctl") if base else Path(f"/tmp/vcpuctl-{os.geteuid()}")  # noqa: S108 - checked in prepare


def prepare(path: Path) -> None:
    """Make the directory, or see that it is ours alone. Raises RefusedError "unsafe-directory", or OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022 or path.is_symlink():
        raise unsafe(f"{path} belongs to somebody else, or others may write to it")


def unsafe(text: str) -> RefusedError:
    """What lies there is not to be trusted."""
    return RefusedError(Reason("unsafe-directory", Who.VCPUCTL, text, "remove it, or set XDG_RUNTIME_DIR"))


def process_name(thread_id: int, program: bytes = b"") -> str | None:
    """A name, fit for a file, of the process that this thread of it belongs to: no later one on this host has it.

    It is made of the thread's id, of when it was started (proc(5), /proc/PID/stat, field 22, in clock ticks) and of the
    PID namespace. None if there is no such thread to be seen, or its command line does not name the ``program``: the
    ids of a process in another PID namespace are strangers' here.
    """
    started = _started(thread_id)
    if started is None or program not in _command_line(thread_id):
        return None
    return f"{thread_id}-{started}-{_namespace()}"


def socket_name(path: str) -> str:
    """A name for what listens on this socket, as long as it does: where the process itself cannot be told."""
    real = os.path.realpath(path)
    return f"s{hashlib.sha256(real.encode()).hexdigest()[:24]}-{os.stat(real).st_ino}"


def process_ended(name: str) -> bool:
    """Whether the process of that name (``process_name``) was seen from here and is no more."""
    parts = name.split("-")
    if len(parts) != 3 or not all(part.isdigit() for part in parts) or int(parts[2]) != _namespace():
        return False
    return _started(int(parts[0])) != int(parts[1])


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _started(thread_id: int) -> int | None:
    try:
        stat = Path(f"/proc/{thread_id}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The name in parentheses may hold anything, parentheses too.
    return int(stat.rpartition(")")[2].split()[19])


def _command_line(thread_id: int) -> bytes:
    try:
        return Path(f"/proc/{thread_id}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
