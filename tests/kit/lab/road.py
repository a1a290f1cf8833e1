# SPDX-License-Identifier: Apache-2.0
"""A VM that migrates while it runs, from one QEMU process to the next, all on one disk."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kit.lab import quiet
from kit.lab.errors import LabError
from kit.lab.guest import Image
from kit.lab.qemu import Qemu
from kit.lab.vm import Vm

#: Milliseconds that the VM may stand still: an emulated one dirties its memory slowly, but is also written out slowly.
_DOWNTIME_MS = 5000
#: Bytes a second: as fast as it goes, and hardly at all.
_AT_ONCE, _CRAWL = 1 << 40, 1 << 12


class Road:
    """``vm`` is where the VM is now. QEMUs that wait for it are made by ``waiting`` and reached by ``go``."""

    def __init__(self, vm: Vm, qemus: Mapping[str, Qemu], image: Image, disk: Path) -> None:
        """``qemus`` are those that it may move to, by version."""
        self.vm = vm
        self._qemus, self._image, self._disk = qemus, image, disk
        self._made: list[Vm] = []
        self._began = 0.0

    def waiting(self, arguments: Sequence[str], *, qemu: str = "", **changes: object) -> Vm:
        """A QEMU that waits for the VM, with these arguments in the place of its -smp (``-smp ... -device ...``).

        ``qemu`` is a version, the present one's if not given; ``changes`` are of the VM's spec.
        """
        if arguments[0] != "-smp":
            raise ValueError(f"-smp comes first, not {arguments[0]!r}")
        spec = replace(self.vm.spec, smp=arguments[1], devices=tuple(arguments[2:]), **changes)  # type: ignore[arg-type]
        spec = replace(spec, qemu=qemu or spec.qemu)
        vm = Vm(spec, self._qemus[spec.qemu], self._image, self.vm.accel, self._disk, incoming=True)
        self._made.append(vm)
        return vm

    def go(self, destination: Vm, timeout: float = 120.0) -> None:
        """Migrate, live. The old QEMU stays as it is then (postmigrate), until ``leave`` or the end.

        Raises LabError with QEMU's words if it fails; the VM goes on where it was.
        """
        if quiet.loses_interrupts(self.vm.spec.machine, self.vm.accel):
            self._go_quietly(destination, timeout)
        else:
            self.begin(destination)
            self.arrive(destination, timeout)

    def _go_quietly(self, destination: Vm, timeout: float) -> None:
        """The same, but it is the lab that stops the VM for its last step, and lets it go on there."""
        runs = self.vm.qmp.execute("query-status")["running"]
        self.begin(destination, downtime_ms=0)  # which is less than QEMU can keep to while the guest computes
        self.vm.qmp.wait_event("MIGRATION_PASS", timeout, **{"pass": 2})
        # so slowly that what is left cannot all be sent, which would be the end, before the lab has made up its mind
        self.vm.qmp.execute("migrate-set-parameters", max_bandwidth=_CRAWL)
        quiet.stop(self.vm.qmp)
        self.vm.qmp.execute("migrate-set-parameters", max_bandwidth=_AT_ONCE)
        self.arrive(destination, timeout)
        if runs:
            destination.qmp.execute("cont")
            destination.wait_shell(60.0)

    def begin(self, destination: Vm, *, bandwidth: int = _AT_ONCE, downtime_ms: int = _DOWNTIME_MS) -> None:
        """Start migrating, with so many bytes a second, and so many milliseconds in which the VM may stand still."""
        path = destination.dir / "migration.sock"
        for vm in (self.vm, destination):
            vm.qmp.execute("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        self.vm.qmp.execute("migrate-set-parameters", **{"max-bandwidth": bandwidth, "downtime-limit": downtime_ms})
        self._began = time.monotonic()
        destination.qmp.execute("migrate-incoming", uri=f"unix:{path}")
        self.vm.qmp.execute("migrate", uri=f"unix:{path}")

    def arrive(self, destination: Vm, timeout: float = 120.0) -> None:
        """Wait until what was begun has come to its end; then ``vm`` is the destination.

        A VM that stood still does so there.
        """
        try:
            self.vm.wait_migrated(timeout, since=self._began)
            destination.wait_migrated(timeout, since=self._began)
        except LabError as error:
            raise LabError(f"{error}\nthe destination:\n{destination.record.tail()}") from error
        self.vm = destination
        if destination.qmp.execute("query-status")["running"]:
            destination.wait_shell(60.0)

    def close(self) -> None:
        """End all of them."""
        for vm in self._made:
            vm.close()
