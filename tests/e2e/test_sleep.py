# SPDX-License-Identifier: Apache-2.0
"""A guest that sleeps by ACPI S3: asleep it is refused with what wakes it; awake it is resized if it hears of that.

On q35 SeaBIOS does not bring the chipset's ACPI ports back (findings/seabios-loses-acpi-in-s3-on-q35.sh).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kit.e2e.machine import Machine
from kit.e2e.operation import run
from kit.lab.states import wait_ready

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
_GUEST = "debian13-amd64"
_BOOT = 300.0


def _sleeps(machine: Machine) -> None:
    """The guest goes to sleep, and is awake again."""
    vm = machine.vm
    # later than the answer to this line, on a busy host too: asleep nobody answers
    vm.shell("(sleep 5; echo mem >/sys/power/state) >/dev/null 2>&1 & true", timeout=60)
    vm.qmp.wait_event("SUSPEND", 120)
    before = machine.filled()
    refused = run(machine, "plug", within=60)
    assert (refused.status, refused.json["reason"]["code"]) == (3, "vm-not-running")
    assert "system_wakeup" in refused.json["reason"]["hint"]
    assert machine.filled() == before
    vm.qmp.execute("system_wakeup")
    vm.qmp.wait_event("WAKEUP", 120)
    vm.wait_shell(_BOOT)


def test_a_guest_that_hears_no_acpi_event_after_its_sleep_is_refused_at_once_and_plugs_after_a_restart(
    machines: Callable[..., Machine],
) -> None:
    machine = machines(guest=_GUEST)
    _sleeps(machine)
    before = machine.state()
    for words in (("plug",), ("scale", "2"), ("plug", "--slot", "3")):
        ended = run(machine, *words, within=60)
        assert (ended.status, ended.json["reason"]["code"]) == (3, "acpi-deaf"), ended.stdout
        assert "restart" in ended.json["reason"]["hint"]
    assert machine.sent("device_add") == []
    assert machine.state() == before
    findings = run(machine, "doctor", within=60).json["findings"]
    problems = {finding["code"] for finding in findings if finding["level"] == "problem"}
    assert problems == {"acpi-deaf"}

    machine.vm.qmp.execute("system_reset")
    machine.vm.wait_shell(_BOOT)
    wait_ready(machine.vm)
    assert run(machine, "--timeout", "120", "plug", within=180).outcome == "done"
    assert set(machine.filled()) == machine.online() == {0, 1}


@pytest.mark.slow
def test_a_guest_that_hears_acpi_events_after_its_sleep_is_resized(machines: Callable[..., Machine]) -> None:
    machine = machines(guest=_GUEST, machine="pc")
    _sleeps(machine)
    assert run(machine, "--timeout", "120", "scale", "3", within=180).outcome == "done"
    assert run(machine, "--timeout", "120", "scale", "1", within=180).outcome == "done"
    assert set(machine.filled()) == machine.online() == {0}
