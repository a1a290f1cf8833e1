# SPDX-License-Identifier: Apache-2.0
"""A virtio-serial port without a virtual machine: QEMU's chardev, virtio_console, and their quirks.

Host side: a Unix stream socket with a backlog of 1 that serves one client. A second connect() succeeds and hangs.
Guest side: a SOCK_SEQPACKET socket that kit.fakes.guest_port speaks to; kit/fakes/vcpud.py takes it as ``--port``.

The quirks (hw/char/virtio-console.c, virtio-serial-bus.c, drivers/char/virtio_console.c):

- The guest's close says nothing to the host. While nobody in the guest has the port open, the host's bytes stay in its
  socket, and the next opener gets them.
- What the guest writes while no host is connected is lost, and so is what waited for the host when it went.
- What the device took from the host before it went reaches the guest later; what it did not take may be lost or not
  (seeded chance: QEMU's main loop sees the hang-up or the data first).
- The guest's close loses what it did not read, not what it wrote.
- One opener: a second gets EBUSY.

``on_bytes`` is called after each piece with the total of bytes that passed either way, so that a test can kill either
side at any byte: pieces are cut at ``cut_at``.
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Self

#: The kernel's receive buffers of a port are a page each.
_PAGE = 4096
#: What the device may hold for a guest that does not read (QEMU: as many buffers as the guest offered).
_MOST_HELD = 64 * 1024


class VirtioPort:
    """``async with VirtioPort(directory) as port``: ``port.host_path`` and ``port.guest_path``.

    ``abstract``: the host's socket has no file; its name is then "@" and what would be its path.
    """

    def __init__(self, directory: Path, *, seed: int = 0, abstract: bool = False) -> None:
        self.host_path = f"{'@' * abstract}{directory / 'port.host'}"
        self.guest_path = str(directory / "port.guest")
        self.on_bytes: Callable[[int], None] | None = None
        self.cut_at: int | None = None
        self.total = 0
        #: Bytes lost as QEMU loses them, for tests that ask.
        self.lost_to_host = 0
        self._random = random.Random(seed)
        self._host: socket.socket | None = None
        self._guest: socket.socket | None = None
        self._to_guest: list[bytes] = []
        self._to_host = bytearray()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._host_listener = _listen(self.host_path, socket.SOCK_STREAM, 1)
        self._guest_listener = _listen(self.guest_path, socket.SOCK_SEQPACKET, 16)
        self._loop.add_reader(self._host_listener, self._accept_host)
        self._loop.add_reader(self._guest_listener, self._accept_guest)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.drop_host()
        self._guest_closed()
        for listener, path in ((self._host_listener, self.host_path), (self._guest_listener, self.guest_path)):
            self._loop.remove_reader(listener)
            listener.close()
            if not path.startswith("@"):
                os.unlink(path)

    @property
    def host_connected(self) -> bool:
        return self._host is not None

    @property
    def guest_connected(self) -> bool:
        return self._guest is not None

    def drop_host(self) -> None:
        """Closes the host's connection from QEMU's side."""
        if self._host is None:
            return
        self._loop.remove_reader(self._host)
        self._loop.remove_writer(self._host)
        self._loop.remove_reader(self._hang_up.fileno())
        self._hang_up.close()
        self._host.close()
        self._host = None
        self.lost_to_host += len(self._to_host)
        self._to_host.clear()
        self._tell_guest(b"h")
        # Only now does QEMU listen again.
        self._loop.add_reader(self._host_listener, self._accept_host)

    # -- the host's side

    def _accept_host(self) -> None:
        self._host, _ = self._host_listener.accept()
        self._host.setblocking(False)
        self._loop.remove_reader(self._host_listener)
        # Noticed whether or not the socket is read, as QEMU's watch for G_IO_HUP does.
        self._hang_up = select.epoll()
        self._hang_up.register(self._host, select.EPOLLHUP | select.EPOLLET)
        self._loop.add_reader(self._hang_up.fileno(), self._host_hung_up)
        self._tell_guest(b"H")
        self._read_host_if_room()

    def _read_host_if_room(self) -> None:
        """QEMU reads its socket only while the guest has the port open and buffers to offer."""
        if self._host is None:
            return
        if self._guest is not None and sum(map(len, self._to_guest)) < _MOST_HELD:
            self._loop.add_reader(self._host, self._host_readable)
        else:
            self._loop.remove_reader(self._host)

    def _host_hung_up(self) -> None:
        while self._host is not None and self._guest is not None and self._random.random() < 0.5:
            self._host_readable()
        self.drop_host()

    def _host_readable(self) -> None:
        assert self._host is not None
        size = self._piece(_PAGE)
        try:
            data = self._host.recv(size)
        except ConnectionError:
            data = b""
        if not data:
            self.drop_host()
            return
        self._to_guest.append(b"D" + data)
        self._write_guest()
        self._read_host_if_room()
        self._passed(len(data))

    def _write_host(self) -> None:
        if self._host is None:
            self.lost_to_host += len(self._to_host)
            self._to_host.clear()
        elif self._to_host:
            try:
                sent = self._host.send(self._to_host)
            except BlockingIOError:
                sent = 0
            except ConnectionError:
                self.drop_host()
                return
            del self._to_host[:sent]
            if self._to_host:
                self._loop.add_writer(self._host, self._write_host)
            else:
                self._loop.remove_writer(self._host)
        # The guest is read again only when the host took what waited.
        if self._guest is not None:
            if self._to_host:
                self._loop.remove_reader(self._guest)
            else:
                self._loop.add_reader(self._guest, self._guest_readable)

    # -- the guest's side

    def _accept_guest(self) -> None:
        opener, _ = self._guest_listener.accept()
        # A close in the guest is done when close(2) returns; here it may still wait to be read.
        while self._guest is not None and _hung_up(self._guest):
            self._guest_readable()
        if self._guest is not None:
            opener.send(b"B")
            opener.close()
            return
        opener.setblocking(False)
        self._guest = opener
        # What the last opener left unread is gone, the state comes first.
        self._to_guest = [b"H" if self._host is not None else b"h"]
        self._write_guest()
        self._loop.add_reader(opener, self._guest_readable)
        self._read_host_if_room()

    def _guest_readable(self) -> None:
        assert self._guest is not None
        try:
            data = self._guest.recv(64 * 1024)
        except ConnectionResetError:
            # It closed with bytes unread. That is said once, before what it had written, which is read next.
            return
        if not data:
            self._guest_closed()
            return
        # In pieces, for the host may be killed between any two bytes.
        while data:
            size = self._piece(len(data))
            piece, data = data[:size], data[size:]
            self._to_host += piece
            self._write_host()
            self._passed(size)

    def _guest_closed(self) -> None:
        if self._guest is None:
            return
        self._loop.remove_reader(self._guest)
        self._loop.remove_writer(self._guest)
        self._guest.close()
        self._guest = None
        self._to_guest.clear()
        self._read_host_if_room()

    def _tell_guest(self, state: bytes) -> None:
        if self._guest is not None:
            self._to_guest.append(state)
            self._write_guest()

    def _write_guest(self) -> None:
        if self._guest is None:
            return
        try:
            while self._to_guest:
                self._guest.send(self._to_guest[0])
                self._to_guest.pop(0)
            self._loop.remove_writer(self._guest)
        except BlockingIOError:
            self._loop.add_writer(self._guest, self._guest_writable)
        except ConnectionError:
            # It has closed: what it wrote before is read first, then the end is found.
            self._to_guest.clear()
            self._loop.remove_writer(self._guest)

    def _guest_writable(self) -> None:
        self._write_guest()
        self._read_host_if_room()

    # -- cutting

    def _piece(self, most: int) -> int:
        if self.cut_at is not None and self.total < self.cut_at:
            return min(most, self.cut_at - self.total)
        return most

    def _passed(self, count: int) -> None:
        self.total += count
        if self.on_bytes is not None:
            self.on_bytes(self.total)


def _hung_up(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))


def _listen(path: str, kind: socket.SocketKind, backlog: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind(f"\0{path[1:]}" if path.startswith("@") else path)
    listener.setblocking(False)
    listener.listen(backlog)
    return listener
