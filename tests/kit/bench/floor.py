# SPDX-License-Identifier: Apache-2.0
"""The floor: the least that QEMU and the guest's kernel need, with nothing of ours running.

Up: a raw QMP client sends the device_adds and takes the time to the first ACPI_DEVICE_OST; then, all CPUs being there,
one loop of shell builtins in the guest writes ``online`` for each, in slot order, and takes the time inside the writes.
Down: the offline writes by the same loop, then raw device_dels until the slots are empty. The floor is the sum.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from kit.lab import Vm

_CPUS = "/sys/devices/system/cpu"

# Builtins alone: bash keeps the wall clock in a variable, so nothing is started between the two readings, and nothing
# but the finding of each slot's CPU lies between the CPUs' arrival and the writes.
_LOOP = """bash -c '
cd {root}
declare -A cpu_of
for cpu in cpu[0-9]*; do
    read -r path <$cpu/firmware_node/path && cpu_of[${{path##*.}}]=$cpu
done
total=0
for slot in {slots}; do
    file=${{cpu_of[$slot]}}/online
    began=${{EPOCHREALTIME/./}}
    echo {value} >$file || exit 1
    ended=${{EPOCHREALTIME/./}}
    total=$((total + ended - began))
done
echo $total'"""


def agent_stopped(vm: Vm) -> None:
    """Stop vcpud where it stands (SIGSTOP): nothing of ours runs in the guest."""
    vm.shell("kill -STOP $(systemctl show -P MainPID vcpud)")


def agent_running(vm: Vm) -> None:
    """Let it run again."""
    vm.shell("kill -CONT $(systemctl show -P MainPID vcpud)")


def plug(vm: Vm, slots: Sequence[int], patience: float = 120.0) -> float:
    """The floor of plugging these slots, in seconds. ``patience``: how long the guest's loop may take."""
    entities = list(reversed(vm.qmp.execute("query-hotpluggable-cpus")))
    began = time.monotonic()
    for slot in slots:
        entity = entities[slot]
        vm.qmp.execute("device_add", driver=entity["type"], id=f"vcpu-{slot}", **entity["props"])
    seen = [_ost(vm, slot, began, source=1) - began for slot in slots]
    return min(seen) + _write(vm, slots, 1, patience)


def unplug(vm: Vm, slots: Sequence[int], patience: float = 120.0) -> float:
    """The floor of unplugging these slots, in seconds. ``patience``: how long the guest's loop may take."""
    down = list(reversed(slots))
    spent = _write(vm, down, 0, patience)
    began = time.monotonic()
    for slot in down:
        vm.qmp.execute("device_del", id=f"vcpu-{slot}")
    wanted = set(slots)
    until = began + patience
    while any("qom-path" in entity for entity in _entities(vm, wanted)):
        if time.monotonic() > until:
            raise TimeoutError(f"slots {sorted(wanted)} are not empty after {patience:.0f} s")
    spent += time.monotonic() - began
    for slot in slots:  # what the guest still has to say belongs to nobody's next measurement
        _ost(vm, slot, began, source=3)
    return spent


def _ost(vm: Vm, slot: int, since: float, *, source: int) -> float:
    """When the guest reported success for this slot, not before ``since``: older reports are passed over."""
    while True:
        event = vm.qmp.wait_event("ACPI_DEVICE_OST", timeout=30.0, source=source, status=0, slot=str(slot))
        if event.time >= since:
            return event.time


def _entities(vm: Vm, slots: set[int]) -> list[dict[str, object]]:
    reply = vm.qmp.execute("query-hotpluggable-cpus")
    return [entity for place, entity in enumerate(reversed(reply)) if place in slots]


def _write(vm: Vm, slots: Sequence[int], value: int, patience: float) -> float:
    """Seconds inside the writes of ``value`` to the slots' ``online`` files, by one loop in the guest."""
    names = " ".join(f"C{slot:03X}" for slot in slots)
    return int(vm.shell(_LOOP.format(slots=names, value=value, root=_CPUS), timeout=patience)) / 1e6
