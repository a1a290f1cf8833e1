# SPDX-License-Identifier: Apache-2.0
"""A small synchronous QMP client: the lab's oracle, which shares no code with the product it judges."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kit.lab.errors import QmpError, VmDiedError, WaitTimeoutError

T = TypeVar("T")


@dataclass(frozen=True)
class Event:
    """One event: its name, its data, and when the lab received it (time.monotonic)."""

    name: str
    data: dict[str, Any]
    time: float


class Qmp:
    """One connection to a monitor; safe to use from several threads."""

    def __init__(self, path: Path, *, timeout: float = 10.0, tail: Callable[[], str] = str) -> None:
        """Connect and negotiate; ``tail`` gives the text that errors end with."""
        self._tail = tail
        self._ids = itertools.count()
        #: The id of the last command.
        self.last = ""
        self._changed = threading.Condition()
        self._replies: dict[str, dict[str, Any]] = {}
        self._events: list[Event] = []
        self._pending: list[Event] = []
        self._closed = False
        self._greeted = False
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._thread = threading.Thread(target=self._read, name=f"qmp {path.name}", daemon=True)
        self._thread.start()
        try:
            self._wait(lambda: self._greeted or None, timeout, "QMP greeting")
            self.execute("qmp_capabilities", timeout=timeout)
        except BaseException:
            self.close()
            raise

    def execute(self, command: str, /, *, timeout: float = 30.0, **arguments: Any) -> Any:
        """Send a command and return its value; an underscore in an argument's name stands for QEMU's hyphen.

        Raises QmpError with QEMU's answer, WaitTimeoutError if none came in ``timeout`` seconds, VmDiedError if QEMU
        ended.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self.send({"execute": command, "arguments": named}, timeout=timeout)

    def send(self, request: dict[str, Any], *, timeout: float = 30.0) -> Any:
        """Send a request as it stands (an id is added) and return its value; raises as ``execute`` does."""
        key = self.last = f"lab-{next(self._ids)}"
        line = json.dumps({**request, "id": key}).encode() + b"\n"
        try:
            self._socket.sendall(line)
        except OSError as error:
            raise VmDiedError(f"QEMU's monitor is gone ({error})\n{self._tail()}") from error
        reply = self._wait(lambda: self._replies.pop(key, None), timeout, f"answer to {request['execute']}")
        if "error" in reply:
            raise QmpError(reply["error"]["class"], reply["error"]["desc"])
        return reply["return"]

    def events(self) -> list[Event]:
        """Every event so far, oldest first."""
        with self._changed:
            return list(self._events)

    def wait_event(self, name: str, timeout: float = 10.0, **match: Any) -> Event:
        """The first event of that name, not yet returned by this method, whose data (also nested under ``info``) match.

        Raises WaitTimeoutError. An underscore in a name stands for a hyphen.
        """
        wanted = {key.replace("_", "-"): value for key, value in match.items()}

        def look() -> Event | None:
            for index, event in enumerate(self._pending):
                data = {**event.data, **event.data.get("info", {})}
                if event.name == name and all(key in data and data[key] == value for key, value in wanted.items()):
                    return self._pending.pop(index)
            return None

        return self._wait(look, timeout, f"event {name} {wanted or ''}".rstrip())

    def close(self) -> None:
        """End the connection; the monitor is then free for another client."""
        with contextlib.suppress(OSError):  # already ended by QEMU
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    @property
    def closed(self) -> bool:
        """True once QEMU ended the connection, or we did."""
        return self._closed

    def wait_closed(self, timeout: float) -> None:
        """Wait until QEMU ends the connection (after ``quit``)."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed, timeout):
                raise WaitTimeoutError(f"QEMU did not end within {timeout:.1f} s\n{self._tail()}")

    def _wait(self, look: Callable[[], T | None], timeout: float, what: str) -> T:
        """Wait until ``look`` gives something, and return that; it is asked again whenever a message came."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = look()
                if found is not None:
                    return found
                if self._closed:
                    raise VmDiedError(f"QEMU ended before the {what}\n{self._tail()}")
                if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                    raise WaitTimeoutError(f"no {what} within {timeout:.1f} s\n{self._tail()}")

    def _read(self) -> None:
        try:
            with self._socket.makefile("rb") as lines:
                for line in lines:
                    self._take(json.loads(line))
        except (OSError, ValueError):
            pass  # the connection broke, in the middle of a line perhaps: said by _closed
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()

    def _take(self, message: dict[str, Any]) -> None:
        with self._changed:
            if "event" in message:
                event = Event(message["event"], message.get("data", {}), time.monotonic())
                self._events.append(event)
                self._pending.append(event)
            elif "QMP" in message:
                self._greeted = True
            else:
                self._replies[message["id"]] = message
            self._changed.notify_all()
