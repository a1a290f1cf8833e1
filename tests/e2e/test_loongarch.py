# SPDX-License-Identifier: Apache-2.0
"""LoongArch on a QEMU whose ACPI is at fault: what happens is told as what it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kit.e2e.machine import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_on_ten_zero_the_cpu_never_shows_in_the_guest_and_the_outcome_is_unknown_and_doctor_knows_why(
    machines: Callable[..., Machine],
) -> None:
    smp = "1,maxcpus=4,sockets=1,cores=4,threads=1"
    machine = machines(cold=True, guest="sid-loong64", qemu="10.0", machine="virt", smp=smp)
    findings = {finding["code"] for finding in machine.vcpuctl("doctor").json["findings"]}
    assert "loongarch-acpi" in findings, findings
    ended = machine.vcpuctl("--timeout", "10", "plug", "--slot", "2")
    assert (ended.status, ended.outcome) == (4, "unknown"), ended.stdout
    assert ended.json["slots"][0]["reason"]["code"] == "arrival-pending"
    assert set(machine.filled()) == {0, 2}
    assert machine.vm.shell("cat /sys/devices/system/cpu/online").strip() == "0"
    assert machine.vcpuctl.map()[2]["state"] == "plugged"
