# SPDX-License-Identifier: Apache-2.0
"""A monitor's socket with somebody in between, who is told of every command before QEMU gets it.

It behaves as QEMU's own socket does: one client at a time, who else comes waits for the greeting, and what a client has
sent reaches QEMU even if it dies of SIGKILL right after that.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHUNK = 65536


def _whole(data: bytes) -> int | None:
    """The length of the first command, with the space around it, if it is there whole: nothing else ends one in QMP."""
    text = data.decode("latin-1")
    start = len(text) - len(text.lstrip())
    try:
        end = json.JSONDecoder().raw_decode(text, start)[1]
    except ValueError:
        return None
    return len(text) - len(text[end:].lstrip())


class Relay:
    """Serves at ``path`` until ``close``; ``before`` is called with each command, and may hold it up."""

    def __init__(self, path: Path, monitor: Path, before: Callable[[dict[str, Any]], None]) -> None:
        self._monitor = monitor
        self._before = before
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._closing = False
        self._ends: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, name="monitor relay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Serve nobody any more."""
        self._closing = True
        for end in [self._listener, *self._ends]:
            with contextlib.suppress(OSError):  # it has ended by itself
                end.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            with client, socket.socket(socket.AF_UNIX) as qemu, contextlib.suppress(OSError):
                self._ends = [client, qemu]
                qemu.connect(str(self._monitor))
                back = threading.Thread(target=self._answers, args=(qemu, client), daemon=True)
                back.start()
                try:
                    self._commands(client, qemu)
                finally:
                    with contextlib.suppress(OSError):
                        qemu.shutdown(socket.SHUT_RDWR)
                    back.join()

    def _commands(self, client: socket.socket, qemu: socket.socket) -> None:
        waiting = b""
        while data := client.recv(_CHUNK):
            waiting += data
            while (end := _whole(waiting)) is not None:
                command, waiting = waiting[:end], waiting[end:]
                self._before(json.loads(command))
                qemu.sendall(command)

    @staticmethod
    def _answers(qemu: socket.socket, client: socket.socket) -> None:
        """All that QEMU says, and its end, which is the client's."""
        with contextlib.suppress(OSError):
            while data := qemu.recv(_CHUNK):
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
