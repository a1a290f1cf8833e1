# SPDX-License-Identifier: Apache-2.0
"""A VM of many lives: restored again and again from its saved state, or moved, as it is, into a new QEMU process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kit.lab import states
from kit.lab.guest import Image
from kit.lab.qemu import Qemu
from kit.lab.spec import VmSpec
from kit.lab.vm import Vm

#: Seconds to write or read a VM's RAM, on a busy machine.
_MOVE = 120.0


class Lives:
    """``vm`` is the running one. Each life's disk goes with its RAM: a new life has a new overlay, a move keeps it."""

    def __init__(self, spec: VmSpec, qemu: Qemu, image: Image, accel: str, state: Path, folder: Path) -> None:
        """Restore the first one; ``folder`` is for the disks and the RAM that is moved."""
        self._spec, self._qemu, self._image, self._accel = spec, qemu, image, accel
        self._state, self._folder = state, folder
        self._number = 0
        self.vm = self._restore()

    def again(self) -> None:
        """End the VM, if it still runs, and restore the saved state: a new life, and a new plug budget under TCG."""
        self.vm.close()
        self._disk.unlink()
        self.vm = self._restore()

    def move(self, before_end: Callable[[Vm], None]) -> None:
        """Save the VM and load it into a new QEMU, with the CPUs that it has; ``before_end`` may look at the old one.

        CPUs without an id of their own, beside the ones of -smp, cannot be told on a command line: LabError by QEMU.
        """
        old = self.vm
        ram = self._folder / "ram"
        old.qmp.execute("stop")
        devices = plugged(old.qmp.execute("query-hotpluggable-cpus"))
        old.save(ram, _MOVE)
        before_end(old)
        old.close()
        spec = replace(self._spec, devices=tuple(part for device in devices for part in ("-device", device)))
        self.vm = Vm(spec, self._qemu, self._image, self._accel, self._disk, incoming=True)
        self.vm.load(ram, _MOVE)
        ram.unlink()

    @property
    def _disk(self) -> Path:
        return self._folder / f"disk{self._number}.qcow2"

    def _restore(self) -> Vm:
        self._number += 1
        return states.restore(self._spec, self._qemu, self._image, self._accel, self._state, self._disk)


def plugged(slots: Sequence[dict[str, Any]]) -> list[str]:
    """The -device options of the CPUs that were plugged, from what query-hotpluggable-cpus says, lowest slot first."""
    devices = []
    for slot in reversed(slots):
        path = str(slot.get("qom-path", ""))
        if path.startswith("/machine/peripheral/"):
            props = ",".join(f"{name}={value}" for name, value in slot["props"].items())
            devices.append(f"{slot['type']},id={path.rpartition('/')[2]},{props}")
    return devices
