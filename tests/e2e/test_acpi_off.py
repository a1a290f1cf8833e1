# SPDX-License-Identifier: Apache-2.0
"""A machine without ACPI has no way to tell its guest of a CPU, though QEMU takes the plug without a word."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kit.e2e.machine import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]


@pytest.mark.parametrize("machine_type", ["q35", "pc"])
@pytest.mark.parametrize("qemu", ["10.0", "11.1"])
def test_without_acpi_a_plug_is_refused_in_the_plan_with_the_cause(
    machines: Callable[..., Machine], machine_type: str, qemu: str
) -> None:
    machine = machines(qemu=qemu, machine=f"{machine_type},acpi=off", smp="2,maxcpus=16,sockets=2,cores=4,threads=2")
    before = machine.vm.guest_cpus(), machine.filled()
    commands = (
        *(("plug",), ("plug", "--slot", "5"), ("scale", "3"), ("plug", "--without-agent"), ("unplug", "--slot", "1")),
        ("unplug", "--slot", "1", "--without-agent"),
        ("plan", "plug"),
    )
    for words in commands:
        ended = machine.vcpuctl(*words)
        assert ended.status == 3, f"{words}: {ended.stdout}"
        reason = ended.json["refusals"][0]["reason"] if words[0] == "plan" else ended.json["reason"]
        assert "ACPI" in reason["text"], reason
        assert "acpi=off" in reason["text"] + reason["hint"], reason
        assert "vcpu-guest" not in reason["hint"], reason  # no other agent would help
    assert (machine.vm.guest_cpus(), machine.filled()) == before
    assert machine.sent("device_add") == machine.sent("device_del") == []
    doctor = machine.vcpuctl("doctor")
    assert doctor.status == 1
    problems = [finding for finding in doctor.json["findings"] if finding["level"] == "problem"]
    assert problems, doctor.stdout
    assert all("ACPI" in finding["text"] for finding in problems), problems
    if "cpu1" in machine.vm.guest_cpus():
        # The firmware has made ACPI tables of its own, whose names of CPUs are not known (q35, 10.0).
        ended = machine.vcpuctl("offline", "1")
        assert (ended.status, ended.json["reason"]["code"]) == (3, "agent-platform")
        assert "firmware" in ended.json["reason"]["text"]
        assert "vcpu-guest" not in ended.json["reason"]["hint"]
    assert (machine.vm.guest_cpus(), machine.filled()) == before
