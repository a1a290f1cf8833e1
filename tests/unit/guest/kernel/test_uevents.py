# SPDX-License-Identifier: Apache-2.0
"""The module that knows pyudev, on a monitor of which only the kernel's side is made up."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
import pyudev
from kit.fakes.monitor import FakeMonitor
from kit.until import until
from vcpu_guest import logs
from vcpu_guest.core.model import CpuEvent
from vcpu_guest.kernel import uevents
from vcpu_guest.kernel.uevents import Uevents


@pytest.fixture(autouse=True)
def _this_tests_stderr() -> Iterator[None]:
    logs.configure("info", "text")
    yield
    logs.configure("info", "text")


class Heard:
    """A source that listens, and what it said."""

    def __init__(self) -> None:
        self.events: list[CpuEvent] = []
        self.lost: list[str] = []
        self.urgent = True
        self.source = Uevents()

    def start(self) -> Heard:
        self.source.start(self.events.append, self.lost.append, lambda: self.urgent)
        return self


@pytest.fixture
def monitors(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FakeMonitor]]:
    """Those that were made; the first is made by `start`."""
    made: list[FakeMonitor] = []

    def from_netlink(context: object, source: str) -> FakeMonitor:
        assert source == "kernel"
        made.append(FakeMonitor())
        return made[-1]

    monkeypatch.setattr(pyudev.Monitor, "from_netlink", from_netlink)
    yield made
    for monitor in made:
        monitor.close()


@pytest.fixture
async def heard(monitors: list[FakeMonitor]) -> Heard:
    return Heard().start()


@pytest.fixture
def monitor(heard: Heard, monitors: list[FakeMonitor]) -> FakeMonitor:
    return monitors[0]


async def turns(number: int = 200) -> None:
    """Give the loop that many turns, in each of which a reader that is ready is called."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_events_of_cpus_come_through_and_others_do_not(heard: Heard, monitor: FakeMonitor) -> None:
    assert monitor.filters == ["cpu"]
    for action, name in (("add", "cpu3"), ("change", "cpu"), ("add", "cpufreq"), ("online", "cpu12"), ("", "cpu1")):
        monitor.tell(action, name)
    await until(lambda: len(heard.events) == 3)
    assert heard.events == [CpuEvent("add", 3), CpuEvent("online", 12), CpuEvent("", 1)]
    assert heard.lost == []
    heard.source.close()
    assert not heard.source.alive
    heard.source.close()


async def test_after_an_overflow_everything_is_looked_at_once_and_events_are_heard_again(
    heard: Heard, monitor: FakeMonitor, capsys: pytest.CaptureFixture[str]
) -> None:
    monitor.tell("add", "cpu3")
    monitor.overflow()
    await until(lambda: bool(heard.lost))
    await turns()
    monitor.tell("add", "cpu4")
    await until(lambda: bool(heard.events))
    assert heard.events == [CpuEvent("add", 4)], "what was queued is dropped: the look made it good"
    assert len(heard.lost) == 1
    assert capsys.readouterr().err.count("events were lost") == 1
    assert monitor.polls < 10
    heard.source.close()


async def test_overflows_that_follow_each_other_are_made_good_together_after_a_pause(
    heard: Heard, monitor: FakeMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uevents, "_PAUSE", 3600.0)
    monkeypatch.setattr(uevents, "_LONGEST_PAUSE", 3600.0)
    monitor.overflow()
    await until(lambda: len(heard.lost) == 1)
    monitor.overflow()
    await until(lambda: heard.source._paused)
    monitor.overflow()
    polls = monitor.polls
    await turns()
    assert (len(heard.lost), monitor.polls) == (1, polls), "it is awake, and should not be"
    heard.source.catch_up()  # somebody asks: the pause ends
    assert len(heard.lost) == 2
    monitor.tell("add", "cpu4")
    await until(lambda: heard.events == [CpuEvent("add", 4)])
    heard.source.close()


