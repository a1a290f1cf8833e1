# SPDX-License-Identifier: Apache-2.0
"""The whole of a VM but the VM: the fake QEMU's guest is the fake kernel, its port the fake virtio_console.

A real ``vcpud`` runs on the other side of both (``kit.fakes.qemu.vm``), and a real ``vcpuctl`` on QEMU's sockets.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kit.fakes.kernel_socket import KernelSocket
from kit.fakes.qemu.commands import Arguments, Handler
from kit.fakes.qemu.config import Config
from kit.fakes.qemu.errors import QmpError
from kit.fakes.qemu.guest import BUSY, OK
from kit.fakes.qemu.papr_guest import PaprGuest, PaprKernel
from kit.fakes.qemu.qemu import FakeQemu
from kit.fakes.sysfs import FakeKernel, firmware_path, old_path
from kit.fakes.virtio_port import VirtioPort


class KernelGuest:
    """``FakeGuest`` by the fake kernel. ``late_remove``: the directory goes after _EJ0, as in kernels since 6.11."""

    def __init__(self, kernel: FakeKernel, *, late_remove: bool = True) -> None:
        self.kernel = kernel
        self.late_remove = late_remove

    @property
    def deaf(self) -> bool:
        """Whether the kernel gets no interrupt of ACPI's."""
        return self.kernel.deaf

    def number(self, slot: int) -> int | None:
        """The guest's number of the CPU in ``slot``."""
        return next((number for number, other in self.kernel.slots.items() if other == slot), None)

    async def boot(self, slots: Sequence[int]) -> None:
        """A boot finds CPUs and starts them all; nobody hears a uevent of it, for no agent runs yet."""
        for slot in slots:
            if self.number(slot) is None:
                await asyncio.to_thread(self._start, slot)

    def _start(self, slot: int) -> None:
        number = self.kernel.add(slot)
        self._switch(number, online=True)

    def _switch(self, number: int, *, online: bool) -> None:
        path = os.fspath(self.kernel.cpu_dir / f"cpu{number}/online")
        self.kernel.write(path, b"1" if online else b"0")
        self.kernel.writes.pop()  # the kernel's own doing, not the agent's

    async def insert(self, slot: int) -> int:
        """Present, offline; uevents "add" and "bind"."""
        if self.number(slot) is None:
            self.kernel.add(slot)
        return OK

    async def eject(self, slot: int) -> int:
        """The kernel takes the CPU offline by itself, if it still is online (acpi_scan_try_to_offline)."""
        number = self.number(slot)
        if number is None:
            return OK
        if number in self.kernel.online:
            try:
                await asyncio.to_thread(self._switch, number, online=False)
            except OSError:
                return BUSY
        if not self.late_remove:
            self.kernel.remove(number)
        return OK

    async def removed(self, slot: int) -> None:
        """QEMU has taken it out."""
        number = self.number(slot)
        if number is not None:
            self.kernel.remove(number)

    async def reset(self) -> None:
        """All but the boot CPU are unknown to a kernel that starts again; it renumbers what it finds."""
        self.kernel.mute()
        if self.kernel.deaf:
            self.kernel.deafen(on=False)
        for number in sorted(self.kernel.slots)[1:]:
            self.kernel.remove(number)


class BridgedPort(VirtioPort):
    """The agent's port; ``tell`` hears when the guest opens and closes it."""

    def __init__(self, directory: Path, *, abstract: bool = False) -> None:
        super().__init__(directory, abstract=abstract)
        self.tell: Callable[[bool], None] = lambda _open: None

    @property
    def socket(self) -> str:
        """The chardev's path."""
        return self.host_path

    @property
    def guest_open(self) -> bool:
        """Whether a guest program has the port open."""
        return self.guest_connected

    def _accept_guest(self) -> None:
        was = self.guest_connected
        super()._accept_guest()
        if not was and self.guest_connected:
            self.tell(True)

    def _guest_closed(self) -> None:
        was = self.guest_connected
        super()._guest_closed()
        if was:
            self.tell(False)


