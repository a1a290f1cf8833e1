# SPDX-License-Identifier: Apache-2.0
"""vcpuctl as it is, but it says at its end how much memory it took, and its locks can be put elsewhere.

    PEAK=FILE LOCKS=DIRECTORY USER_ID=NUMBER python -P tests/kit/fakes/vcpuctl.py (vcpuctl's own words)

Root's locks lie in /run, where a test may not play with what it finds. USER_ID has it take itself for another user.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from vcpu_host.cli.main import main
from vcpu_host.local import directory as runtime


def peak() -> int:
    """The most bytes that this process ever had in memory at once (proc_pid_status(5), VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    if "LOCKS" in os.environ:
        runtime.directory = lambda: Path(os.environ["LOCKS"])
    if "USER_ID" in os.environ:
        os.geteuid = lambda: int(os.environ["USER_ID"])
    status = main()
    if "PEAK" in os.environ:
        Path(os.environ["PEAK"]).write_text(str(peak()), encoding="ascii")
    sys.exit(status)
