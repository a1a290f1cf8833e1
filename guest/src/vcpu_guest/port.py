# SPDX-License-Identifier: Apache-2.0
"""The virtio-serial port as an asyncio transport.

What the kernel does (drivers/char/virtio_console.c): the port can be opened once at a time (EBUSY). While the host's
end is closed, poll returns POLLIN | POLLHUP all the time and read returns 0, so a level-triggered loop would spin; a
non-blocking write gets EAGAIN. A write takes at most 32 KiB, perhaps less, and 0 when the queue is full. A read returns
at most one buffer of 4 KiB. After the port was unplugged, both fail with ENODEV.

So the port is watched through an edge-triggered epoll of its own, and the event loop gets only that epoll's file
descriptor: it is readable once for every change and then silent, whatever the port's state.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
from collections.abc import Callable
from typing import Protocol

from vcpu_proto.link.pump import WireProtocol

_READ = 4096
#: Reads in a row before other callbacks of the loop get their turn.
_READS = 16
_WRITE = 32 * 1024
_HIGH = 64 * 1024
_LOW = 16 * 1024
#: Seconds to the next attempt after a write that took nothing although the port was said to be writable.
_FULL_RETRY = 0.05


class PortError(Exception):
    """The port cannot be opened or is gone. `code`: port-absent, -busy, -denied, -gone or -error."""

    _CODES = {  # noqa: RUF012 - a constant
        errno.ENOENT: "port-absent",
        errno.ENXIO: "port-absent",
        errno.EBUSY: "port-busy",
        errno.EACCES: "port-denied",
        errno.EPERM: "port-denied",
        errno.ENODEV: "port-gone",
    }
    _WORDS = {  # noqa: RUF012 - a constant
        "port-absent": "there is no such port: does the VM have a virtserialport of this name?",
        "port-busy": "another program has it open, and a port takes one",
        "port-denied": "not permitted: the agent runs as root",
        "port-gone": "the port was taken out of the guest",
    }

    def __init__(self, path: str, cause: OSError) -> None:
        """`cause`: the error of the system call."""
        self.path = path
        self.errno = cause.errno
        self.code = self._CODES.get(cause.errno or 0, "port-error")
        super().__init__(f"{path}: {self._WORDS.get(self.code, cause.strerror or str(cause))}")


class Device(Protocol):
    """An open port. read() and write() behave like a non-blocking file's: BlockingIOError, OSErrors, short counts."""

    def fileno(self) -> int:
        """Return a descriptor that is readable while changes() has something to report."""

    def changes(self) -> int:
        """Return the port's EPOLL* mask if something changed since the last call, else 0."""

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none while the host's end is closed."""

    def write(self, data: memoryview) -> int:
        """Write, and return how many bytes the port took."""

    def close(self) -> None:
        """Close the port, so that it can be opened again."""


class CharDevice:
    """The port of a virtual machine: a character device."""

    def __init__(self, fd: int) -> None:
        """Take over an open, non-blocking descriptor."""
        self._fd = fd
        self._epoll = select.epoll()
        flags = select.EPOLLIN | select.EPOLLOUT | select.EPOLLHUP | select.EPOLLRDHUP | select.EPOLLET
        self._epoll.register(self._fd, flags)

    def fileno(self) -> int:
        """Return the epoll's own descriptor."""
        return self._epoll.fileno()

    def changes(self) -> int:
        """Return the mask of the edge, once."""
        ready = self._epoll.poll(0, 1)
        return ready[0][1] if ready else 0

    def read(self, size: int) -> bytes:
        """See read(2)."""
        return os.read(self._fd, size)

    def write(self, data: memoryview) -> int:
        """See write(2)."""
        return os.write(self._fd, data)

    def close(self) -> None:
        """Close both descriptors."""
        self._epoll.close()
        os.close(self._fd)


