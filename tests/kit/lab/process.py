# SPDX-License-Identifier: Apache-2.0
"""Starting QEMU so that it always ends: with its ``with`` block, or with this process, however that ends."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol


class Ends(Protocol):
    """A process that can be ended and waited for."""

    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int: ...


_requests: queue.SimpleQueue[tuple[Future[subprocess.Popen[bytes]], Callable[[], subprocess.Popen[bytes]]]] = (
    queue.SimpleQueue()
)
_starter_lock = threading.Lock()
_starter: threading.Thread | None = None


def start(argv: Sequence[str], env: Mapping[str, str], sockets: Sequence[socket.socket]) -> subprocess.Popen[bytes]:
    """Start a program with its standard error on a pipe and these sockets inherited; it dies with this process.

    PR_SET_PDEATHSIG (prctl(2)) acts when the *thread* that forked ends, so one thread of our own, which never ends,
    does it for all callers.
    """
    command = ["setpriv", "--pdeathsig", "KILL", "--", *argv]

    def spawn() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **env},
            pass_fds=[item.fileno() for item in sockets],
        )

    _ensure_starter()
    done: Future[subprocess.Popen[bytes]] = Future()
    _requests.put((done, spawn))
    return done.result()


def end(process: Ends) -> None:
    """Kill it if it still runs, and reap it."""
    process.kill()
    process.wait()


def _ensure_starter() -> None:
    global _starter
    with _starter_lock:
        if _starter is None or not _starter.is_alive():  # not alive: we are the child of a fork
            _starter = threading.Thread(target=_serve, name="lab starter", daemon=True)
            _starter.start()


def _serve() -> None:
    while True:
        done, spawn = _requests.get()
        try:
            done.set_result(spawn())
        except OSError as error:
            done.set_exception(error)
