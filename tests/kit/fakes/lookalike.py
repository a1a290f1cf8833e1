# SPDX-License-Identifier: Apache-2.0
"""A process that has a QEMU's name and command line, and does nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from kit.fakes.qemu.process import python_as

_CODE = "import sys; print('ready', flush=True); sys.stdin.read()"


class Lookalike:
    """``name WORDS``, in ``folder``, from entry to exit of the context; ``handed`` are descriptors that it gets."""

    def __init__(
        self, folder: Path, *words: str | bytes, name: str = "qemu-system-x86_64", handed: Sequence[int] = ()
    ) -> None:
        # -c takes an argument in QEMU's eyes, too, as every option does that QEMU does not know as one without.
        self._argv = [python_as(folder, name), "-c", _CODE, *words]
        self._folder = folder
        self._handed = handed
        self.process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Its id."""
        return self.process.pid

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._argv,
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=self._handed,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_exc: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=10)
