# SPDX-License-Identifier: Apache-2.0
"""A terminal: a real pseudo-terminal for a process to write on, and what then is to be read on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kit.until import DEADLINE

#: A control sequence (ECMA-48, CSI), or one character.
_TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|(.)", re.DOTALL)


@dataclass
class Screen:
    """What a terminal of that size shows, with all that has scrolled out of it: ``rows``, from the top.

    Of the control sequences it knows those that redraw lines (cursor up, erase), and leaves out colours and the
    cursor's looks; it fails a test that meets another. ``broken`` holds the rows that the terminal itself had to break,
    because more was written into them than it is wide.
    """

    width: int
    height: int
    rows: list[str] = field(default_factory=lambda: [""])
    broken: set[int] = field(default_factory=set)
    _row: int = 0
    _column: int = 0

    def feed(self, written: str) -> None:
        """Take in what was written."""
        for values, kind, character in _TOKEN.findall(written):
            if kind:
                self._control(values, kind)
            elif character == "\n":
                self._down()
            elif character == "\r":
                self._column = 0
            else:
                assert character.isprintable(), f"{character!r} is no business of ours"
                self._put(character)

    def _control(self, values: str, kind: str) -> None:
        if kind == "A":
            top = max(0, len(self.rows) - self.height)
            self._row = max(top, self._row - int(values or 1))
        elif kind == "K":
            kept = "" if values == "2" else self.rows[self._row][: self._column]
            self.rows[self._row] = kept
        else:
            assert kind == "m" or values == "?25", f"CSI {values} {kind}"

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self.rows):
            self.rows.append("")

    def _put(self, character: str) -> None:
        if self._column == self.width:
            self.broken.add(self._row)
            self._down()
            self._column = 0
        row = self.rows[self._row].ljust(self._column)
        self.rows[self._row] = row[: self._column] + character + row[self._column + 1 :]
        self._column += 1

    @property
    def words(self) -> list[str]:
        """Every word on it, from the top to the bottom."""
        return " ".join(self.rows).split()


@dataclass(frozen=True)
class Shown:
    """How a process on a terminal ended, all that it wrote, and what was on the screen by then."""

    status: int
    written: str
    screen: Screen


def run_on_terminal(
    command: Sequence[str],
    width: int,
    *,
    height: int = 24,
    environment: Mapping[str, str] = {},
    within: float = DEADLINE,
) -> Shown:
    """Run the command with its stdin, stdout and stderr on a terminal of that size, for ``within`` seconds at most."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    sizeless = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**sizeless, "TERM": "xterm-256color", **environment},
    )
    os.close(theirs)
    try:
        written = _read(ours, time.monotonic() + within)
        status = process.wait(within)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)
    screen = Screen(width, height)
    screen.feed(written.decode())
    return Shown(status, written.decode(), screen)


def _read(ours: int, deadline: float) -> bytes:
    """All that is written until nobody has the terminal open any more."""
    written = b""
    while True:
        ready, _, _ = select.select([ours], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"it did not end in time, and wrote {written!r}"
        try:
            written += os.read(ours, 1 << 16)
        except OSError:  # EIO: the other end is closed (pty(7))
            return written
