# SPDX-License-Identifier: Apache-2.0
"""Where a VM's QEMU runs: on this machine, or in an emulated host of the lab (``lab.nested``)."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from kit.lab import process

#: Makes QEMU's command line from the file of the console's log and, by name, what each chardev listens on.
Line = Callable[[Path, Mapping[str, str]], list[str]]


class Process(Protocol):
    """The part of subprocess.Popen that a VM needs of its QEMU."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int: ...


@dataclass(frozen=True)
class Started:
    """A QEMU that runs."""

    process: Process
    #: What it says on its standard error: see ``lab.record``.
    said: IO[bytes]
    #: By name: the socket behind each chardev, on the machine from which it is connected to.
    sockets: Mapping[str, Path]
    #: Copies the console's log to a file of this machine.
    copy_console: Callable[[Path], object]
    #: Lets go of what it says, so that a reader of ``said`` comes to an end.
    leave: Callable[[], object] = lambda: None


class Place(Protocol):
    """A machine that QEMU can run on."""

    def start(self, line: Line, env: Mapping[str, str], names: Sequence[str], folder: Path) -> Started:
        """Start QEMU with a chardev of each name; ``folder`` is the VM's directory on this machine."""
        ...


class Here:
    """This machine. A QEMU on it ends with this process."""

    def start(self, line: Line, env: Mapping[str, str], names: Sequence[str], folder: Path) -> Started:
        """See ``Place``. The sockets accept from the first moment: we make them and QEMU inherits them."""
        sockets = {name: folder / f"{name}.sock" for name in names}
        console = folder / "console.log"
        listeners = {name: _listen(path) for name, path in sockets.items()}
        argv = line(console, {name: f"fd={listener.fileno()}" for name, listener in listeners.items()})
        started = process.start(argv, env, list(listeners.values()))
        for listener in listeners.values():
            listener.close()
        assert started.stderr is not None
        return Started(started, started.stderr, sockets, lambda path: shutil.copy(console, path))


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)  # as QEMU itself would: one client, one more in the queue
    return listener