class PortTransport(asyncio.Transport):
    """An open port. It calls its protocol as asyncio does, and peer_gone() or peer_back() about the host's end."""

    def __init__(self, device: Device, path: str, protocol: WireProtocol) -> None:
        """Take the device over. connection_made() is called at once, everything else from the loop."""
        super().__init__({"path": path})
        self._loop = asyncio.get_running_loop()
        self._device = device
        self._path = path
        self._protocol = protocol
        self._fd = device.fileno()
        self._pending = bytearray()
        self._reading = True
        #: An edge said "readable", and since then no read has found the port empty.
        self._readable = True
        self._more: asyncio.Handle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._full = False
        self._host = True
        self._closing = False
        self._closed = False
        protocol.connection_made(self)
        self._loop.add_reader(self._fd, self._on_change)
        # Bytes that came before the epoll was made cause no edge, so look once in any case.
        self._more = self._loop.call_soon(self._read)

    # -- what changes at the port

    def _on_change(self) -> None:
        try:
            mask = self._device.changes()
        except OSError as error:
            self._lose(PortError(self._path, error))
            return
        if not mask or self._closed:
            return
        self._note_host(present=not mask & select.EPOLLHUP)
        if mask & select.EPOLLOUT and self._pending:
            self._flush()
        if mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            self._readable = True
            self._read()

    def _note_host(self, *, present: bool) -> None:
        if present == self._host:
            return
        self._host = present
        if present:
            self._protocol.peer_back()
        else:
            self._protocol.peer_gone()

    def _read(self) -> None:
        if self._more is not None:
            self._more.cancel()
            self._more = None
        if not self._reading or not self._readable or self._closing:
            return
        chunks: list[bytes] = []
        host = True
        try:
            for _ in range(_READS):
                chunk = self._device.read(_READ)
                if not chunk:
                    self._readable = host = False
                    break
                chunks.append(chunk)
            else:
                self._more = self._loop.call_soon(self._read)
        except BlockingIOError:
            self._readable = False
        except OSError as error:
            self._lose(PortError(self._path, error))
            return
        if chunks:
            self._protocol.data_received(b"".join(chunks))
        if not host:
            self._note_host(present=False)

    # -- writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write at once what the port takes, and the rest when it takes more. After close() nothing is written."""
        if self._closing or not data:
            return
        self._pending += data
        # While earlier bytes wait, an edge will come for them; writing now would break the order.
        if len(self._pending) == len(data):
            self._flush()
        if not self._full and len(self._pending) > _HIGH:
            self._full = True
            self._protocol.pause_writing()

    def _flush(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        try:
            while self._pending and not self._closed:
                with memoryview(self._pending) as view, view[:_WRITE] as part:
                    taken = self._device.write(part)
                if taken == 0:
                    # The queue is full. Completions cause edges, but the last one may have come before this write.
                    self._retry = self._loop.call_later(_FULL_RETRY, self._flush)
                    break
                del self._pending[:taken]
        except BlockingIOError:
            # There is no room, or no host: an edge comes when that changes.
            pass
        except OSError as error:
            self._lose(PortError(self._path, error))
            return
        if self._full and len(self._pending) <= _LOW:
            self._full = False
            self._protocol.resume_writing()
        if self._closing and not self._pending:
            self._lose(None)

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the port has not taken yet."""
        return len(self._pending)

    # -- asyncio's

    def pause_reading(self) -> None:
        """Leave incoming bytes in the kernel, whose back-pressure reaches the host's program."""
        self._reading = False

    def resume_reading(self) -> None:
        """Read again, also what came meanwhile."""
        if self._reading or self._closing:
            return
        self._reading = True
        if self._readable and self._more is None:
            self._more = self._loop.call_soon(self._read)

    def is_reading(self) -> bool:
        """Say whether reading is not paused."""
        return self._reading and not self._closing

    def is_closing(self) -> bool:
        """Say whether close() or abort() was called, or the port was lost."""
        return self._closing

    def close(self) -> None:
        """Write what waits, unless there is no host to read it, and close the port."""
        if self._closing:
            return
        self._closing = True
        if not self._pending or not self._host:
            self._lose(None)

    def abort(self) -> None:
        """Close the port at once."""
        self._lose(None)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol that is called."""
        return self._protocol

    def _lose(self, error: Exception | None) -> None:
        if self._closed:
            return
        self._closed = self._closing = True
        for handle in (self._more, self._retry):
            if handle is not None:
                handle.cancel()
        self._pending.clear()
        self._loop.remove_reader(self._fd)
        self._device.close()
        self._loop.call_soon(self._protocol.connection_lost, error)


def open_device(path: str) -> Device:
    """Open the port at `path`. Raise OSError."""
    return CharDevice(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))


def opener(
    path: str, open_device: Callable[[str], Device] = open_device
) -> Callable[[WireProtocol], asyncio.Transport]:
    """Return what GuestLink takes: a function that opens the port at `path`, and raises PortError."""

    def open_wire(protocol: WireProtocol) -> asyncio.Transport:
        try:
            device = open_device(path)
        except OSError as error:
            raise PortError(path, error) from error
        return PortTransport(device, path, protocol)

    return open_wire
