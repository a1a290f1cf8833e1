# SPDX-License-Identifier: Apache-2.0
"""The module that knows pyudev, on a monitor of which only the kernel's side is made up."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import pyudev
from vcpu_guest.core.model import Event
from vcpu_guest.uevents import Uevents

from .conftest import until


class Monitor:
    """A pipe that is readable while devices wait."""

    def __init__(self) -> None:
        self.reading, self.writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.reading.setblocking(False)
        self.filters: list[str] = []
        self.waiting: list[Any] = []

    def filter_by(self, subsystem: str) -> None:
        self.filters.append(subsystem)

    def start(self) -> None:
        assert self.filters, "without a filter every event of the machine would come"

    def fileno(self) -> int:
        return self.reading.fileno()

    def poll(self, timeout: float) -> Any:
        assert timeout == 0, "the event loop must not be blocked"
        if not self.waiting:
            return None
        self.reading.recv(1)
        item = self.waiting.pop(0)
        if isinstance(item, OSError):
            raise item
        return item

    def tell(self, item: Any) -> None:
        self.waiting.append(item)
        self.writing.send(b"x")


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Monitor]:
    monitor = Monitor()

    def from_netlink(context: object, source: str) -> Monitor:
        assert source == "kernel"
        return monitor

    monkeypatch.setattr(pyudev.Monitor, "from_netlink", from_netlink)
    yield monitor
    monitor.reading.close()
    monitor.writing.close()


async def test_events_of_cpus_come_through_and_others_do_not(monitor: Monitor) -> None:
    events: list[Event] = []
    lost: list[str] = []
    source = Uevents()
    source.start(events.append, lost.append)
    assert monitor.filters == ["cpu"]
    for action, name in (("add", "cpu3"), ("change", "cpu"), ("add", "cpufreq"), ("online", "cpu12"), (None, "cpu1")):
        monitor.tell(SimpleNamespace(action=action, sys_name=name))
    await until(lambda: not monitor.waiting)
    assert events == [Event("add", 3), Event("online", 12), Event("", 1)]
    assert lost == []
    source.close()
    assert not source.alive
    source.close()


async def test_an_overflow_means_to_look_at_everything_and_listening_goes_on(monitor: Monitor) -> None:
    events: list[Event] = []
    lost: list[str] = []
    source = Uevents()
    source.start(events.append, lost.append)
    monitor.tell(OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS)))
    monitor.tell(SimpleNamespace(action="add", sys_name="cpu3"))
    await until(lambda: bool(events))
    assert len(lost) == 1
    assert source.alive
    source.close()


async def test_what_nobody_waits_for_is_put_off_and_looked_at_in_one_go(monitor: Monitor) -> None:
    events: list[Event] = []
    lost: list[str] = []
    source = Uevents()
    source.urgent = lambda: False
    source.start(events.append, lost.append)
    for number in range(5):
        monitor.tell(SimpleNamespace(action="add", sys_name=f"cpu{number}"))
    await until(lambda: bool(lost))
    assert (len(lost), events) == (1, [])
    monitor.waiting.clear()  # they were read off the socket
    source.urgent = lambda: True
    monitor.tell(SimpleNamespace(action="add", sys_name="cpu7"))
    await until(lambda: bool(events))
    assert events == [Event("add", 7)]
    source.close()


async def test_what_was_put_off_is_made_good_the_moment_somebody_asks(monitor: Monitor) -> None:
    lost: list[str] = []
    source = Uevents()
    source.urgent = lambda: False
    source.start(lambda event: None, lost.append)
    source.catch_up()
    assert lost == []
    monitor.tell(SimpleNamespace(action="add", sys_name="cpu1"))
    await until(lambda: source._paused is not None)
    source.catch_up()
    source.catch_up()
    assert len(lost) == 1
    source.close()


async def test_the_kernels_own_group_can_be_joined() -> None:
    source = Uevents()
    source.start(lambda event: None, lambda why: None)
    assert source.alive
    source.close()
