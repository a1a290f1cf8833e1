# SPDX-License-Identifier: Apache-2.0
"""The virtio-serial port as an asyncio transport.

What the kernel does (drivers/char/virtio_console.c): one opener at a time (EBUSY). While the host's end is closed,
poll says POLLIN | POLLHUP for ever and read returns 0, so a level-triggered loop would spin; a non-blocking write gets
EAGAIN. A write takes at most 32 KiB, may take less, and 0 when the queue is full. A read gives at most one 4 KiB
buffer. After the port was unplugged both give ENODEV.

So the port is watched through an epoll of its own, edge-triggered, and only that epoll's file descriptor is given to
the event loop: it is readable once for every change and then silent, however the port's level stands.
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
#: Reads in a row before others in the loop get their turn.
_READS = 16
_WRITE = 32 * 1024
_HIGH = 64 * 1024
_LOW = 16 * 1024
#: Seconds after which a write that took nothing although the port said that it was writable is tried again.
_FULL_RETRY = 0.05


class PortError(Exception):
    """The port cannot be opened or is gone. ``code``: port-absent, -busy, -denied, -gone or -error."""

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
        """``cause``: what the system call said."""
        self.path = path
        self.errno = cause.errno
        self.code = self._CODES.get(cause.errno or 0, "port-error")
        super().__init__(f"{path}: {self._WORDS.get(self.code, cause.strerror or str(cause))}")


class Device(Protocol):
    """An open port. read() and write() are a non-blocking file's: BlockingIOError, other OSErrors, short counts."""

    def fileno(self) -> int:
        """A descriptor that is readable while changes() has something to say."""

    def changes(self) -> int:
        """The port's EPOLL* mask if something changed since the last call, else 0."""

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none while the host's end is closed."""

    def write(self, data: memoryview) -> int:
        """How many bytes were taken."""

    def close(self) -> None:
        """Gives the port back."""


class CharDevice:
    """The real port."""

    def __init__(self, fd: int) -> None:
        """Takes over an open, non-blocking descriptor."""
        self._fd = fd
        self._epoll = select.epoll()
        flags = select.EPOLLIN | select.EPOLLOUT | select.EPOLLHUP | select.EPOLLRDHUP | select.EPOLLET
        self._epoll.register(self._fd, flags)

    def fileno(self) -> int:
        """The epoll's own descriptor."""
        return self._epoll.fileno()

    def changes(self) -> int:
        """Takes the edge."""
        ready = self._epoll.poll(0, 1)
        return ready[0][1] if ready else 0

    def read(self, size: int) -> bytes:
        """See read(2)."""
        return os.read(self._fd, size)

    def write(self, data: memoryview) -> int:
        """See write(2)."""
        return os.write(self._fd, data)

    def close(self) -> None:
        """Closes both descriptors."""
        self._epoll.close()
        os.close(self._fd)


class PortTransport(asyncio.Transport):
    """An open port. Calls its protocol as asyncio does, and peer_gone(), peer_back() on the host's end."""

    def __init__(self, device: Device, path: str, protocol: WireProtocol) -> None:
        """Takes the device over. connection_made() is called at once, anything else from the loop."""
        super().__init__({"path": path})
        self._loop = asyncio.get_running_loop()
        self._device = device
        self._path = path
        self._protocol = protocol
        self._fd = device.fileno()
        self._pending = bytearray()
        self._reading = True
        #: An edge said "readable", and no read said "no more" since.
        self._readable = True
        self._more: asyncio.Handle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._full = False
        self._host = True
        self._closing = False
        self._closed = False
        protocol.connection_made(self)
        self._loop.add_reader(self._fd, self._on_change)
        # Bytes that came before us made no edge of ours, or one that is still to be taken; look once in any case.
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
        """Writes at once what the port takes, and the rest when it takes more. After close(): nothing."""
        if self._closing or not data:
            return
        self._pending += data
        # While bytes wait, an edge is due for them; and the order must be kept.
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
                    # The queue is full. Completions make edges, but the last one may have come before this write.
                    self._retry = self._loop.call_later(_FULL_RETRY, self._flush)
                    break
                del self._pending[:taken]
        except BlockingIOError:
            # No room, or no host: an edge tells when there is.
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
        """Bytes that the port did not take yet."""
        return len(self._pending)

    # -- asyncio's

    def pause_reading(self) -> None:
        """Leaves what comes in the kernel, whose own back-pressure reaches to the host's program."""
        self._reading = False

    def resume_reading(self) -> None:
        """Reads again what came meanwhile."""
        if self._reading or self._closing:
            return
        self._reading = True
        if self._readable and self._more is None:
            self._more = self._loop.call_soon(self._read)

    def is_reading(self) -> bool:
        """Says if reading is not paused."""
        return self._reading and not self._closing

    def is_closing(self) -> bool:
        """Says if close() or abort() was called, or the port was lost."""
        return self._closing

    def close(self) -> None:
        """Writes what waits, unless there is no host to read it, and gives the port back."""
        if self._closing:
            return
        self._closing = True
        if not self._pending or not self._host:
            self._lose(None)

    def abort(self) -> None:
        """Gives the port back at once."""
        self._lose(None)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol that is called."""
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
    """Open the port at ``path``. Raise OSError."""
    return CharDevice(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))


def opener(
    path: str, open_device: Callable[[str], Device] = open_device
) -> Callable[[WireProtocol], asyncio.Transport]:
    """What GuestLink takes: a function that opens the port at ``path``. It raises PortError."""

    def open_wire(protocol: WireProtocol) -> asyncio.Transport:
        try:
            device = open_device(path)
        except OSError as error:
            raise PortError(path, error) from error
        return PortTransport(device, path, protocol)

    return open_wire
