# SPDX-License-Identifier: Apache-2.0
"""``python crashing.py N ...``: the real vcpuctl, which dies of SIGKILL at its N-th step boundary, if it gets there.

Boundaries are: before each action of the state machine is begun, before each event is taken in, before the record is
written, when it is written and not yet in its place, and when QEMU has answered to ``plug`` or ``unplug``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vcpu_host.cli.main import main
from vcpu_host.local import journal
from vcpu_host.qmp import vmm
from vcpu_host.vm import executor

#: More boundaries than any of the operations has that are tried.
MANY = 200


def killed(monitor: Path, boundary: int, *words: str, within: float) -> bool:
    """Run the command on that VM, for so many seconds at most: whether it got so far, and so was killed there."""
    from kit import documents  # late: the process that is killed finds no kit

    argv = [sys.executable, __file__, str(boundary), "--qmp", str(monitor), "-o", "json", *words]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=within, check=False, env=env)
    assert ended.returncode in (0, -signal.SIGKILL), ended.stdout + ended.stderr
    documents.check_output(ended.stdout)
    return ended.returncode != 0


class Boundary:
    """Counts, and kills."""

    def __init__(self, lives: int) -> None:
        self.lives = lives

    def reach(self) -> None:
        if self.lives == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.lives -= 1

    def before(self, owner: Any, name: str) -> None:
        done: Callable[..., Any] = getattr(owner, name)

        def wrapped(*args: Any, **named: Any) -> Any:
            self.reach()
            return done(*args, **named)

        setattr(owner, name, wrapped)

    def after(self, owner: Any, name: str) -> None:
        done: Callable[..., Any] = getattr(owner, name)

        async def wrapped(*args: Any) -> Any:
            answer = await done(*args)
            self.reach()
            return answer

        setattr(owner, name, wrapped)


if __name__ == "__main__":
    boundary = Boundary(int(sys.argv[1]))
    for action in (
        (executor.Run, "_start"),
        (executor.Run, "_feed"),
        (journal.FileJournal, "save"),
        (os, "replace"),
    ):
        boundary.before(*action)
    for command in ("plug", "unplug"):
        boundary.after(vmm.QmpVmm, command)
    del sys.argv[1]
    sys.exit(main())
