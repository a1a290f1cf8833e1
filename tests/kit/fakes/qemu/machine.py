# SPDX-License-Identifier: Apache-2.0
"""The machine: possible CPUs, who is plugged, and the ACPI hotplug registers between QEMU and the guest.

Modelled on hw/i386/x86.c (x86_cpu_pre_plug, x86_cpu_unplug_request_cb) and hw/acpi/cpu.c; every text was compared with
what QEMU 7.2 and 10.0 answer (tests/e2e/test_fake_is_true.py).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from kit.fakes.qemu.config import Config
from kit.fakes.qemu.errors import QmpError
from kit.fakes.qemu.faults import Faults, Rule
from kit.fakes.qemu.guest import BUSY, FAILED, IN_PROGRESS, OK, FakeGuest
from kit.fakes.qemu.slots import Cpu, Slot

_LEVELS = ("socket", "die", "module", "core", "thread")
_INSERTED, _EJECT = 1, 3


class Machine:
    """The machine and its guest; ``emit`` sends an event to every monitor, ``die`` ends QEMU as a crash does."""

    def __init__(
        self,
        config: Config,
        guest: FakeGuest,
        faults: Faults,
        emit: Callable[[str, Mapping[str, Any] | None], None],
        die: Callable[[], None],
    ) -> None:
        config.check()
        self.config = config
        self.guest = guest
        self.faults = faults
        self._emit = emit
        self._die = die
        self.made = not config.preconfig
        early = config.paused or config.preconfig
        self.status = "inmigrate" if config.incoming else "prelaunch" if early else "running"
        self.acpi_up = False  # QEMU leaves the legacy register layout when the guest's ACPI has run _INI, for good
        self.booted = False
        self.migrating = False
        self.plugs = 0
        self.unplugs = 0
        # The first vCPU's thread is one that there is: what outlives vcpuctl is bound to it.
        self._tids = os.getpid() - 1
        self._anonymous = 0
        self._gpe = False  # the bit in the GPE status register that says "look at the CPUs"
        self._woken = asyncio.Event()
        #: Set while the guest has nothing to do.
        self.idle = asyncio.Event()
        self._runs = asyncio.Event()
        if self.running:
            self._runs.set()
        self._task: asyncio.Task[None] | None = None
        self.slots = self._possible()
        self._by_path: dict[str, Slot] = {}  # those that have a CPU
        #: vCPUs without a slot, as long as their rule is not released.
        self.lingering: list[tuple[Slot, Cpu, Rule]] = []
        #: vCPUs that a device_add has left behind which failed half way (seen on 11.1).
        self.phantoms: list[tuple[Slot, Cpu]] = []
        if self.made:
            self._begin()

    def _begin(self) -> None:
        """The CPUs of -smp are made."""
        for slot in self.slots[: self.config.smp]:
            # The number is no CPU index: something else is created after the first.
            number = slot.index + bool(slot.index)
            self._fill(slot, f"/machine/unattached/device[{number}]", None)

    def make(self) -> None:
        """x-exit-preconfig: slots that were given no node are of node 0, if any was given one (hw/core/machine.c)."""
        given = any(slot.node is not None for slot in self.slots)
        for slot in self.slots if self.config.nodes else ():
            if slot.node is None:
                slot.node = 0 if given else self._usual_node(slot.index)
        self.made = True
        self._begin()
        if not self.config.paused:
            self.cont_vm()

    def _usual_node(self, index: int) -> int | None:
        return index * self.config.nodes // self.config.maxcpus if self.config.nodes else None

    @property
    def migration(self) -> dict[str, str]:
        """What query-migrate says. Who waits listens, as with -incoming URI since 8.2."""
        if self.migrating:
            return {"status": "active"}
        listens = self.status == "inmigrate" and self.config.version >= (8, 2, 0)
        return {"status": "setup"} if listens else {}

    @property
    def running(self) -> bool:
        """Whether the guest's CPUs execute."""
        return self.status == "running"

    @property
    def legacy(self) -> bool:
        """Whether the registers are the legacy ones until the guest's ACPI comes up (seen: 10.0 yes, 11.1 no)."""
        return self.config.version < (11, 0, 0)

    def start(self) -> None:
        """Let the guest live."""
        self._task = asyncio.create_task(self._live())

    async def stop(self) -> None:
        """End the guest."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def _possible(self) -> list[Slot]:
        config = self.config
        counts = (config.sockets, config.dies, config.modules, config.core_count, config.threads)
        widths = [(count - 1).bit_length() for count in counts]
        slots = []
        for index in range(config.maxcpus):
            rest, apic_id, shift, ids = index, 0, 0, {}
            for level, count, width in zip(reversed(_LEVELS), reversed(counts), reversed(widths), strict=True):
                rest, number = divmod(rest, count)
                ids[level] = number
                apic_id |= number << shift
                shift += width
            slots.append(Slot(index, ids, apic_id, self._usual_node(index) if self.made else None))
        return slots

    def _fill(self, slot: Slot, path: str, device_id: str | None) -> None:
        self._tids += 1
        slot.cpu = Cpu(path, device_id, self._tids, self.number(slot))
        self._by_path[path] = slot

    def number(self, slot: Slot) -> int:
        """The cpu-index of a vCPU that comes into the slot."""
        return slot.index

    # -- the monitor's side ---------------------------------------------------------------------------------------

    def find(self, device: str) -> Slot:
        """find_device_state: a device id, or any path that leads to a CPU. Raises QmpError."""
        slot = self._by_path.get(device if device.startswith("/") else f"/machine/peripheral/{device}")
        if slot is None:
            raise QmpError("DeviceNotFound", f"Device '{device}' not found")
        return slot

    def plug(self, driver: str, device_id: str | None, props: Mapping[str, Any]) -> None:
        """device_add of a CPU. The order of the checks is QEMU's."""
        if device_id and f"/machine/peripheral/{device_id}" in self._by_path:
            raise QmpError("GenericError", f"Duplicate device ID '{device_id}'")
        if driver != self.config.cpu_type:
            raise QmpError("GenericError", f"Invalid CPU type, expected cpu type: '{self.config.cpu_type}'")
        if self.config.smm == "blocked":
            raise QmpError("GenericError", "cpu hotplug with SMI wasn't enabled by firmware")
        slot = self._place(props)
        if slot.cpu is not None:
            raise QmpError("GenericError", f"CPU[{slot.index}] with APIC ID {slot.apic_id} exists")
        node = props.get("node-id", -1)
        if node not in (-1, slot.node if slot.node is not None else 0):
            raise QmpError("GenericError", f"invalid node-id, must be {slot.node or 0}")
        if slot.apic_id > 254 and not self.config.x2apic:
            self._too_far(slot, device_id)
            return
        self.plugs += 1
        if (self.config.dies_on_replug and self.unplugs) or (
            self.config.plug_budget and self.config.smp + self.plugs > self.config.maxcpus
        ):
            self._die()
            return
        self._fill(slot, self._path(device_id), device_id)
        slot.inserting = True
        self._raise_sci()

    def show_cpus(self) -> None:
        """query-cpus-fast is asked for."""

    def _too_far(self, slot: Slot, device_id: str | None) -> None:
        """apic_common_set_id: 10.0 aborts; 11.1 refuses, and the vCPU's thread stays, without an object."""
        if self.config.version < (11, 0, 0):
            self._die()
            return
        self._tids += 1
        self.phantoms.append((slot, Cpu("", device_id, self._tids, slot.index)))
        raise QmpError("GenericError", f"APIC ID {slot.apic_id} requires x2APIC feature in CPU")

    def _path(self, device_id: str | None) -> str:
        if device_id is not None:
            return f"/machine/peripheral/{device_id}"
        self._anonymous += 1
        return f"/machine/peripheral-anon/device[{self._anonymous - 1}]"

    def _place(self, props: Mapping[str, Any]) -> Slot:
        """x86_cpu_pre_plug: each level in turn, first whether it is given, then whether it is in range."""
        config = self.config
        counts = dict(
            zip(_LEVELS, (config.sockets, config.dies, config.modules, config.core_count, config.threads), strict=True)
        )
        index = 0
        for level in _LEVELS:
            if level == "module" and config.version < (9, 1, 0):
                continue
            value = props.get(f"{level}-id", -1)
            if value < 0 and counts[level] == 1 and level in ("die", "module"):
                value = 0
            if value < 0:
                raise QmpError("GenericError", f"CPU {level}-id is not set")
            if value >= counts[level]:
                text = f"Invalid CPU {level}-id: {value} must be in range 0:{counts[level] - 1}"
                raise QmpError("GenericError", text)
            index = index * counts[level] + value
        return self.slots[index]

    def ask_unplug(self, slot: Slot) -> None:
        """device_del of a CPU: only asks the guest. Raises QmpError."""
        if self.migrating:
            raise QmpError("GenericError", "device_del not allowed while migrating")
        if slot.index == 0:
            raise QmpError("GenericError", "Boot CPU is unpluggable")
        if not self.config.acpi and "q35" not in self.config.machine:
            raise QmpError("GenericError", "CPU hot unplug not supported without ACPI")
        if self.config.smm:
            raise QmpError("GenericError", "cpu hot-unplug with SMI wasn't enabled by firmware")
        if self.config.old or (self.legacy and not self.acpi_up):
            text = f"acpi: device unplug request for not supported device type: {self.config.cpu_type}"
            raise QmpError("GenericError", text)
        slot.removing = True
        self._raise_sci()

    def _raise_sci(self) -> None:
        if not (self.config.acpi and self.config.guest_acpi):
            return  # there is nobody to hear it
        self._gpe = True
        self.wake()

    def stop_vm(self) -> None:
        """The command stop."""
        if self.running:
            self.status = "paused"
            self._runs.clear()
            self._emit("STOP", None)

    def cont_vm(self) -> None:
        """The command cont."""
        if not self.running:
            self.status = "running"
            self._runs.set()
            self._emit("RESUME", None)
            self.wake()

    async def reset(self, *, guest: bool) -> None:
        """A reset. It does not complete a pending unplug: the notification is lost, the flag stays (acpi_gpe_reset)."""
        await self.stop()
        await self.guest.reset()
        self.booted = False
        self._gpe = False
        if not self.running:
            self.status = "prelaunch"
        reason = "guest-reset" if guest else "host-qmp-system-reset"
        self._emit("RESET", {"guest": guest, "reason": reason})
        self.start()

    async def boot(self) -> None:
        """The guest's operating system comes up."""
        for slot in self.slots:
            slot.inserting = False  # hot-added before anybody looked: just one of the CPUs that are found
            slot.removing = slot.removing and self.acpi_up  # asked for before the first boot: lost (seen on 11.1)
        self.acpi_up = self.config.acpi and self.config.guest_acpi
        self.booted = True
        await self.guest.boot([slot.index for slot in self.slots if slot.cpu is not None])

    def wake(self) -> None:
        """Let the guest look again."""
        self.idle.clear()
        self._woken.set()

    # -- the guest's side -----------------------------------------------------------------------------------------

    async def _live(self) -> None:
        """Boot, then serve SCIs: all events there are, in slot order, as the AML method CSCN does."""
        while True:
            if self.running and self.config.boots and not self.booted:
                await self.boot()
            if not (self.running and self.booted and self._gpe) or self.guest.deaf:
                self.idle.set()
                await self._woken.wait()
                self._woken.clear()
                continue
            self._gpe = False
            await self._scan()

    async def _scan(self) -> None:
        """CSCN: until no slot has an event. Stopped in the middle, it goes on later."""
        while (slot := self._flagged()) is not None:
            if not self.running:
                self._gpe = True
                return
            await (self._insert(slot) if slot.inserting else self._eject(slot))

    def _flagged(self) -> Slot | None:
        """The first slot with an event (CPHP_GET_NEXT_CPU_WITH_EVENT_CMD): AML asks until there is none."""
        return next((slot for slot in self.slots if slot.inserting or slot.removing), None)

    async def _paused(self) -> None:
        """Wait until the guest's CPUs execute."""
        await self._runs.wait()

    async def _insert(self, slot: Slot) -> None:
        slot.inserting = False
        rule = await self.faults.meet("guest:insert", slot.index)
        if rule is not None and rule.do == "die":
            self._die()
        await self._paused()
        status = await self.guest.insert(slot.index)
        if rule is not None and rule.do == "refuse":
            status = int(rule.params.get("status", FAILED))
        self._report(slot, _INSERTED, status)

    async def _eject(self, slot: Slot) -> None:
        slot.removing = False
        self._report(slot, _EJECT, IN_PROGRESS)
        rule = await self.faults.meet("guest:eject", slot.index)
        if rule is not None and rule.do == "die":
            self._die()
        await self._paused()
        if rule is not None and rule.do == "refuse":
            status = int(rule.params.get("status", BUSY))
        else:
            status = await self.guest.eject(slot.index)
        if status == OK:
            if rule is not None and rule.do == "linger" and slot.cpu is not None:
                self.lingering.append((slot, slot.cpu, rule))
            self.remove(slot)
            await self.guest.removed(slot.index)
        self._report(slot, _EJECT, status)

    def remove(self, slot: Slot) -> None:
        """The guest wrote the eject register: the CPU object goes."""
        cpu = slot.cpu
        if cpu is None:
            return
        slot.cpu = None
        del self._by_path[cpu.path]
        self.unplugs += 1
        self._tell_deleted(cpu)

    def _tell_deleted(self, cpu: Cpu) -> None:
        if self.config.deleted in ("tcg", "kvm"):
            self._emit("DEVICE_DELETED", {"path": f"{cpu.path}/lapic"})
        if self.config.deleted == "kvm":
            own = {"path": cpu.path} if cpu.device_id is None else {"device": cpu.device_id, "path": cpu.path}
            self._emit("DEVICE_DELETED", own)

    def _report(self, slot: Slot, source: int, status: int) -> None:
        if self.config.old:
            return
        slot.ost = (source, status)
        self._emit("ACPI_DEVICE_OST", {"info": self.ost_info(slot)})

    def ost_info(self, slot: Slot) -> dict[str, Any]:
        """acpi_cpu_device_status: ``device`` only for a CPU that is there and has an id."""
        info: dict[str, Any] = {
            "slot": str(slot.index),
            "slot-type": "CPU",
            "source": slot.ost[0],
            "status": slot.ost[1],
        }
        if slot.cpu is not None and slot.cpu.device_id is not None:
            info["device"] = slot.cpu.device_id
        return info


def timestamp() -> dict[str, int]:
    """The time as events carry it."""
    now = time.time_ns() // 1000
    return {"seconds": now // 1_000_000, "microseconds": now % 1_000_000}
