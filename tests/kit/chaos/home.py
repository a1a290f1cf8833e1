# SPDX-License-Identifier: Apache-2.0
"""Where the VM under chaos lives: how vcpuctl gets to it, what gives it a new life, and what can happen only there."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from kit.chaos.choice import Fault, Shape
from kit.chaos.relay import Relay
from kit.e2e.platforms import SlotOf
from kit.lab import Lives, QmpError, Vm
from kit.lab.record import Record
from kit.lab.spec import AGENT_CHARDEV
from kit.lab.virt.domain import Domain

#: Sees each command on its way to QEMU.
Look = Callable[[Vm, Mapping[str, Any]], None]
#: Lets so many seconds pass, or less if the operation under way ends.
LetPass = Callable[[float], None]
Deed = Callable[[Fault, LetPass], None]
_SNAPSHOT = "chaos"
#: Seconds to connect to a port that may be taken.
_CONNECT = 2.0


class NotMendedError(Exception):
    """After the faults were over, the VM or its agent did not come back: neither is of use any more."""


class Home(Protocol):
    """A VM's place. ``shape`` and ``slot_of`` say what VM it is; vcpuctl runs with ``environment`` beside its own."""

    shape: Shape
    slot_of: SlotOf
    #: Whether the guest's console can be held against promise 2.
    traced: bool
    environment: Mapping[str, str]
    #: Devices whose removal was asked for behind vcpuctl's back, by id.
    removals: list[str]
    #: Faults that are done here in a way of its own, by name.
    deeds: Mapping[str, Deed]

    @property
    def vm(self) -> Vm | Domain:
        """The running VM."""

    @property
    def record(self) -> Record:
        """The record of its QEMU."""

    @property
    def alive(self) -> bool:
        """Whether its QEMU still runs."""

    @property
    def smp(self) -> str:
        """Its topology, as QEMU's -smp has it."""

    @property
    def plugs_left(self) -> int:
        """See ``Vm.plugs_left``."""

    def options(self, look: Look) -> tuple[str, ...]:
        """vcpuctl's words for this VM. Where the console says nothing, ``look`` is called before QEMU gets a command.

        The last of them is found on the command lines of vcpuctl's processes only.
        """

    def commands(self) -> list[tuple[float, dict[str, Any]]]:
        """All that this QEMU was told; ids ``lab-...`` have the commands that no vcpuctl is the reason of."""

    def again(self) -> None:
        """End the VM, and restore the saved state."""

    def move(self, before_end: Callable[[], None]) -> None:
        """Have the VM go on in a new QEMU; ``before_end`` may look at the old one's record, which is whole by then."""

    def snapshot(self) -> None:
        """Keep the VM as it is now, for ``revert``."""

    def revert(self) -> None:
        """Go back to it."""

    def release(self) -> None:
        """End what faults hold of the host's."""

    def agent_there(self) -> bool:
        """Whether the guest has the agent's port open, as the host sees it."""

    def disagreements(self) -> list[str]:
        """What the host's own record says otherwise than QEMU: after a ``scale`` that succeeded, nothing."""

    def misdeeds(self) -> list[str]:
        """What vcpuctl, or nobody known, did that it may not; each once."""

    def close(self) -> None:
        """Let go of what stands around the VM."""


