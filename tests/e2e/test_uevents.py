# SPDX-License-Identifier: Apache-2.0
"""More events than the agent's socket holds: it gets over them, at no cost, in few words, and hears the next one."""

from __future__ import annotations

import pytest
from kit.e2e.lines import JsonLines
from kit.e2e.machine import Machine
from kit.e2e.operation import PID

from e2e.test_list_plan_watch_doctor import state_of

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]

BURST = 100_000
#: udevd would be at work on them for minutes; it is not what this is about.
UDEV = "systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket"
#: One descriptor for all: a shell would open the file each time, and be slower than the agent.
FLOOD = f"""import os
file = os.open("/sys/devices/system/cpu/cpu0/uevent", os.O_WRONLY)
for _ in range({BURST}):
    os.write(file, b"change")
"""
#: The agent's CPU time in clock ticks, and how many of them a second has.
TICKS = f"set -- $(cat /proc/{PID}/stat); echo $((${{14}} + ${{15}})) $(getconf CLK_TCK)"
WORDS = "journalctl -u vcpud -b -o cat --no-pager | wc -l"
#: Seconds between the burst and the look, and for which is looked.
CALM, LOOK = 5, 10


def ticks(machine: Machine) -> tuple[int, int]:
    used, second = map(int, machine.vm.shell(TICKS, 60).split())
    return used, second


def test_a_burst_of_a_hundred_thousand_uevents_leaves_the_agent_idle_and_hearing(machine: Machine) -> None:
    before = machine.state()
    said = int(machine.vm.shell(WORDS, 60))
    machine.vm.shell(f"systemctl stop {UDEV}", 60)
    machine.vm.put(FLOOD.encode(), "/run/flood.py")
    machine.vm.shell("python3 /run/flood.py", 600)

    machine.vm.shell(f"sleep {CALM}")
    used, second = ticks(machine)
    machine.vm.shell(f"sleep {LOOK}", 30)
    assert ticks(machine)[0] - used < LOOK * second / 10
    assert int(machine.vm.shell(WORDS, 60)) - said <= 5

    # what it hears it hears at once: nobody asks it here
    process = machine.vcpuctl.start("watch")
    lines = JsonLines(process)
    lines.until(lambda _: True, 60)
    machine.raw_add(3, "foreign-1")
    lines.until(state_of(3, "offline"), 10)
    process.terminate()
    machine.vm.shell(f"systemctl start {UDEV}", 60)
    lines.finish()
    assert machine.vcpuctl("online", "3").status == 0
    assert machine.vcpuctl("unplug", "--slot", "3").status == 0
    assert machine.state() == before
