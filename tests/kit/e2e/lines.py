# SPDX-License-Identifier: Apache-2.0
"""The lines of a running process's output, each waited for with a deadline."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kit import documents

_END = None


class Lines:
    """Reads a process's stdout in a thread of its own. ``seen`` holds what was taken so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._process = process
        self._stdout = process.stdout
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.seen: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._stdout:
            for line in self._stdout:
                self._lines.put(line.rstrip("\r\n"))
        self._lines.put(_END)

    def finish(self, timeout: float = 30.0) -> int:
        """Wait for the process, which ends by itself or was told to; its exit status."""
        status = self._process.wait(timeout)
        self._thread.join(timeout)
        for stream in (self._process.stdin, self._process.stderr):
            if stream is not None:
                stream.close()
        return status

    def left(self) -> list[str]:
        """What has come since, and nobody has asked for."""
        with suppress(queue.Empty):
            while (line := self._lines.get_nowait()) is not _END:
                self.seen.append(line)
        return self.seen

    def until(self, condition: Callable[[str], bool], timeout: float = 30.0) -> str:
        """The next line that meets the condition; AssertionError if there is none in time, with the last ones."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no such line in {timeout:.0f} s: {self.seen[-20:]}") from None
            if line is _END:
                raise AssertionError(f"the output has ended: {self.seen[-20:]}")
            self.seen.append(line)
            if condition(line):
                return line


class JsonLines:
    """The same where every line is a JSON document."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._lines = Lines(process)

    def finish(self, timeout: float = 30.0) -> int:
        """Wait for the process; its exit status."""
        return self._lines.finish(timeout)

    @property
    def seen(self) -> list[dict[str, Any]]:
        """What was taken so far."""
        return [json.loads(line) for line in self._lines.seen]

    def until(self, condition: Callable[[dict[str, Any]], bool], timeout: float = 30.0) -> dict[str, Any]:
        """The next document that meets the condition."""
        line = self._lines.until(lambda line: condition(json.loads(line)), timeout)
        documents.check_output(line)
        document: dict[str, Any] = json.loads(line)
        return document
