# SPDX-License-Identifier: Apache-2.0
"""The directory of what a run leaves for the next one: locks and records, for their owner alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..core import codes
from ..core.reason import Origin, Reason
from ..errors import RefusedError

#: What the names of sockets in it begin with that have no lock beside them: servers', for this process's own clients.
SERVERS = ("link-", "proxy-", "rpc-")
#: Where logind makes each user a directory, which XDG_RUNTIME_DIR names in the user's sessions (pam_systemd(8)).
_USERS = Path("/run/user")


def directory() -> Path:
    """Return where it is: the system's for root, the user's own otherwise.

    A user has one, whether or not the environment names it (cron and ``sudo -u`` leave that out): two commands of one
    user that looked in two places would not exclude each other.
    """
    user = os.geteuid()
    if user == 0:
        return Path("/run/vcpuctl")
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base:
        return Path(base, "vcpuctl")
    usual = _USERS / str(user)
    try:
        if is_ours(usual):
            return usual / "vcpuctl"
    except OSError:
        pass  # nobody has made it: there is no logind, or the user has no session
    return Path(f"/tmp/vcpuctl-{user}")  # noqa: S108 - checked in prepare


def new_socket(kind: str) -> Path:
    """Return a path for a new socket in it. ``kind`` is one of ``SERVERS``: one that is left behind is swept."""
    if kind not in SERVERS:
        raise ValueError(f"no such kind: {kind}")
    return directory() / f"{kind}{os.urandom(8).hex()}.sock"


def service_socket() -> str:
    """Return where ``vcpuctl serve`` listens: VCPUCTL_SOCKET, or /run/vcpuctl.sock."""
    return os.environ.get("VCPUCTL_SOCKET") or "/run/vcpuctl.sock"


def prepare(path: Path) -> None:
    """Make the directory, or see that it is ours alone. Raise RefusedError "unsafe-directory", or OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_ours(path):
        raise unsafe(f"{path} belongs to somebody else, or others may write to it")


def is_ours(path: Path) -> bool:
    """Return whether it is a directory of this user's that nobody else may write to. Raise OSError if nothing is."""
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def unsafe(text: str) -> RefusedError:
    """Return the error that what lies there is not to be trusted."""
    return RefusedError(Reason(codes.UNSAFE_DIRECTORY, Origin.VCPUCTL, text, "remove it, or set XDG_RUNTIME_DIR"))
