# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from kit.lab import scratch


def test_the_directory_of_a_dead_process_is_swept_and_that_of_a_live_one_stays() -> None:
    code = "from kit.lab import scratch; print(scratch.make())"
    tests = Path(scratch.__file__).parents[2]
    left = Path(
        subprocess.run(
            [sys.executable, "-c", code], cwd=tests, capture_output=True, text=True, check=True
        ).stdout.strip()
    )
    mine = scratch.make()
    try:
        assert left.is_dir()
        gone = scratch.sweep()
        assert not left.exists()
        assert mine not in gone
        assert mine.is_dir()
    finally:
        shutil.rmtree(mine)


def test_a_socket_in_it_has_a_short_path() -> None:
    folder = scratch.make()
    folder.rmdir()
    assert len(str(folder / "oracle.sock")) < 50
