# SPDX-License-Identifier: Apache-2.0
"""What an operation is doing, while it does it: a line that redraws on a terminal, and the log of every step."""

from __future__ import annotations

import argparse
import os
import sys
from types import TracebackType
from typing import Self

from vcpu_host.core.reason import Reason
from vcpu_host.documents import read_reason
from vcpu_host.logs import Log, open_log
from vcpu_host.sharing.wire import Message

_USUAL = 80  # columns of a terminal that does not say


class RedrawnLine:
    """One line on stderr that is drawn over and over, and taken back. ``quiet``: it is never drawn."""

    def __init__(self, *, quiet: bool) -> None:
        #: Whether there is such a line.
        self.draws = not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._shown = False

    def draw(self, line: str) -> None:
        """Draw it in place of what was drawn before."""
        width = _width()
        # What wraps could not be taken back.
        line = line if len(line) < width else line[: max(0, width - 2)] + "…"
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()
        self._shown = True

    def clear(self) -> None:
        """Take it back."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False


class Progress:
    """Hears what a VM tells on the way to its answer.

    ``verbosity`` is the log's, as ``-v`` counts; ``quiet``: no line is drawn.
    """

    def __init__(self, log: Log, verbosity: int, *, quiet: bool = False) -> None:
        self._log = log
        self._verbosity = verbosity
        self._line = RedrawnLine(quiet=quiet)
        self._quiet = quiet
        self._said: str | None = None  # of what is waited for, where it does not go into a line that is redrawn

    @classmethod
    def of(cls, args: argparse.Namespace) -> Self:
        """Return one that is as the common options want it."""
        return cls(open_log(args.verbose, args.log_format), args.verbose, quiet=args.quiet)

    @property
    def draws(self) -> bool:
        """Whether there is a line that shows how far it is."""
        return self._line.draws

    def hear(self, message: Message) -> None:
        """Log it, or redraw."""
        if "log" in message:
            fields = dict(message["log"])
            name = fields.pop("event")
            (self._log.debug if name == "state" else self._log.info)(name, **fields)
        elif "progress" in message and self.draws:
            settled, total, words = message["progress"]
            self._line.draw(f"{settled}/{total} slots  {words}")
        elif "waits" in message:
            self._waits(read_reason(message["waits"]["reason"]), message["waits"]["seconds"])
        elif "holder" in message:
            self._say("holder", f"waiting for another program that has this VM: {message['holder']}")

    def _waits(self, trouble: Reason, left: float) -> None:
        """Say what is waited for, and for how many seconds at most, before there is anything to carry out."""
        if self._verbosity > 0:
            self._log.info("waits", code=trouble.code, text=trouble.text, left=round(left, 1))
        self._say(trouble.code, f"waiting for the guest agent, at most {left:.0f} s: {trouble.text}")

    def _say(self, about: str, words: str) -> None:
        """Draw the words where they fit into a line, else write them once."""
        if self.draws and len(words) < _width():
            self._line.draw(words)
        elif not self._quiet and about != self._said:
            self._said = about
            self._line.clear()
            sys.stderr.write(f"vcpuctl: {words}\n")
            sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.clear()


def _width() -> int:
    """Return the columns of the terminal that stderr is."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL
    except OSError:
        return _USUAL
