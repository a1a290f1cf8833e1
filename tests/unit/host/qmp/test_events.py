# SPDX-License-Identifier: Apache-2.0
"""Events are converted, kept in order and in bounds, and end with the connection."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.sim.views import slot as slot_of
from kit.until import DEADLINE
from vcpu_host.core.model import Ost
from vcpu_host.core.vm_events import DeviceDeleted, OstReported, PortChanged, UnplugRefused, VmReset, VmStatus
from vcpu_host.qmp import events
from vcpu_host.qmp.events import EventHub, convert, gone
from vcpu_host.qmp.names import SlotPaths

PATH = "/machine/peripheral/vcpu-1"


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        (
            "ACPI_DEVICE_OST",
            {"info": {"device": "vcpu-1", "slot": "17", "slot-type": "CPU", "source": 3, "status": 132}},
            OstReported(17, Ost(3, 132)),
        ),
        ("ACPI_DEVICE_OST", {"info": {"slot": "1", "slot-type": "DIMM", "source": 1, "status": 0}}, None),
        ("DEVICE_DELETED", {"path": PATH + "/lapic"}, DeviceDeleted(1)),
        ("DEVICE_DELETED", {"device": "vcpu-1", "path": PATH}, DeviceDeleted(1)),
        ("DEVICE_UNPLUG_GUEST_ERROR", {"device": "c", "path": PATH}, UnplugRefused(1)),
        ("DEVICE_UNPLUG_GUEST_ERROR", {"device": "c", "path": PATH + "/thread[0]"}, None),
        ("DEVICE_DELETED", {"device": "nic", "path": "/machine/peripheral/nic"}, DeviceDeleted(None)),
        ("RESET", {"guest": True, "reason": "guest-reset"}, VmReset()),
        ("RESET", {"guest": False, "reason": "host-qmp-system-reset"}, VmReset()),
        ("STOP", None, VmStatus("stopped")),
        ("SUSPEND", None, VmStatus("stopped")),
        ("RESUME", None, VmStatus("running")),
        ("WAKEUP", None, VmStatus("running")),
        ("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"}, VmStatus("shutdown")),
        ("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"}, None),
        ("VSERPORT_CHANGE", {"id": "port0", "open": True}, PortChanged(open=True)),
        ("BLOCK_JOB_READY", {"device": "x"}, None),
    ],
)
def test_each_event_that_we_need_becomes_a_value(name: str, data: Any, expected: object) -> None:
    assert convert({"event": name, "timestamp": {}} | ({} if data is None else {"data": data}), SlotPaths()) == expected


NAMES = ("ACPI_DEVICE_OST", "DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR", "RESET", "STOP", "VSERPORT_CHANGE", "X")
VALUE = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
DATA = VALUE | st.dictionaries(
    st.sampled_from(["info", "path", "device", "guest", "id", "open"]),
    VALUE | st.dictionaries(st.sampled_from(["slot", "slot-type", "source", "status"]), VALUE | st.just("CPU")),
)


@given(st.sampled_from(NAMES), DATA)
def test_a_malformed_event_is_dropped_and_breaks_nothing(name: str, data: Any) -> None:
    convert({"event": name, "data": data}, SlotPaths())


async def collect(stream: events.EventStream) -> list[object]:
    async with asyncio.timeout(DEADLINE):
        return [event async for event in stream]


async def test_the_first_stream_has_what_came_before_it_was_asked_for_and_later_ones_do_not() -> None:
    hub = EventHub()
    hub.put(VmStatus("stopped"))
    first = hub.stream()
    second = hub.stream()
    hub.put(VmStatus("running"))
    hub.put(gone("over"))
    assert await collect(first) == [VmStatus("stopped"), VmStatus("running"), gone("over")]
    assert await collect(second) == [VmStatus("running"), gone("over")]


async def test_nothing_follows_the_end_and_a_stream_asked_for_after_it_has_the_end_alone() -> None:
    hub = EventHub()
    first = hub.stream()
    hub.put(gone("over"))
    hub.put(VmStatus("running"))
    hub.put(gone("again"))
    assert await collect(first) == [gone("over")]
    assert await collect(hub.stream()) == [gone("over")]


async def test_a_stream_that_nobody_reads_forgets_its_oldest_but_never_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_BOUND", 3)
    hub = EventHub()
    for slot in range(10):
        hub.put(OstReported(slot, Ost(1, 0)))
    hub.put(gone("over"))
    assert await collect(hub.stream()) == [OstReported(8, Ost(1, 0)), OstReported(9, Ost(1, 0)), gone("over")]


async def test_a_reader_that_waits_is_woken() -> None:
    hub = EventHub()
    waiting = asyncio.create_task(anext(hub.stream()))
    await asyncio.sleep(0)
    hub.put(VmStatus("running"))
    async with asyncio.timeout(DEADLINE):
        assert await waiting == VmStatus("running")


def test_an_event_names_the_slot_that_a_look_has_shown_at_its_path_or_above_it() -> None:
    paths = SlotPaths()
    foreign, boot = "/machine/peripheral/cpu7", "/machine/unattached/device[4]"
    assert (paths.above(foreign + "/lapic"), paths.at(boot)) == (None, None)
    paths.note([slot_of(3, device_id="cpu7"), replace(slot_of(1, boot=True), path=boot), slot_of(2, filled=False)])
    assert (paths.above(foreign + "/lapic"), paths.at(foreign + "/lapic"), paths.at(foreign)) == (3, None, 3)
    assert (paths.above(boot + "/lapic"), paths.at(boot)) == (1, 1)
    assert paths.above("/machine/peripheral/vcpu-12/thread[1]") == 12
    for odd in (
        "/machine/peripheral/vcpu-",
        "/machine/peripheral/vcpu-01",
        "/machine/peripheral/vcpu-1x",
        "vcpu-1",
        "",
    ):
        assert paths.at(odd) is None, odd
    paths.note([slot_of(3, filled=False)])
    assert paths.at(foreign) == 3, "an event may tell late of what has gone"
