# SPDX-License-Identifier: Apache-2.0
"""vcpud as it is, in a process of its own, on the kernel that kit/fakes/kernel_socket.py plays.

    python tests/kit/fakes/vcpud.py --kernel SOCKET --sysfs ROOT --listen SOCKET     (and vcpud's own)

Everything but the machine (its writes, uevents, port and architecture) is the product's own code. `--port` is the
guest's end of kit.fakes.virtio_port.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
import threading
from functools import partial
from pathlib import Path

from kit.fakes.guest_port import SocketPort
from kit.fakes.load import FakeLoad
from kit.fakes.programs import channels_of, tasks_of, units_of
from vcpu_guest.core.model import CpuEvent
from vcpu_guest.kernel import procfs
from vcpu_guest.kernel.environment import EnvironmentReader
from vcpu_guest.kernel.event_source import OnEvent, OnLost, Urgent
from vcpu_guest.kernel.sysfs import NotOpenedError, Sysfs
from vcpu_guest.machine import Machine
from vcpu_guest.main import main
from vcpu_guest.platforms import detect, hypervisor_flag
from vcpu_guest.platforms.hotplug import KernelHotplug


class SocketEvents:
    """Uevents as lines from the fake kernel."""

    name = "udev"

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._rest = b""

    def catch_up(self) -> None:
        """Nothing is put off."""

    @property
    def alive(self) -> bool:
        """Whether the fake kernel still speaks to us."""
        return self._socket is not None

    @property
    def hearing(self) -> bool:
        """The same: it is not connected anew."""
        return self._socket is not None

    def start(self, on_event: OnEvent, on_lost: OnLost, urgent: Urgent) -> None:
        """Connect, and have events from here on."""
        self._on_event = on_event
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(self._path)
        self._socket.sendall(b"events\n")
        while b"\n" not in self._rest:
            self._rest += self._socket.recv(65536)
        self._rest = self._rest.removeprefix(b"listening\n")
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._readable)

    def close(self) -> None:
        """Disconnect."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        assert self._socket is not None
        data = self._socket.recv(65536)
        if not data:
            self.close()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            action, number = line.decode().split()
            self._on_event(CpuEvent(action, int(number)))


class SocketWrite:
    """Writes that the fake kernel answers, one at a time; they come from the writer's thread and from the gate's."""

    def __init__(self, path: str, root: str) -> None:
        self._root = f"{root}/"
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(path)
        self._lines = self._socket.makefile("r")

    def __call__(self, path: str, data: bytes) -> None:
        """vcpu_guest.kernel.sysfs.Write."""
        self._ask(b"write %s %s\n" % (path.removeprefix(self._root).encode(), data), path)

    def attempt(self, path: str) -> None:
        """vcpu_guest.kernel.sysfs.Try."""
        self._ask(b"open %s\n" % path.removeprefix(self._root).encode(), path)

    def _ask(self, line: bytes, path: str) -> None:
        with self._lock:
            self._socket.sendall(line)
            code, _, opening = self._lines.readline().strip().partition(" ")
        if code != "0":
            kind = NotOpenedError if opening else OSError
            raise kind(int(code), os.strerror(int(code)), path)


def fake_machine(options: argparse.Namespace, kernel: str) -> Machine:
    """The machine that the fake kernel plays."""
    write = SocketWrite(kernel, options.sysfs)
    sysfs = Sysfs(options.sysfs, write, write.attempt)
    folder = Path(options.sysfs).parent
    arch = "ppc64le" if sysfs.exists("firmware/devicetree") else "x86_64"
    (folder / "proc").mkdir(exist_ok=True)
    return Machine(
        sysfs=sysfs,
        platform=detect(arch, sysfs),
        events=SocketEvents(kernel),
        hotplug=KernelHotplug(),
        environment=EnvironmentReader(sysfs, hypervisor_flag, rule_dirs=()),
        boot_id=procfs.boot_id(os.environ),
        arch=arch,
        kernel=os.environ.get("FAKE_KERNEL", os.uname().release),
        open_port=SocketPort,
        tasks=tasks_of(folder),
        units=units_of(folder),
        ask_channels=partial(channels_of, folder),
        open_load=lambda: FakeLoad(sysfs),
    )


def run(argv: list[str]) -> int:
    """Take our own option out, and leave the rest to vcpud."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--kernel", required=True)
    mine, rest = parser.parse_known_args(argv)
    return main(rest, open_machine=lambda options: fake_machine(options, mine.kernel))


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
