# SPDX-License-Identifier: Apache-2.0
"""The fake machine as a pseries one, cores of one thread each: no ACPI, and the guest's kernel takes cores in itself.

Modelled on hw/ppc/spapr.c (spapr_core_pre_plug, spapr_core_unplug_request) and target/ppc/kvm.c (kvmppc_cpu_realize).
What query-cpus-fast says where QEMU numbers cores as they come was seen with 10.0 and 11.1 under KVM
(docs/adr/0012-how-cpus-are-named.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kit.fakes.qemu.errors import QmpError
from kit.fakes.qemu.guest import IN_PROGRESS, OK
from kit.fakes.qemu.machine import Machine
from kit.fakes.qemu.slots import Cpu, Slot


class PseriesMachine(Machine):
    """See the module."""

    def _possible(self) -> list[Slot]:
        return [Slot(index, {"core": index}, index, None) for index in range(self.config.maxcpus)]

    def number(self, slot: Slot) -> int:
        """Under KVM since 9.1 one more than the highest one in use (cpu-common.c, cpu_get_free_index)."""
        if not self.config.numbers_arrivals:
            return super().number(slot)
        return max((other.cpu.number for other in self.slots if other.cpu is not None), default=-1) + 1

    def plug(self, driver: str, device_id: str | None, props: Mapping[str, Any]) -> None:
        """device_add of a core."""
        if device_id and f"/machine/peripheral/{device_id}" in self._by_path:
            raise QmpError("GenericError", f"Duplicate device ID '{device_id}'")
        if driver != self.config.cpu_type:
            raise QmpError("GenericError", f"CPU core type should be {self.config.cpu_type}")
        core_id = props.get("core-id", 0)
        if not 0 <= core_id < len(self.slots):
            raise QmpError("GenericError", f"core id {core_id} out of range")
        slot = self.slots[core_id]
        if slot.cpu is not None:
            raise QmpError("GenericError", f"core {core_id} already populated")
        self.plugs += 1
        self._fill(slot, self._path(device_id), device_id)
        slot.inserting = True
        self._raise_sci()

    def ask_unplug(self, slot: Slot) -> None:
        """device_del of a core: only asks the guest. Raises QmpError."""
        if self.migrating:
            raise QmpError("GenericError", "device_del not allowed while migrating")
        if slot.index == 0:
            raise QmpError("GenericError", "Boot CPU core may not be unplugged")
        if slot.removing:
            name = slot.cpu.device_id if slot.cpu is not None else None
            raise QmpError("GenericError", f"CPU core unplug already in progress for device {name}")
        slot.removing = True
        self._raise_sci()

    def show_cpus(self) -> None:
        """End QEMU, as query-cpus-fast does where a vCPU has a number that no core has (spapr_cpu_index_to_props)."""
        if any(slot.cpu is not None and slot.cpu.number >= len(self.slots) for slot in self.slots):
            self._die()

    def _tell_deleted(self, cpu: Cpu) -> None:
        """Of the core at last, its children first (seen on 11.1)."""
        for child in ("thread[0]/icp", "thread[0]/xive-tctx", "thread[0]"):
            self._emit("DEVICE_DELETED", {"path": f"{cpu.path}/{child}"})
        self._emit("DEVICE_DELETED", {"path": cpu.path} | ({"device": cpu.device_id} if cpu.device_id else {}))

    async def reset(self, *, guest: bool) -> None:
        """A reset completes a removal that is pending (hw/ppc/spapr_drc.c, spapr_drc_reset_all)."""
        for slot in self.slots:
            if slot.removing:
                slot.removing = False
                self.remove(slot)
        await super().reset(guest=guest)

    def _report(self, slot: Slot, source: int, status: int) -> None:
        """There is no _OST; a guest that keeps a core says so by the connector (spapr_drc.c, set_dr_indicator)."""
        del source
        if status in (OK, IN_PROGRESS) or slot.cpu is None:
            return
        said = {"path": slot.cpu.path} | ({} if slot.cpu.device_id is None else {"device": slot.cpu.device_id})
        self._emit("DEVICE_UNPLUG_GUEST_ERROR", said)
