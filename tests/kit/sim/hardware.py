# SPDX-License-Identifier: Apache-2.0
"""The simulated world's QEMU, and what its guest's firmware and kernel make of CPUs that come and go."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from vcpu_host.core.model import Ost
from vcpu_host.core.operation import events as ev
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.qmp.names import OURS

from .ground import Ground, Sim

_EJECT, _INSERT = 3, 1


@dataclass
class Hardware(Ground):
    """QEMU, the firmware, and the kernel's part in the arrival and removal of CPUs."""

    def _add(self, action: ev.DoPlug, op: int) -> None:
        sim = self.sims[action.slot]
        sim.commands -= 1
        if self.dead:
            return
        if sim.holder is not None or self._chance(self.faults.add_refused):
            self._tell(ev.PlugReturned(action.slot, Reason("qemu-refused", Origin.QEMU, "no")), op)
            return
        self._fill(sim, OURS.slot_id(action.slot), ours=True)
        self._tell(ev.PlugReturned(action.slot, None), op)

    def _fill(self, sim: Sim, holder: str, *, ours: bool) -> None:
        def fill() -> None:
            sim.fills += 1
            sim.foreign = sim.misnamed = sim.untold = False
            sim.holder, sim.ejecting, sim.present, sim.linked, sim.online = (
                holder,
                False,
                False,
                True,
                [False] * self.threads,
            )

        self._change(sim, fill)
        if ours:
            sim.plugged_at = self.now
        self._guest(lambda: self._insert(sim))

    def _insert(self, sim: Sim) -> None:
        """The guest's kernel takes notice of a CPU, and of every removal that it had missed."""
        for other in self.sims:
            if other.ejecting:
                self._guest(partial(self._process_eject, other))
        if sim.holder is None or sim.present or sim.untold:
            return
        if self.threads == 1:
            self._report(sim, Ost(_INSERT, 0))
        if self._chance(self.faults.ignored):
            return
        sim.present, sim.linked = True, self.rng.random() < 0.5
        if not sim.linked:
            self._guest(lambda: self._link(sim))
        else:
            self._link(sim)
        for thread in range(self.threads):
            if self.threads > 1 or self._chance(self.faults.auto_online):
                self._guest(partial(self._switch, sim, thread, to=True))

    def _link(self, sim: Sim) -> None:
        sim.linked = True
        sim.noticed_at = self.now
        self._arrived(sim)

    def _arrived(self, sim: Sim) -> None:
        """The guest's kernel shows a CPU and its firmware's name for it."""

    def _switch(self, sim: Sim, thread: int, *, to: bool) -> None:
        def switch() -> None:
            sim.online[thread] = to

        if sim.present and sim.holder is not None:
            self._change(sim, switch)

    def _show(self, asked: float, op: int) -> None:
        """Answer a look at QEMU."""
        if op == self._op:
            self.shown = self.host()
        self._tell(ev.HostLooked(self.host(), asked), op)

    def _del(self, action: ev.DoUnplug, op: int) -> None:
        self.sims[action.slot].commands -= 1
        if self.dead:
            return
        target = self.shown.slots[action.slot].handle or OURS.slot_id(action.slot)
        held = [sim for sim in self.sims if sim.holder is not None and target in (sim.holder, sim.path)]
        if not held:
            self._tell(ev.UnplugReturned(action.slot, Reason("device-not-found", Origin.QEMU, "not found")), op)
        elif self._chance(self.faults.del_refused) or held[0].index == 0:
            self._tell(ev.UnplugReturned(action.slot, Reason("qemu-refused", Origin.QEMU, "not now")), op)
        else:
            self._eject(held[0])
            self._tell(ev.UnplugReturned(action.slot, None), op)

    def _eject(self, sim: Sim) -> None:
        sim.ejecting = True
        self._guest(lambda: self._process_eject(sim))

    def _process_eject(self, sim: Sim) -> None:
        if not sim.ejecting or sim.holder is None or self._chance(self.faults.eject_silent):
            return
        if self._chance(self.faults.eject_refused):
            sim.ejecting = False
            if self.threads == 1:
                self._report(sim, Ost(_EJECT, 0x82))
            else:
                self._hint(ev.UnplugRefused(sim.index))
            return
        if self.threads == 1:
            self._report(sim, Ost(_EJECT, 0x84))
        self._empty(sim)
        self._hint(ev.DeviceDeleted(sim.index))
        if self.threads == 1:
            self._report(sim, Ost(_EJECT, 0))

    def _report(self, sim: Sim, ost: Ost) -> None:
        """QEMU keeps the last word, whoever hears the event (hw/acpi/cpu.c, acpi_cpu_device_status)."""
        sim.ost = ost
        self._hint(ev.OstReported(sim.index, ost))

    def _empty(self, sim: Sim) -> None:
        def empty() -> None:
            sim.holder, sim.present, sim.ejecting, sim.online = None, False, False, [False] * self.threads

        self._change(sim, empty)
