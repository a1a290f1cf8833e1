# SPDX-License-Identifier: Apache-2.0
"""A ``vcpuctl`` process under chaos: started, stopped, killed, and always ended."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import IO

from kit import documents
from kit.e2e.machine import VCPUCTL
from kit.ended import Ended


class Command:
    """One process. Its output goes to files, so that nobody needs to read it for it to go on."""

    def __init__(
        self, options: Sequence[str], words: Sequence[str], timeout: int, environment: Mapping[str, str]
    ) -> None:
        """Start it. ``options`` name the VM, ``timeout`` is its own bound for the operation, in seconds."""
        self.words = tuple(words)
        self.timeout = timeout
        self.killed = False
        self.began = time.monotonic()
        self._files = ExitStack()
        self._out = self._file()
        self._err = self._file()
        argv = [str(VCPUCTL), *options, "-o", "json", "--timeout", str(timeout), *words]
        self.process = subprocess.Popen(
            argv, stdout=self._out, stderr=self._err, stdin=subprocess.DEVNULL, env={**os.environ, **environment}
        )

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def wait(self, seconds: float) -> bool:
        """Give it so long; whether it has ended."""
        try:
            self.process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL, which it may be too late for."""
        self.killed = True
        self.process.kill()

    def stop(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def ended(self) -> Ended:
        """How it ended, once it has."""
        said = []
        for file in (self._out, self._err):
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
        documents.check_output(said[0])
        return Ended(self.process.wait(), *said)

    def _file(self) -> IO[bytes]:
        return self._files.enter_context(tempfile.TemporaryFile())

    def close(self) -> None:
        """Kill what still runs, and let go of its output."""
        self.process.kill()
        self.process.wait()
        self._files.close()
