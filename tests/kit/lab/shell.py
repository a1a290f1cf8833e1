# SPDX-License-Identifier: Apache-2.0
"""The lab's root shell in the guest, over its second console (hvc0): the way in that does not need the agent.

The other end is ``guests/*/files/usr/local/sbin/lab-shell``, which says what the requests and answers look like.
"""

from __future__ import annotations

import itertools
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kit.lab.errors import ShellError, VmDiedError, WaitTimeoutError

#: Seconds from the first question whether the guest's end answers to the second, and the most that pauses become.
TRY, LONGEST_TRY = 2.0, 30.0
#: How long the guest's own limit may be overrun before the console counts as dead (seconds).
GRACE = 10.0


class Shell:
    """One client of the console's socket; one command at a time (others wait for their turn)."""

    def __init__(self, path: Path, tail: Callable[[], str] = str) -> None:
        self._tail = tail
        self._tokens = (f"{path.parent.name}.{number}" for number in itertools.count())
        self._buffer = b""
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))

    def run(self, command: str, timeout: float = 10.0, grace: float = GRACE) -> str:
        """Run a script with the guest's /bin/sh as root and return its output (standard error included).

        Raises ShellError for a status other than 0 (137 when the guest killed it after ``timeout`` seconds), and
        WaitTimeoutError if the console has not answered ``grace`` seconds after that.
        """
        script = command.encode()
        limit = max(1, round(timeout))
        status, output = self._ask(f"run {{}} {limit} {len(script)}\n", script, limit + grace)
        text = output.decode(errors="replace")
        if status != 0:
            raise ShellError(command, status, text)
        return text

    def put(self, data: bytes, path: str, timeout: float = 60.0) -> None:
        """Write a file in the guest. Raises ShellError if its path can't be written."""
        status, _ = self._ask(f"put {{}} {path} {len(data)}\n", data, timeout)
        if status != 0:
            raise ShellError(f"put {path}", status, "")

    def wait(self, timeout: float) -> None:
        """Wait until the guest's end answers: after a boot or a reboot. Raises WaitTimeoutError, VmDiedError.

        What is asked too early may be lost, so it asks again; and it takes the answer to any of its questions, since a
        slow guest needs longer for one than the pause to the next. So that few are left to answer, the pauses grow.
        """
        deadline = time.monotonic() + timeout
        asked: list[str] = []
        pause = TRY
        with self._lock:
            while True:
                asked.append(next(self._tokens))
                try:
                    self._converse(asked, "run {} 5 0\n", b"", min(pause, max(0.0, deadline - time.monotonic())))
                    return
                except WaitTimeoutError:
                    if time.monotonic() >= deadline:
                        raise
                pause = min(1.5 * pause, LONGEST_TRY)

    def interactive(self) -> socket.socket:
        """Turn the console into a terminal with a login shell, and hand over the socket."""
        self._socket.sendall(b"tty\n")
        return self._socket

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _ask(self, head: str, body: bytes, timeout: float) -> tuple[int, bytes]:
        with self._lock:
            return self._converse([next(self._tokens)], head, body, timeout)

    def _converse(self, tokens: Sequence[str], head: str, body: bytes, timeout: float) -> tuple[int, bytes]:
        """Ask with the last of the tokens, and take the answer to any of them."""
        deadline = time.monotonic() + timeout
        self._send(head.format(tokens[-1]).encode() + body, deadline)
        names = b"|".join(re.escape(token.encode()) for token in tokens)
        answer = re.compile(rb"lab:(?:" + names + rb"):(\d+):(\d+)\n")
        while True:
            match = answer.search(self._buffer)
            if match is not None and len(self._buffer) >= match.end() + int(match[2]):
                end = match.end() + int(match[2])
                output, self._buffer = self._buffer[match.end() : end], self._buffer[end:]
                return int(match[1]), output
            self._receive(deadline)

    def _send(self, data: bytes, deadline: float) -> None:
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            self._socket.sendall(data)
        except TimeoutError as error:
            raise WaitTimeoutError(f"the guest does not read its console\n{self._tail()}") from error
        except OSError as error:
            raise VmDiedError(f"the guest's console is gone ({error})\n{self._tail()}") from error

    def _receive(self, deadline: float) -> None:
        ready, _, _ = select.select([self._socket], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise WaitTimeoutError(f"no answer on the guest's console in time\n{self._tail()}")
        try:
            data = self._socket.recv(65536)
        except OSError as error:
            raise VmDiedError(f"the guest's console is gone ({error})\n{self._tail()}") from error
        if not data:
            raise VmDiedError(f"QEMU closed the guest's console\n{self._tail()}")
        self._buffer += data
