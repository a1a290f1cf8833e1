# SPDX-License-Identifier: Apache-2.0
"""The fake kernel for an agent in a process of its own (kit/fakes/vcpud.py): lines on a unix socket.

"write PATH 0|1", the path from the root, is answered with the errno, 0 for none, and "open" after it if it is of the
opening. "open PATH" only tries that. After "events" come "ACTION N".

It lives in the event loop of whoever plays the rest of the machine, so that an answer waits for no thread's turn. Only
a write that is held has a thread, for the loop is not to stand still with it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

from kit.fakes.sysfs import Listener
from vcpu_guest.kernel.sysfs import NotOpenedError


class Kernel(Protocol):
    """What plays the kernel. A write is held while ``released`` is not set."""

    root: Path
    released: threading.Event

    def write(self, path: str, data: bytes) -> None:
        """What writing the attribute does. Raise OSError as the kernel would."""

    def attempt(self, path: str) -> None:
        """What opening it for writing does. Raise NotOpenedError."""

    def listen(self, listener: Listener) -> None:
        """Have the listener get every uevent from now on."""


K = TypeVar("K", bound=Kernel)


class KernelSocket(Generic[K]):
    """``async with KernelSocket(kernel, path)``: answered there as long as the block lasts."""

    def __init__(self, kernel: K, path: Path) -> None:
        self.kernel = kernel
        self._path = path
        self._agents: set[_Agent] = set()
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._accept, os.fspath(self._path))
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.kernel.released.set()
        self._server.close()
        self.drop()

    def drop(self) -> None:
        """End the connections that there are."""
        for agent in self._agents:
            agent.end()

    def _accept(self) -> _Agent:
        agent = _Agent(self.kernel)
        self._agents.add(agent)
        return agent


class _Agent(asyncio.Protocol):
    """One connection of an agent: it has one for its writes and one for the events."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._root = os.fspath(kernel.root)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._rest = b""
        self._held: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's: the agent is gone, or was killed."""
        self._transport = None

    def end(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """asyncio's."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            words = line.decode().split()
            if words == ["events"]:
                self._send("listening")
                self._kernel.listen(self._tell)
            elif words[0] == "open":
                self._send(self._answer(partial(self._kernel.attempt, words[1])))
            elif self._kernel.released.is_set():
                self._send(self._write(words[1], words[2]))
            else:
                task = self._loop.create_task(self._write_held(words[1], words[2]))
                self._held.add(task)
                task.add_done_callback(self._held.discard)

    async def _write_held(self, path: str, value: str) -> None:
        self._send(await asyncio.to_thread(self._write, path, value))

    def _write(self, path: str, value: str) -> str:
        return self._answer(partial(self._kernel.write, f"{self._root}/{path}", value.encode()))

    def _answer(self, do: Callable[[], None]) -> str:
        try:
            do()
        except OSError as error:
            return f"{error.errno or errno.EIO}{' open' if isinstance(error, NotOpenedError) else ''}"
        return "0"

    def _tell(self, action: str, number: int) -> None:
        line = f"{action} {number}"
        if threading.get_ident() == self._thread:
            self._send(line)
        else:
            self._loop.call_soon_threadsafe(self._send, line)

    def _send(self, line: str) -> None:
        if self._transport is not None:
            self._transport.write(f"{line}\n".encode())
