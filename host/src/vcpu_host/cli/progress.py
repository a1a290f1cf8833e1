# SPDX-License-Identifier: Apache-2.0
"""What an operation is doing, while it does it: a line that redraws on a terminal, and the log of every step."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Self

from vcpu_host.core.operation import events as ev
from vcpu_host.core.operation.machine import Machine
from vcpu_host.core.reason import Reason
from vcpu_host.logs import Log

_QUIET = (ev.DoLookHost, ev.HostLooked, ev.Tick)
_USUAL = 80  # columns of a terminal that does not say
_MOMENT = 0.3  # seconds: shorter operations show no line at all


class Progress:
    """Called by the coordinator with every event and action.

    ``verbosity`` is the log's, as ``-v`` counts; ``quiet``: no line is drawn.
    """

    def __init__(self, log: Log, verbosity: int, *, quiet: bool = False) -> None:
        self._log = log
        self._verbosity = verbosity
        self._line = not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._began = time.monotonic()
        self._shown = False
        self._quiet = quiet
        self._said: str | None = None  # of what is waited for, where it does not go into a line that is redrawn

    def waits(self, trouble: Reason, left: float) -> None:
        """Say what is waited for, and for how many seconds at most, before there is anything to carry out."""
        if self._verbosity > 0:
            self._log.info("waits", code=trouble.code, text=trouble.text, left=round(left, 1))
        words = f"waiting for the guest agent, at most {left:.0f} s: {trouble.text}"
        if self._line and len(words) < _width():
            self._draw(words)
        elif not self._quiet and trouble.code != self._said:
            self._said = trouble.code
            self._clear()
            sys.stderr.write(f"vcpuctl: {words}\n")
            sys.stderr.flush()

    def __call__(self, what: ev.Event | ev.Action, machine: Machine) -> None:
        """Log it, and redraw."""
        # What nobody reads is not put into words: with many slots that would cost more than the operation itself.
        if self._verbosity > 0 and not isinstance(what, _QUIET):
            self._log.info(type(what).__name__, **_fields(what))
            if self._verbosity > 1:
                self._log.debug("state", **machine.dump())
        if self._line and time.monotonic() - self._began > _MOMENT:
            settled, total, words = machine.progress()
            self._draw(f"{settled}/{total} slots  {words}")

    def _draw(self, line: str) -> None:
        """The line that is redrawn."""
        width = _width()
        # What wraps could not be taken back.
        line = line if len(line) < width else line[: max(0, width - 2)] + "…"
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()
        self._shown = True

    def _clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()
        sys.stderr.flush()


def _width() -> int:
    """The columns of the terminal that stderr is."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL
    except OSError:
        return _USUAL


def _fields(what: ev.Event | ev.Action) -> dict[str, object]:
    """What is worth a log line: simple values as they are, the rest by its repr (which escapes control characters)."""
    fields: dict[str, object] = {}
    for name in what.__dataclass_fields__:
        value = getattr(what, name)
        fields[name] = value if isinstance(value, str | int | float | bool | None) else repr(value)
    return fields
