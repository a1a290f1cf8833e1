# SPDX-License-Identifier: Apache-2.0
"""The record of a VM: every QMP command that QEMU received, and every line of the guest's kernel log, on one clock.

QEMU itself writes both, to its standard error, when told to trace them: ``handle_qmp_command`` (monitor/qmp.c, each
request on any monitor) and ``serial_write`` (hw/char/serial.c, each register write of the guest's UART: ttyS0). So
their order is QEMU's own, whatever the threads that read them do. The form of a line changed between 10.0 and 11.1:
``PID@SECONDS:EVENT ...`` and ``write addr 0x00 val 0x41``, then ``2026-01-31T12:00:00.123456Z EVENT ...`` and
``[0x00] <- 0x41``.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import IO, Any

_EVENTS = r"(?P<event>handle_qmp_command|serial_write) (?P<rest>.*)"
_TRACE = re.compile(r"(?:\d+@(?P<seconds>\d+\.\d{6}):|(?P<date>\d{4}-\S+Z) )" + _EVENTS, re.DOTALL)
_SERIAL = re.compile(r"(?:write addr |\[)0x(?P<addr>[0-9a-f]{2})(?: val |\] <- )0x(?P<value>[0-9a-f]{2})")
_THR, _LCR, _DLAB = 0, 3, 0x80


class Record:
    """Parses QEMU's standard error until its end, in a thread of its own."""

    def __init__(self, stream: IO[bytes]) -> None:
        # QEMU stamps with the wall clock
        self._offset = time.time() - time.monotonic()
        self._changed = threading.Condition()
        self._commands: list[tuple[float, dict[str, Any]]] = []
        self._lines: list[tuple[float, str]] = []
        self._other: list[str] = []
        self._cut = ""
        self._partial = bytearray()
        self._divisor_latch = False
        self.ended = False
        self._thread = threading.Thread(target=self._read, args=(stream,), name="qemu record", daemon=True)
        self._thread.start()

    @property
    def commands(self) -> list[tuple[float, dict[str, Any]]]:
        """Every QMP command received, with its time (on the clock of time.monotonic)."""
        with self._changed:
            return list(self._commands)

    @property
    def kernel_log(self) -> list[tuple[float, str]]:
        """Every complete line on ttyS0, with the time of its last byte (on the clock of time.monotonic)."""
        with self._changed:
            return list(self._lines)

    @property
    def messages(self) -> list[str]:
        """What else QEMU said: its warnings and last words."""
        with self._changed:
            return list(self._other)

    def tail(self, count: int = 20) -> str:
        """QEMU's words and the console's last lines, for errors."""
        with self._changed:
            said = [f"  qemu: {line}" for line in self._other[-count:]]
            console = [f"  console: {line}" for _, line in self._lines[-count:]]
            return "\n".join([*said, *console])

    def wait(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until the condition holds, looking again whenever something new was recorded or QEMU ended."""
        with self._changed:
            return self._changed.wait_for(condition, timeout)

    def join(self, timeout: float) -> None:
        """Wait until all that QEMU said before it ended is recorded."""
        self._thread.join(timeout)

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for raw in stream:
                line = raw.decode(errors="replace").rstrip("\n")
                with self._changed:
                    if self._take(line):
                        self._changed.notify_all()
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def _take(self, line: str) -> bool:
        # A trace line is one write, a warning several (util/error-report.c): one can stand in the middle of the other.
        match = _TRACE.search(line)
        if match is None:
            self._other.append(self._cut + line)
            self._cut = ""
            return True
        self._cut += line[: match.start()]
        stamp = float(match["seconds"] or datetime.fromisoformat(match["date"]).timestamp())
        when = stamp - self._offset
        if match["event"] == "serial_write":
            return self._serial(when, match["rest"])
        self._commands.append((when, json.loads(match["rest"].partition("req: ")[2])))
        return True

    def _serial(self, when: float, rest: str) -> bool:
        """One register write; true if it completed a line."""
        match = _SERIAL.fullmatch(rest)
        if match is None:
            return False
        address, value = int(match["addr"], 16), int(match["value"], 16)
        if address == _LCR:
            self._divisor_latch = bool(value & _DLAB)
        if address != _THR or self._divisor_latch:
            return False
        if value != ord("\n"):
            self._partial.append(value)
            return False
        self._lines.append((when, self._partial.decode(errors="replace").rstrip("\r")))
        self._partial.clear()
        return True