async def test_a_burst_that_overflows_again_and_again_is_five_lines_at_most(
    heard: Heard, monitor: FakeMonitor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(uevents, "_PAUSE", 0.0)
    monkeypatch.setattr(uevents, "_SHARE", 0)
    for times in range(1, 151):
        monitor.overflow()
        await until(lambda times=times: len(heard.lost) == times)  # type: ignore[misc]
        monitor.tell("change", "cpu0")
        await until(lambda times=times: len(heard.events) == times)  # type: ignore[misc]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("times=")[2] for line in lines] == ["", "10", "100"]
    heard.source.close()


async def test_more_events_than_anybody_can_use_are_dropped_for_one_look(
    heard: Heard, monitor: FakeMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uevents, "_MOST", 20)
    monkeypatch.setattr(uevents, "_TURN", 8)
    for _ in range(100):
        monitor.tell("change", "cpu0")
    await until(lambda: bool(heard.lost))
    assert len(heard.events) <= 24
    await turns()
    assert len(heard.lost) == 1
    monitor.tell("add", "cpu4")
    await until(lambda: bool(heard.events) and heard.events[-1] == CpuEvent("add", 4))
    heard.source.close()


async def test_what_is_done_about_events_has_a_bound_on_its_share_of_a_cpu(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = heard.source
    for spent, pause in ((0.0, uevents._PAUSE), (0.1, 0.9), (60.0, uevents._LONGEST_PAUSE)):
        source._spent = spent
        assert source._delay() == pytest.approx(pause)
        assert source._spent == 0.0
    source.close()


async def test_what_nobody_waits_for_is_put_off_and_looked_at_in_one_go(heard: Heard, monitor: FakeMonitor) -> None:
    heard.urgent = False
    for number in range(5):
        monitor.tell("add", f"cpu{number}")
    await until(lambda: bool(heard.lost))
    assert (len(heard.lost), heard.events) == (1, [])
    heard.urgent = True
    monitor.tell("add", "cpu7")
    await until(lambda: bool(heard.events))
    assert heard.events == [CpuEvent("add", 7)]
    heard.source.close()


async def test_what_was_put_off_is_made_good_the_moment_somebody_asks(heard: Heard, monitor: FakeMonitor) -> None:
    heard.urgent = False
    heard.source.catch_up()
    assert heard.lost == []
    monitor.tell("add", "cpu1")
    await until(lambda: heard.source._paused)
    heard.source.catch_up()
    heard.source.catch_up()
    assert len(heard.lost) == 1
    heard.source.close()


async def test_a_socket_that_does_not_recover_is_made_anew(
    heard: Heard, monitor: FakeMonitor, monitors: list[FakeMonitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uevents, "_PAUSE", 0.0)
    monkeypatch.setattr(uevents, "_SHARE", 0)

    def broken(timeout: float) -> None:
        raise OSError("for good")

    monkeypatch.setattr(monitor, "poll", broken)
    monitor.tell("change", "cpu0")
    while len(monitors) == 1:
        monitor.tell("change", "cpu0")
        await asyncio.sleep(0)
    await turns()
    assert heard.source.hearing
    assert len(heard.lost) == uevents._PATIENCE, "each failure, the last by the new socket, is one look"
    monitors[1].tell("add", "cpu4")
    await until(lambda: heard.events == [CpuEvent("add", 4)])
    heard.source.close()


async def test_where_it_may_not_listen_it_says_so_once_and_listens_when_it_may(
    monitors: list[FakeMonitor], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(uevents, "_RETRY", 0.001)
    may, tries = pyudev.Monitor.from_netlink, 0

    def may_not(context: object, source: str) -> None:
        nonlocal tries
        tries += 1
        raise PermissionError(97, os.strerror(97))

    monkeypatch.setattr(pyudev.Monitor, "from_netlink", may_not)
    heard = Heard()
    heard.source._retry = uevents._RETRY
    assert heard.source.name == "udev", "it was not tried yet"
    heard.start()
    assert (heard.source.alive, heard.source.hearing, heard.source.name) == (True, False, "none")
    heard.source.catch_up()
    await until(lambda: tries > 3)
    assert capsys.readouterr().err.count("events cannot be heard") == 1
    monkeypatch.setattr(pyudev.Monitor, "from_netlink", may)
    await until(lambda: heard.source.hearing)
    assert (heard.lost, heard.source.name) == (["listening again"], "udev")
    assert capsys.readouterr().err.count("events are heard again") == 1
    monitors[0].tell("add", "cpu4")
    await until(lambda: heard.events == [CpuEvent("add", 4)])
    heard.source.close()


async def test_it_can_be_closed_by_who_is_told_of_an_event(heard: Heard, monitor: FakeMonitor) -> None:
    heard.source._on_event = lambda event: heard.source.close()
    monitor.tell("add", "cpu1")
    monitor.tell("add", "cpu2")
    await until(lambda: not heard.source.alive)


async def test_the_kernels_own_group_can_be_joined() -> None:
    heard = Heard().start()
    assert heard.source.alive
    assert heard.source.hearing
    heard.source.close()
