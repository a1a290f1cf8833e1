# SPDX-License-Identifier: Apache-2.0
"""Reads the load from /proc, and hears by PSI's triggers when tasks begin to wait.

Nothing is open while nobody asks.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final, Protocol

from vcpu_guest.core import load as core
from vcpu_guest.core.load import Load

#: Each file where the unit's sandbox has it (ProcSubset= hides the second place), and where it is without one.
PATHS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "stat": ("/run/vcpud-stat", "/proc/stat"),
        "schedstat": ("/run/vcpud-schedstat", "/proc/schedstat"),
        "cpu": ("/run/vcpud-pressure-cpu", "/proc/pressure/cpu"),
        "memory": ("/run/vcpud-pressure-memory", "/proc/pressure/memory"),
    }
)
#: Tells when tasks have waited for a tenth of a window of one second. Since Linux 6.4 programs without CAP_SYS_RESOURCE
#: may have windows of two seconds and their multiples, before they may have none (kernel/sched/psi.c).
TRIGGERS: Final = (b"some 100000 1000000\0", b"some 200000 2000000\0")
_PIECE: Final = 65536


class LoadSource(Protocol):
    """Where the load comes from, for as long as it is open."""

    @property
    def descriptor(self) -> int | None:
        """A file descriptor that is readable when tasks have begun to wait; None where the kernel does not tell."""

    def read(self) -> Load:
        """Return the load now. Raise OSError if the kernel's files cannot be read."""

    def quiet(self) -> None:
        """Take note that `descriptor` was readable."""

    def close(self) -> None:
        """End it."""


class LoadFiles:
    """The kernel's files, open. Raise OSError if /proc/stat is not to be had; the others may lack."""

    def __init__(
        self,
        paths: Mapping[str, tuple[str, ...]] = PATHS,
        clock: Callable[[], float] = time.monotonic,
        triggers: Sequence[bytes] = TRIGGERS,
    ) -> None:
        self._clock = clock
        self._tick = 1_000_000 // os.sysconf("SC_CLK_TCK")
        self._trigger: int | None = None
        self._epoll: select.epoll | None = None
        self._files: dict[str, int] = {}
        try:
            for name, places in paths.items():
                file = _opened(places, os.O_RDONLY)
                if file is not None:
                    self._files[name] = file
            if "stat" not in self._files:
                raise FileNotFoundError(2, "no such file", paths["stat"][-1])
            self._arm(paths["cpu"], triggers)
        except BaseException:
            self.close()
            raise

    @property
    def descriptor(self) -> int | None:
        """See LoadSource."""
        return None if self._epoll is None else self._epoll.fileno()

    def read(self) -> Load:
        """See LoadSource."""
        seconds = self._clock()
        cpus, running = core.parse_stat(_whole(self._files["stat"]), self._tick)
        waits = core.parse_schedstat(self._optional("schedstat"))
        return Load(
            seconds=seconds,
            cpus=tuple(replace(cpu, waited=waits.get(cpu.number)) for cpu in cpus),
            # The agent runs while it reads.
            runnable=None if running is None else max(0, running - 1),
            cpu_pressure=core.parse_pressure(self._optional("cpu")),
            memory_pressure=core.parse_pressure(self._optional("memory")),
        )

    def quiet(self) -> None:
        """See LoadSource."""
        if self._epoll is not None:
            self._epoll.poll(0)

    def close(self) -> None:
        """See LoadSource."""
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
        if self._trigger is not None:
            os.close(self._trigger)
            self._trigger = None
        for file in self._files.values():
            os.close(file)
        self._files = {}

    def _optional(self, name: str) -> bytes:
        """Return a file that may lack. PSI that is switched off (psi=0) has files; reading one gives EOPNOTSUPP."""
        try:
            return _whole(self._files[name]) if name in self._files else b""
        except OSError:
            return b""

    def _arm(self, places: tuple[str, ...], triggers: Sequence[bytes]) -> None:
        """Have the kernel tell when tasks wait, if it lets us."""
        for words in triggers:
            file = _opened(places, os.O_RDWR | os.O_NONBLOCK)
            if file is None:
                return
            try:
                os.write(file, words)
                # A trigger is told by POLLPRI alone, and the loop waits for input: so an epoll stands in between.
                self._epoll = select.epoll()
                self._epoll.register(file, select.EPOLLPRI)
            except OSError:
                os.close(file)
                if self._epoll is not None:
                    self._epoll.close()
                    self._epoll = None
            else:
                self._trigger = file
                return


def _opened(places: tuple[str, ...], flags: int) -> int | None:
    for place in places:
        try:
            return os.open(place, flags | os.O_CLOEXEC)
        except OSError:  # not there, or not for us
            continue
    return None


def _whole(file: int) -> bytes:
    """Read all of a file of /proc, from its beginning."""
    pieces: list[bytes] = []
    offset = 0
    while piece := os.pread(file, _PIECE, offset):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)
