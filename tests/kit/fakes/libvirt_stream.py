# SPDX-License-Identifier: Apache-2.0
"""A stand-in for libvirt's module and its streams.

What these do was seen on 9.0 and 12.8; no VM can be made to do it at will.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any


class LibvirtError(Exception):
    """libvirt.libvirtError; by itself, of a connection that has ended. ``domain`` is a virErrorDomain."""

    def __init__(self, words: str, code: int = 39, domain: int = 7) -> None:
        super().__init__(words)
        self._code, self._domain = code, domain

    def get_error_code(self) -> int:
        return self._code

    def get_error_domain(self) -> int:
        return self._domain

    def get_error_message(self) -> str:
        return str(self)


class FakeModule:
    """What of the module is used with a stream."""

    libvirtError = LibvirtError  # noqa: N815 - libvirt calls it so
    VIR_STREAM_EVENT_READABLE, VIR_STREAM_EVENT_ERROR, VIR_STREAM_EVENT_HANGUP = 1, 4, 8


class FakeStream:
    """A virStream. ``comes`` are pieces that can be read; ``takes`` is how many bytes a send takes, None hangs it."""

    def __init__(self) -> None:
        self.comes: deque[bytes | Exception] = deque()
        self.takes: int | None = 1 << 20
        self.sent = b""
        self.freed = threading.Event()
        self.finished = threading.Event()
        self.hanging = threading.Event()
        self.callback: Any = None

    def eventAddCallback(self, events: int, callback: Any, opaque: object) -> None:  # noqa: N802
        assert events
        self.callback = callback

    def eventRemoveCallback(self) -> None:  # noqa: N802
        if self.callback is None:
            raise LibvirtError("no callback")
        self.callback = None

    def recv(self, count: int) -> bytes | int:
        if not self.comes:
            return -2
        piece = self.comes.popleft()
        if isinstance(piece, Exception):
            raise piece
        assert len(piece) <= count
        return piece

    def send(self, data: bytes) -> int:
        if self.takes is None:
            self.hanging.set()
            assert self.freed.wait(60)
            raise LibvirtError("stream had I/O failure")
        if self.takes == 0:
            self.takes = 1 << 20
            return -2
        self.sent += data[: self.takes]
        return min(len(data), self.takes)

    def finish(self) -> None:
        self.finished.set()

    def abort(self) -> None:
        """Seen with one that was opened by force, and used for nothing."""
        self.finished.set()

    def tell(self, *pieces: bytes | Exception) -> None:
        """Let these come, as libvirt's thread of events would."""
        self.comes += pieces
        if self.callback is not None:
            self.callback(self, 1, None)
