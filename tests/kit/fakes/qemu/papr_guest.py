# SPDX-License-Identifier: Apache-2.0
"""The guest of a fake pseries machine: the fake PAPR kernel, which takes cores in and lets them go by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kit.fakes.papr import FakePapr
from kit.fakes.qemu.commands import Arguments, Handler
from kit.fakes.qemu.config import Config
from kit.fakes.qemu.guest import BUSY, OK
from kit.fakes.sysfs import Listener

if TYPE_CHECKING:
    from kit.fakes.qemu.qemu import FakeQemu


class PaprKernel(FakePapr):
    """With modern events; what ``kit.fakes.kernel_socket`` needs of a kernel."""

    def __init__(self, root: Path, config: Config) -> None:
        self._listeners: list[Listener] = []
        self.writes: list[tuple[int, bool]] = []
        self.released = threading.Event()
        self.released.set()
        super().__init__(root, cores=config.maxcpus, threads=1, modern=True)
        self._put("possible", f"0-{config.maxcpus - 1}")
        self._put("kernel_max", "2047")
        self._put("isolated", "")
        self.tell = self._tell

    def _tell(self, action: str, number: int) -> None:
        for listener in list(self._listeners):
            listener(action, number)

    def listen(self, listener: Listener) -> None:
        """From now on it gets every uevent."""
        self._listeners.append(listener)

    def mute(self) -> None:
        """Nobody hears of anything any more."""
        self._listeners.clear()

    def attempt(self, path: str) -> None:
        """Whatever is asked for may be opened for writing."""

    def write(self, path: str, data: bytes) -> None:
        """As ``FakePapr.write``; the agent's writes of ``online`` are kept."""
        super().write(path, data)
        if path.endswith("/online"):
            self.writes.append((int(Path(path).parent.name.removeprefix("cpu")), data == b"1"))


class PaprGuest:
    """``FakeGuest`` by that kernel. ``number_of`` is the number of the core's vCPU, which the machine knows."""

    def __init__(self, kernel: PaprKernel) -> None:
        self.kernel = kernel
        self.deaf = False
        self.number_of: Callable[[int], int] = lambda slot: slot
        #: By the names that the other guest's have.
        self.steering: Mapping[str, Handler] = {"x-fake-kernel": self._show}

    def _show(self, _qemu: FakeQemu, _args: Arguments) -> object:
        """The guest's CPUs by number, and every write of the agent so far as [number, online]."""
        kernel = self.kernel
        slots = {server: slot for slot, server in kernel.plugged.items()}
        cpus = {
            str(number): {"slot": slots[server], "online": number in kernel.online}
            for number, server in sorted(kernel.owner.items())
        }
        return {"cpus": cpus, "writes": [list(write) for write in kernel.writes]}

    def number(self, slot: int) -> int | None:
        """The guest's number of the CPU in ``slot``."""
        server = self.kernel.plugged.get(slot)
        return next((number for number, has in self.kernel.owner.items() if has == server), None)

    async def boot(self, slots: Sequence[int]) -> None:
        """A boot finds cores and starts them all."""
        for slot in slots:
            await self.insert(slot)

    async def insert(self, slot: int) -> int:
        """The kernel takes the core in, and brings it online (dlpar_cpu_add)."""
        if slot not in self.kernel.plugged:
            self.kernel.arrive(slot, self.number_of(slot))
        return OK

    async def eject(self, slot: int) -> int:
        """The kernel takes the core offline and lets it go (dlpar_cpu_remove); not its last one."""
        number = self.number(slot)
        if number is None:
            return OK
        if self.kernel.online == {number}:
            return BUSY
        self.kernel.leave(slot)
        return OK

    async def removed(self, slot: int) -> None:
        """Nothing is left to do."""

    async def reset(self) -> None:
        """A kernel that starts again knows the boot core."""
        self.kernel.mute()
        for slot in [slot for slot in self.kernel.plugged if slot]:
            self.kernel.leave(slot)
