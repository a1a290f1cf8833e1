# SPDX-License-Identifier: Apache-2.0
"""A stand-in for libvirt's module and its connections, which can be made to hang, to fail and to be lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from kit.fakes.libvirt_stream import LibvirtError


class FakeConnect:
    """A virConnect. ``closed`` says how often it was ended."""

    def __init__(self, module: FakeLibvirt) -> None:
        self._module = module
        self.closed = 0
        self.hears: Callable[[Any, int, object], None] | None = None

    def getLibVersion(self) -> int:  # noqa: N802 - libvirt calls it so
        return 12_008_000

    def registerCloseCallback(self, hears: Callable[[Any, int, object], None], opaque: object) -> None:  # noqa: N802
        assert opaque is None
        self.hears = hears

    def unregisterCloseCallback(self) -> None:  # noqa: N802
        self.hears = None

    def setKeepAlive(self, seconds: int, count: int) -> None:  # noqa: N802
        assert seconds > 0 < count

    def close(self) -> int:
        self.closed += 1
        return 0

    def lose(self) -> None:
        """The daemon ends: libvirt tells of it in its thread of events."""
        assert self.hears is not None
        thread = threading.Thread(target=self.hears, args=(self, 1, None))
        thread.start()
        thread.join()


class FakeLibvirt:
    """The module. ``hang`` has whoever opens a connection wait until ``goes_on`` is set; ``refuse`` fails it."""

    libvirtError = LibvirtError  # noqa: N815

    def __init__(self) -> None:
        self.opened: list[FakeConnect] = []
        self.attempts = 0
        self.hang = False
        self.refuse = False
        self.goes_on = threading.Event()

    def openReadOnly(self, uri: str) -> FakeConnect:  # noqa: N802
        assert uri
        self.attempts += 1
        if self.hang:
            assert self.goes_on.wait(60)
        if self.refuse:
            raise LibvirtError("no such daemon")
        connect = FakeConnect(self)
        self.opened.append(connect)
        return connect

    open = openReadOnly
