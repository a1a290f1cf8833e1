# SPDX-License-Identifier: Apache-2.0
"""The standard streams of this process, whatever it was started with: closed ones, full ones, ones that nobody reads.

What goes to stderr is advice: it never ends an operation, nor holds one up, and an answer is the same without it. So a
thread of its own writes it, in its own time.
"""

from __future__ import annotations

import atexit
import io
import os
import select
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: Bytes for stderr that wait for their reader; what comes beyond them is left out.
_UNREAD = 8 << 20
#: Seconds that an answer waits for what was to be read before it. Their order is advice, too.
_ORDER = 1.0
#: What Python has for each, by its descriptor.
_STREAMS = ("stdin", "stdout", "stderr")

_advice: Advice | None = None


def set_up() -> None:
    """Make all three usable. Whoever starts a process calls it before anything else is opened.

    A descriptor that is closed would be that of the next file or socket, into which this process, or a library in it,
    would then write its words.
    """
    global _advice
    for number, name in enumerate(_STREAMS):
        if _is_closed(number):
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))
    _advice = Advice(2)
    sys.stderr = _text(io.BufferedWriter(_advice), sys.stderr.encoding, by_line=True)
    atexit.register(_told)


def _is_closed(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return True
    return False


def _told() -> None:
    """Return when all has been written to stderr, or the user waits no longer for whoever is to read it."""
    with suppress(KeyboardInterrupt):
        if _advice is not None:
            _advice.settle(None)


def in_order() -> None:
    """Return when what was said on stderr is written, or has had its time: what follows belongs behind it."""
    if _advice is not None:
        _advice.settle(_ORDER)


def own_stdout() -> TextIO:
    """Return stdout for a thread that may hang in it for good: at its end Python waits for nothing that this has."""
    return _text(_Whole(sys.stdout.fileno()), sys.stdout.encoding, by_line=False)


def _text(binary: io.BufferedWriter | io.RawIOBase, encoding: str, *, by_line: bool) -> TextIO:
    # A raw stream does, too, if it takes all it is given. What the encoding does not have is written by its number.
    whole = cast("BinaryIO", binary)
    return io.TextIOWrapper(whole, encoding, "backslashreplace", line_buffering=by_line, write_through=not by_line)


class _Whole(io.RawIOBase):
    """A descriptor, which stays open, and takes all that is written to it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def fileno(self) -> int:
        """Return its number."""
        return self._number

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self._number)

    def writable(self) -> bool:
        """Return True: it is there to be written to."""
        return True

    def write(self, data: ReadableBuffer) -> int:
        """Write all of it. Raise OSError."""
        left = memoryview(data).cast("B")
        size = len(left)
        while left:
            try:
                left = left[os.write(self._number, left) :]
            except BlockingIOError:  # others who have it made it so
                select.select([], [self._number], [])
        return size


class Advice(_Whole):
    """A descriptor that takes everything at once: what it does not want, or has no room for, is lost.

    Once it has failed, nothing more is written to it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._busy = False
        self._works = True
        self._thread: threading.Thread | None = None

    def write(self, data: ReadableBuffer) -> int:
        """Have it written. Nothing is waited for, and nothing raised."""
        chunk = bytes(data)
        with self._changed:
            if self._works and self._size + len(chunk) <= _UNREAD:
                self._waiting.append(chunk)
                self._size += len(chunk)
                self._changed.notify_all()
                if self._thread is None:
                    self._thread = threading.Thread(target=self._write_on, name="stderr", daemon=True)
                    self._thread.start()
        return len(chunk)

    def settle(self, within: float | None) -> None:
        """Return when all is written, or lost, or after so many seconds."""
        with self._changed:
            self._changed.notify_all()  # Ctrl-C may have come before those words of ``write``
            self._changed.wait_for(lambda: not self._waiting and not self._busy, within)

    def _write_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                chunk = self._waiting.popleft()
                self._busy = True
            try:
                super().write(chunk)
            except OSError:
                self._works = False
            with self._changed:
                self._size -= len(chunk)
                self._busy = False
                if not self._works:
                    self._waiting.clear()
                self._changed.notify_all()
