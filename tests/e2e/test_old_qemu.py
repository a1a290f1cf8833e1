# SPDX-License-Identifier: Apache-2.0
"""Debian 12's QEMU 7.2: what works there works, and the plug that it dies of under TCG is not sent."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kit.e2e.machine import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.mark.long
def test_seven_two_plugs_and_unplugs_and_is_sent_no_plug_after_that(
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
    assert (down.status, down.outcome) == (0, "done"), down.stdout
    assert machine.state() == before

    for words in (("plug",), ("plug", "--slot", "7"), ("scale", "2"), ("plug", "--without-agent")):
        refused = machine.vcpuctl(*words)
        assert (refused.status, refused.outcome) == (3, "refused"), refused.stdout
        assert refused.json["reason"]["code"] == "tcg-replug"
    doctor = machine.vcpuctl("doctor")
    assert doctor.status == 1
    assert {f["code"]: f["level"] for f in doctor.json["findings"]}["tcg-replug"] == "problem"
    assert machine.state() == before