class QmpHome:
    """A VM of the lab's own, of which vcpuctl gets the monitor."""

    def __init__(self, lives: Lives, shape: Shape, slot_of: SlotOf, *, traced: bool) -> None:
        """``lives`` holds the VM."""
        self._lives = lives
        self.shape, self.slot_of, self.traced = shape, slot_of, traced
        self.environment: Mapping[str, str] = {}
        self.removals: list[str] = []
        #: Ids that the lab has given to devices of another kind.
        self.taken: set[str] = set()
        self.deeds: Mapping[str, Deed] = {
            "link-drop": lambda _fault, _wait: self._connect(b""),
            "link-garbage-host": lambda fault, _wait: self._connect(fault.data),
            "raw-add": lambda fault, _wait: self._raw_add(fault),
            "raw-del": lambda fault, _wait: self._raw_del(fault),
            "taken-id": lambda fault, _wait: self._taken_id(fault),
        }
        #: QEMU's CPUs when the snapshot was made: the arguments of their device_add.
        self._kept: list[dict[str, Any]] = []
        #: What stands before the monitor of the VM that runs, where the console tells nothing of promise 2.
        self._relay: tuple[Vm, Relay] | None = None
        self._against: list[str] = []

    @property
    def vm(self) -> Vm:
        """See ``Home``."""
        return self._lives.vm

    @property
    def record(self) -> Record:
        """See ``Home``."""
        return self.vm.record

    @property
    def alive(self) -> bool:
        """See ``Home``."""
        return self.vm.alive

    @property
    def smp(self) -> str:
        """See ``Home``."""
        return self.vm.spec.smp

    @property
    def plugs_left(self) -> int:
        """See ``Home``."""
        return self.vm.plugs_left

    def options(self, look: Look) -> tuple[str, ...]:
        """See ``Home``."""
        if self.traced:
            return ("--qmp", str(self.vm.qmp_socket))
        if self._relay is None or self._relay[0] is not self.vm:
            self.close()
            vm = self.vm
            self._relay = (vm, Relay(vm.dir / "relay.sock", vm.qmp_socket, partial(look, vm)))
        return ("--qmp", str(self.vm.dir / "relay.sock"))

    def close(self) -> None:
        """Take away what stands before the monitor."""
        if self._relay is not None:
            self._relay[1].close()
        self._relay = None

    def commands(self) -> list[tuple[float, dict[str, Any]]]:
        """See ``Home``."""
        return self.vm.qmp_commands()

    def again(self) -> None:
        """See ``Home``."""
        self.removals.clear()
        self.taken.clear()
        self._lives.again()

    def move(self, before_end: Callable[[], None]) -> None:
        """See ``Home``."""
        self.release()
        self._lives.move(lambda _old: before_end())

    def snapshot(self) -> None:
        """See ``Home``."""
        entries = self.vm.qmp.execute("query-hotpluggable-cpus")
        self._kept = [
            {"driver": entry["type"], "id": entry["qom-path"].rpartition("/")[2], **entry["props"]}
            for entry in entries
            if entry.get("qom-path", "").startswith("/machine/peripheral/")
        ]
        self.vm.savevm(_SNAPSHOT)

    def revert(self) -> None:
        """See ``Home``. Where QEMU has not all of its CPUs any more, it gets them first, as an operator would do."""
        self.release()
        if not self.vm.loadvm(_SNAPSHOT):
            return
        for arguments in self._kept:
            with suppress(QmpError):  # it is there
                self.vm.qmp.execute("device_add", **arguments)
        said = self.vm.loadvm(_SNAPSHOT)
        if said:
            raise NotMendedError(f"the snapshot cannot be loaded: {said}")
        self.vm.qmp.execute("cont")

    def release(self) -> None:
        """Take away the devices that have an id of a slot's CPU; nobody else may have done so."""
        for name in sorted(self.taken):
            try:
                self.vm.qmp.execute("device_del", id=name)
            except QmpError as error:
                self._against.append(f"{name}, a device of another kind, is gone: {error}")
        self.taken.clear()

    def agent_there(self) -> bool:
        """See ``Home``."""
        chardevs = self.vm.qmp.execute("query-chardev")
        return any(item["label"] == AGENT_CHARDEV and item["frontend-open"] for item in chardevs)

    def disagreements(self) -> list[str]:
        """See ``Home``: nobody beside QEMU has a record."""
        return []

    def misdeeds(self) -> list[str]:
        """See ``Home``."""
        against, self._against = self._against, []
        return against

    def _connect(self, data: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as port:
            port.settimeout(_CONNECT)
            # taken by somebody, as it may be
            with contextlib.suppress(OSError):
                port.connect(str(self.vm.agent_socket))
                port.sendall(data)

    def _raw_add(self, fault: Fault) -> None:
        entry = self.vm.qmp.execute("query-hotpluggable-cpus")[-1 - fault.slot]
        # Sometimes under the name that vcpuctl would give it, sometimes not.
        name = f"{'vcpu' if fault.seconds < 2.0 else 'chaos'}-{fault.slot}"
        with contextlib.suppress(QmpError):  # the slot is taken
            self.vm.qmp.execute("device_add", driver=entry["type"], id=name, **entry["props"])

    def _raw_del(self, fault: Fault) -> None:
        entry = self.vm.qmp.execute("query-hotpluggable-cpus")[-1 - fault.slot]
        name = str(entry.get("qom-path", "")).rpartition("/")[2]
        with contextlib.suppress(QmpError):  # the slot is empty
            self.vm.qmp.execute("device_del", id=name or f"vcpu-{fault.slot}")
            self.removals.append(name)
            self.taken.discard(name or f"vcpu-{fault.slot}")

    def _taken_id(self, fault: Fault) -> None:
        # a port, since its bus takes one on every machine
        with contextlib.suppress(QmpError):  # the slot's CPU has it
            taken = f"vcpu-{fault.slot}"
            self.vm.qmp.execute("device_add", driver="virtserialport", id=taken, bus="lab-serial.0", name=taken)
            self.taken.add(taken)


def pause(seconds: float) -> None:
    """Let some time pass: here it is what is wanted, and no condition stands for it."""
    threading.Event().wait(seconds)
