# SPDX-License-Identifier: Apache-2.0
"""The directory of what a run leaves for the next one: locks and records, for their owner alone."""

from __future__ import annotations

import os
from pathlib import Path

from ..core import codes
from ..core.reason import Origin, Reason
from ..errors import RefusedError

#: What the names of sockets in it begin with that have no lock beside them: servers', for this process's own clients.
SERVERS = ("proxy-", "rpc-")


def directory() -> Path:
    """Where it is: the system's for root, the user's own otherwise."""
    if os.geteuid() == 0:
        return Path("/run/vcpuctl")
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base, "vcpuctl") if base else Path(f"/tmp/vcpuctl-{os.geteuid()}")  # noqa: S108 - checked in prepare


def service_socket() -> str:
    """Where ``vcpuctl serve`` listens: VCPUCTL_SOCKET, or /run/vcpuctl.sock."""
    return os.environ.get("VCPUCTL_SOCKET") or "/run/vcpuctl.sock"


def prepare(path: Path) -> None:
    """Make the directory, or see that it is ours alone. Raises RefusedError "unsafe-directory", or OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022 or path.is_symlink():
        raise unsafe(f"{path} belongs to somebody else, or others may write to it")


def unsafe(text: str) -> RefusedError:
    """What lies there is not to be trusted."""
    return RefusedError(Reason(codes.UNSAFE_DIRECTORY, Origin.VCPUCTL, text, "remove it, or set XDG_RUNTIME_DIR"))
