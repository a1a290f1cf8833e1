# SPDX-License-Identifier: Apache-2.0
"""The lines of a running process's output, each waited for with a deadline."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

_END = None


class JsonLines:
    """Reads a process's stdout, one JSON document a line, in a thread of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._stdout = process.stdout
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.seen: list[dict[str, Any]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._stdout:
            self._lines.put(line)
        self._lines.put(_END)

    def until(self, condition: Callable[[dict[str, Any]], bool], timeout: float = 30.0) -> dict[str, Any]:
        """The next document that meets the condition; AssertionError if there is none in time, with what there was."""
        deadline = time.monotonic() + timeout
        passed: list[dict[str, Any]] = []
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no such document in {timeout:.0f} s, but {passed[-1:]}") from None
            if line is _END:
                raise AssertionError(f"the output has ended: {passed[-1:]}")
            passed.append(json.loads(line))
            self.seen.append(passed[-1])
            if condition(passed[-1]):
                return passed[-1]
