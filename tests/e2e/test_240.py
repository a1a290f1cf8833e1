# SPDX-License-Identifier: Apache-2.0
"""A VM of 255 possible vCPUs goes from 1 to 240 and back, in one command each way."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from kit.e2e.machine import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]

MANY = 240
#: An emulated CPU's first start is mostly waiting: for all others, which without MTRRs the kernel has no need to stop
#: (arch/x86/kernel/cpu/mtrr/mtrr.c, mtrr_ap_init), and for the clock, unless it is told how long a loop takes
#: (init/calibrate.c), which it measures for seconds on a busy machine.
WIDE: Mapping[str, Any] = {
    "smp": "1,maxcpus=255",
    "memory_mb": 2048,
    "cpu": "qemu64,-mtrr",
    "kernel_args": "lpj=4000000 nowatchdog",
}


@pytest.mark.parametrize("time", ["first", "second"])
def test_from_one_to_240_and_back_every_cpu_by_its_identity(machines: Callable[..., Machine], time: str) -> None:
    """Each time on a fresh VM: under TCG a QEMU can plug only as many CPUs as it has room for, ever."""
    machine = machines(**WIDE)
    before = machine.state()
    up = machine.vcpuctl("--timeout", "1400", "scale", str(MANY), timeout=1500)
    assert (up.status, up.outcome) == (0, "done"), up.stdout + up.stderr
    assert set(machine.filled()) == set(range(MANY))
    in_guest = machine.slots_in_guest()
    assert {slot for slot, cpu in in_guest.items() if cpu["online"]} == set(range(MANY))
    listed = machine.vcpuctl.map()
    assert {slot: shown["threads"][0]["guest_cpu"] for slot, shown in listed.items() if shown["state"] == "online"} == {
        slot: cpu["cpu"] for slot, cpu in in_guest.items()
    }
    down = machine.vcpuctl("--timeout", "1400", "scale", "1", timeout=1500)
    assert (down.status, down.outcome) == (0, "done"), down.stdout + down.stderr
    assert machine.state() == before
    print(f"{time}: up {up.json['elapsed']:.1f} s, down {down.json['elapsed']:.1f} s", file=sys.stderr)
