# SPDX-License-Identifier: Apache-2.0
"""Runs in the lab's emulated host (``lab.nested``), and hands on what its VM says: ``relay.py FOLDER PORT=FILE ...``.

A PORT is a virtio-serial port of this host, behind which the lab listens at times. As long as it does, the port is
joined to FILE in FOLDER: to a socket on which the VM's QEMU listens, or to a text, from its start and as it grows.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

#: Seconds between two looks for what does not tell of its coming.
_LOOK = 0.05


def main(folder: Path, joints: list[str]) -> None:
    """Serve each port in a thread of its own, for good."""
    for joint in joints:
        port, _, name = joint.partition("=")
        threading.Thread(target=_serve, args=(Path("/dev/virtio-ports") / port, folder / name)).start()


def _serve(port: Path, file: Path) -> None:
    while True:
        # opened anew for each client: what the one before left unread goes when the port is closed
        device = os.open(port, os.O_RDWR)
        try:
            _one_client(device, file)
        finally:
            os.close(device)


def _one_client(device: int, file: Path) -> None:
    def gone() -> bool:
        """Whether nobody listens behind the port."""
        poll = select.poll()
        poll.register(device, 0)
        return bool(poll.poll(0))

    _wait(lambda: not gone())
    _wait(lambda: file.exists() or gone())
    if not gone():
        with _connected(file) as peer:
            _pump(device, peer)
        _wait(gone)


def _wait(condition: Callable[[], bool]) -> None:
    while not condition():
        select.select([], [], [], _LOOK)


@contextmanager
def _connected(file: Path) -> Iterator[socket.socket]:
    if file.is_socket():
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(file))
            yield peer
        return
    peer, text = socket.socketpair()
    with peer, text, subprocess.Popen(["tail", "-c", "+1", "-f", str(file)], stdout=text.fileno()) as tail:
        try:
            yield peer
        finally:
            tail.kill()


def _pump(device: int, peer: socket.socket) -> None:
    """Hand on what comes from either side until one of them is gone."""
    poll = select.poll()
    poll.register(device, select.POLLIN)
    poll.register(peer, select.POLLIN)
    while True:
        for ready, events in poll.poll():
            if ready == device and events & select.POLLHUP:
                return
            data = os.read(device, 65536) if ready == device else peer.recv(65536)
            if not data:
                return
            if ready == device:
                peer.sendall(data)
            while data and ready != device:
                data = data[os.write(device, data) :]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