class BridgedVm:
    """``async with BridgedVm(folder, config) as vm``: sockets and trees lie in ``folder`` (a short path).

    ``qmp``, ``qmp2``, ``steer``; ``port.host`` and ``port.guest``; ``kernel`` (for kit/fakes/vcpud.py) and ``sys``.
    """

    def __init__(self, folder: Path, config: Config, *, die: Callable[[], None] | None = None) -> None:
        self.port = BridgedPort(folder, abstract=config.chardev == "abstract")
        self.kernel: FakeKernel | PaprKernel
        if config.pseries:
            self.kernel = PaprKernel(folder / "sys", config)
            papr = PaprGuest(self.kernel)
            self.qemu = FakeQemu(folder, config, papr, port=self.port, die=die, steering=papr.steering)
            papr.number_of = self._number_of
        else:
            self.kernel = FakeKernel(
                folder / "sys",
                possible=config.guest_possible or config.maxcpus,
                boot=range(config.smp),
                acpi=config.acpi and config.guest_acpi,
                named=old_path if config.acpi_names == "old" else firmware_path,
            )
            guest = KernelGuest(self.kernel)
            steering = _steering(self, self.kernel, guest)
            self.qemu = FakeQemu(folder, config, guest, port=self.port, die=die, steering=steering)
        self._kernel_socket = KernelSocket(self.kernel, folder / "kernel")

    def _number_of(self, slot: int) -> int:
        cpu = self.qemu.machine.slots[slot].cpu
        return slot if cpu is None else cpu.number

    async def __aenter__(self) -> FakeQemu:
        await self._kernel_socket.__aenter__()
        await self.port.__aenter__()
        self.port.tell = lambda is_open: self.qemu.port_changed(guest_open=is_open)
        return await self.qemu.__aenter__()

    async def __aexit__(self, *_exc: object) -> None:
        await self.qemu.__aexit__()
        self.port.tell = lambda _open: None
        await self.port.__aexit__()
        await self._kernel_socket.__aexit__()
        self.kernel.close()


def _steering(  # long: one small function a command
    vm: BridgedVm, kernel: FakeKernel, guest: KernelGuest
) -> Mapping[str, Handler]:
    """Commands for the kernel, by slot."""

    def number(args: Arguments) -> int:
        found = guest.number(args.given.get("slot", -1))
        if found is None:
            raise QmpError("GenericError", f"the guest has no CPU for slot {args.given.get('slot')}")
        return found

    def refuse(_qemu: FakeQemu, args: Arguments) -> Any:
        """Writing ``online`` (true or false) for ``slot`` fails with ``errno`` from now on; 0 ends it."""
        kernel.refuse(number(args), int(args.given["errno"]), online=bool(args.given["online"]))
        return {}

    def hold(_qemu: FakeQemu, args: Arguments) -> Any:
        """Writes take until ``on`` is false again."""
        if args.given["on"]:
            kernel.released.clear()
        else:
            kernel.released.set()
            kernel.holding.clear()
        return {}

    async def holding(_qemu: FakeQemu, args: Arguments) -> Any:
        """Wait until a write is held."""
        return await asyncio.to_thread(kernel.holding.wait, float(args.given.get("seconds", 60)))

    def mute(_qemu: FakeQemu, _args: Arguments) -> Any:
        """All uevents are lost from now on."""
        kernel.mute()
        return {}

    def deaf(_qemu: FakeQemu, _args: Arguments) -> Any:
        """The kernel gets no interrupt of ACPI's any more, up to the next reset."""
        kernel.deafen()
        return {}

    def show(_qemu: FakeQemu, _args: Arguments) -> Any:
        """The guest's CPUs by number, and every write of the agent so far as [number, online]."""
        cpus = {str(n): {"slot": slot, "online": n in kernel.online} for n, slot in sorted(kernel.slots.items())}
        return {"cpus": cpus, "writes": [list(write) for write in kernel.writes]}

    def switch(_qemu: FakeQemu, args: Arguments) -> Any:
        """Somebody else in the guest writes ``online``: a udev rule, an administrator."""
        cpu = number(args)
        path = os.fspath(kernel.cpu_dir / f"cpu{cpu}/online")
        kernel.write(path, b"1" if args.given["online"] else b"0")
        return {}

    def drop_host(_qemu: FakeQemu, _args: Arguments) -> Any:
        """QEMU closes the host's connection to the port."""
        vm.port.drop_host()
        return {}

    return {
        "x-fake-kernel-refuse": refuse,
        "x-fake-kernel-hold": hold,
        "x-fake-kernel-holding": holding,
        "x-fake-kernel-mute": mute,
        "x-fake-kernel-deaf": deaf,
        "x-fake-kernel": show,
        "x-fake-kernel-switch": switch,
        "x-fake-port-drop": drop_host,
    }
