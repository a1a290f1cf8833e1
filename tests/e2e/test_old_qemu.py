# SPDX-License-Identifier: Apache-2.0
"""Debian 12's QEMU 7.2: what works there works, and its death under TCG is reported as what it is."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from e2e.conftest import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.mark.long
def test_seven_two_plugs_and_unplugs_and_dies_of_the_next_plug_within_our_sight(
    machines: Callable[..., Machine],
) -> None:
    machine = machines(qemu="7.2")
    assert machine.vm.accel == "tcg"  # else there is nothing to die of
    before = machine.state()
    warning = {f["code"]: f for f in machine.vcpuctl("doctor").json["findings"]}["tcg-replug"]
    assert warning["level"] == "warning"
    assert "7.2" in warning["text"]

    assert machine.vcpuctl("plug", "--slot", "5").status == 0
    assert machine.vcpuctl("plug", "-n", "2").status == 0
    assert machine.online() == {0, 1, 2, 5}
    listed = machine.vcpuctl("list").json
    assert listed["vm"]["qemu_version"].startswith("7.2.")
    numbers = {slot: cpu["cpu"] for slot, cpu in machine.slots_in_guest().items()}
    assert {s["slot"]: s["threads"][0]["guest_cpu"] for s in listed["slots"] if s["id"] or s["slot"] == 0} == numbers
    assert machine.vcpuctl("offline", "5").status == 0
    assert machine.online() == {0, 1, 2}
    down = machine.vcpuctl("scale", "1")
    assert (down.status, down.outcome()) == (0, "done"), down.stdout
    assert machine.state() == before

    process = machine.vcpuctl.start("plug")
    machine.vm.qmp.wait_closed(60)
    died = time.monotonic()
    ended = machine.vcpuctl.wait(process, 30)
    assert time.monotonic() - died < 2
    assert (ended.status, ended.outcome()) == (5, "unknown"), ended.stdout
    assert ended.json["reason"]["code"] == "qemu-gone"
    assert ended.json["reason"]["who"] == "qemu"
    for words in (("list",), ("plug",), ("scale", "1"), ("doctor",)):
        after = machine.vcpuctl(*words)
        assert after.status == (1 if words == ("doctor",) else 5)
        assert "qemu-gone" in after.stdout
        assert "Traceback" not in after.stderr
