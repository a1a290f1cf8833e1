# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

from kit.lab import process

_PARENT = """
import sys, threading
from kit.lab import process
started = []
thread = threading.Thread(target=lambda: started.append(process.start(["sleep", "600"], {}, [])))
thread.start()
thread.join()
print(started[0].pid, flush=True)
sys.stdin.read()
"""


def _gone(pid: int, timeout: float) -> bool:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], timeout)[0])
    finally:
        os.close(fd)


def _parent() -> tuple[subprocess.Popen[str], int]:
    tests = Path(process.__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tests
    )
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


def test_a_vm_outlives_the_thread_that_asked_for_it_and_dies_with_a_killed_process() -> None:
    parent, child = _parent()
    with parent:
        assert not _gone(child, 0.2)
        parent.kill()
    assert _gone(child, 10.0)


def test_a_vm_that_was_forgotten_ends_when_the_process_ends_by_itself() -> None:
    parent, child = _parent()
    with parent:
        assert parent.stdin is not None
        parent.stdin.close()
        assert parent.wait(10.0) == 0
    assert _gone(child, 10.0)


def test_an_ended_process_is_reaped() -> None:
    running = process.start(["sleep", "600"], {}, [])
    process.end(running)
    assert running.stderr is not None
    running.stderr.close()
    assert running.returncode == -9
    assert _gone(running.pid, 0.0)
