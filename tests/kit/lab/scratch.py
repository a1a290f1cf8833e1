# SPDX-License-Identifier: Apache-2.0
"""Directories of running VMs: named after their process, so that what a killed one left can be told and removed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

#: Short, and not $TMPDIR: a unix socket's path holds 107 bytes.
_ROOT = Path("/tmp")
_PREFIX = "lab-"


def make() -> Path:
    """A new directory for this process; whoever asked removes it."""
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_ROOT))


def sweep() -> list[Path]:
    """Remove the directories of this user's processes that are gone; return what went."""
    gone = []
    for folder in _ROOT.glob(f"{_PREFIX}[0-9]*-*"):
        pid = folder.name.removeprefix(_PREFIX).split("-")[0]
        try:
            mine = folder.stat().st_uid == os.getuid()
        except FileNotFoundError:
            continue  # its own process was quicker
        if mine and pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)
            gone.append(folder)
    return gone
