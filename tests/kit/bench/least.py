# SPDX-License-Identifier: Apache-2.0
"""The least agent: what any agent in the guest costs over the floor, be it ever so small.

udevadm tells a shell loop of the kernel's events, and the loop writes ``online`` for each CPU as it comes. It knows no
identity, checks nothing, cannot be asked and reports one line when the last CPU is online. vcpud is stopped meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from kit.bench import floor
from kit.lab import Vm

# A fifo that somebody holds open both ways never blocks at its opening.
_START = """rm -f /run/least; mkfifo /run/least
(exec 3<>/run/least
 stdbuf -oL udevadm monitor --kernel --subsystem-match=cpu | {{
    left={count}
    while [ $left -gt 0 ] && read -r word action path rest; do
        case $word,$action in
        monitor,*) echo listening >&3 ;;
        KERNEL*,add) echo 1 >/sys$path/online && left=$((left - 1)) ;;
        esac
    done
    echo done >&3
}}) >/dev/null 2>&1 &
read -r word </run/least && [ "$word" = listening ]"""
_WAIT = 'read -r word <>/run/least && [ "$word" = done ]'
_END = "kill $(pidof udevadm); rm /run/least"


def plug(vm: Vm, slots: Sequence[int]) -> float:
    """Seconds from the first device_add until the guest's console says that all of these slots' CPUs are online."""
    entities = list(reversed(vm.qmp.execute("query-hotpluggable-cpus")))
    floor.agent_stopped(vm)
    try:
        vm.shell(_START.format(count=len(slots)), timeout=60)
        with ThreadPoolExecutor(1) as console:
            online = console.submit(vm.shell, _WAIT, 120)
            began = time.monotonic()
            for slot in slots:
                entity = entities[slot]
                vm.qmp.execute("device_add", driver=entity["type"], id=f"vcpu-{slot}", **entity["props"])
            online.result()
            spent = time.monotonic() - began
        vm.shell(_END)
    finally:
        floor.agent_running(vm)
    return spent
