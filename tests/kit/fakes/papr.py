# SPDX-License-Identifier: Apache-2.0
"""A POWER guest's kernel as sysfs, /sys/kernel/dlpar and the RTAS log show it, with legacy hotplug events.

Quirks kept (seen on Linux 6.1 under QEMU, and arch/powerpc/platforms/pseries):

- cpuN directories exist for all possible CPUs; `physical_id` is 0 where nobody ever was, -1 after a removal;
- `of_node` of cpu0 is the boot core's, and its ibm,ppc-interrupt-server#s has 4 bytes for each thread;
- each core that the kernel has is a node of the device tree, with its DR connector and its threads' numbers; which
  those are the hypervisor says: they follow from the connector, or, with `arrivals`, from the order of plugging (QEMU
  since 9.1 under KVM, seen with 10.0 and 11.1);
- the hypervisor's plug makes a record and nothing else; `cpu add index` then takes the core in and onlines its threads,
  and is EINVAL if there is nothing to take in, or the core is there already;
- a record is read whole, once, by one read.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from vcpu_guest.core import cpulist

#: The captured record (tests/fixtures/rtas-hotplug-legacy.json) up to the action, and from there to the DRC index.
_HEAD = bytes.fromhex(
    "01000000063460e50000006c86008e00000000000000000049424d0050480030000000002026112220471800000000000000000048000003"
    "0000000000000000000000000000000000000000554800180000000080000000000000000000000000000000485000140100000001"
)
_ADD, _REMOVE = 1, 2


def record(action: int, drc_index: int) -> bytes:
    """One read of the log: the sequence number, the log, and zeros up to the fixed size."""
    return (_HEAD + bytes([action, 2, 0]) + drc_index.to_bytes(4, "big")).ljust(2052, b"\0")


class FakePapr:
    """Cores of `threads` threads; the first is there from the start."""

    def __init__(
        self, root: Path, *, cores: int = 4, threads: int = 2, modern: bool = False, arrivals: bool = False
    ) -> None:
        self.root = root
        self._arrivals = arrivals
        self.cpu_dir = root / "devices/system/cpu"
        self.threads = threads
        #: Cores that the hypervisor has plugged, by the low part of their connector's index: its first thread's number.
        self.plugged = {0: 0}
        self.owner: dict[int, int] = {}
        self.online: set[int] = set()
        #: All that was written to dlpar.
        self.orders: list[str] = []
        self.tell: Callable[[str, int], object] = lambda action, number: None
        self._reader, self._writer = os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
        self.log_path = f"/proc/self/fd/{self._reader}"
        self._possible = cores * threads
        for number in range(self._possible):
            self._put(f"cpu{number}/physical_id", "0")
        base = root / "firmware/devicetree/base"
        self._nodes = base / "cpus"
        self._nodes.mkdir(parents=True)
        (self.cpu_dir / "cpu0/of_node").symlink_to(self._node(0))
        (base / "device_type").write_bytes(b"chrp\0")
        if modern:
            (base / "event-sources/hot-plug-events").mkdir(parents=True)
        self._put("smt/control", "notimplemented")
        self._take_in(0)

    # -- the hypervisor's side ---------------------------------------------------------------------------------------

    def plug(self, core: int, *, lost: bool = False) -> None:
        """device_add of a core, by the low part of its connector's index; its record may be `lost`."""
        self.plugged[core] = max(self.plugged.values()) + self.threads if self._arrivals else core
        if not lost:
            self.log(record(_ADD, 0x10000000 | core))

    def unplug(self, core: int) -> None:
        """device_del."""
        self.log(record(_REMOVE, 0x10000000 | core))

    def log(self, data: bytes) -> None:
        """One record, whatever it says."""
        os.write(self._writer, data)

    # -- what a kernel with modern events does by itself -------------------------------------------------------------

    def arrive(self, core: int, first: int) -> None:
        """The hypervisor has plugged a core, whose first thread has this number: it is taken in, and goes online."""
        self.plugged[core] = first
        self._take_in(core)

    def leave(self, core: int) -> None:
        """The hypervisor wants a core back: it goes offline, and is let go."""
        self._let_go(core)

    # -- what is asked of the kernel ---------------------------------------------------------------------------------

    def write(self, path: str, data: bytes) -> None:
        """vcpu_guest.kernel.sysfs.Write, for dlpar and for cpuN/online."""
        if path.endswith("/dlpar"):
            self.orders.append(data.decode())
            kind, verb, how, index = data.decode().split()
            core = int(index, 16) & 0xFFFFFFF
            has = self._node(core).exists()
            if (kind, how) != ("cpu", "index") or has == (verb == "add") or core not in self.plugged:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            (self._take_in if verb == "add" else self._let_go)(core)
            return
        number = int(Path(path).parent.name.removeprefix("cpu"))
        if data == b"0" and self.online == {number}:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        (self.online.add if data == b"1" else self.online.discard)(number)
        self._show()
        self.tell("online" if data == b"1" else "offline", number)

    def _node(self, core: int) -> Path:
        return self._nodes / f"PowerPC,POWER9@{self.plugged.get(core, core):x}"

    def _take_in(self, core: int) -> None:
        first, node = self.plugged[core], self._node(core)
        servers = range(first, first + self.threads)
        node.mkdir()
        (node / "ibm,my-drc-index").write_bytes((0x10000000 | core).to_bytes(4, "big"))
        (node / "ibm,ppc-interrupt-server#s").write_bytes(b"".join(each.to_bytes(4, "big") for each in servers))
        free = (number for number in range(64) if number not in self.owner)
        numbers = [next(free) for _ in range(self.threads)]
        for server, number in zip(servers, numbers, strict=True):
            self.owner[number] = server
            self._put(f"cpu{number}/physical_id", str(server))
        self.online.update(numbers)
        self._show()
        for number in numbers:
            self.tell("online", number)

    def _let_go(self, core: int) -> None:
        self.take_offline(core)
        self.detach(core)

    def _numbers(self, core: int) -> list[int]:
        first = self.plugged[core]
        return [number for number, server in self.owner.items() if first <= server < first + self.threads]

    def take_offline(self, core: int) -> None:
        """The first half of a removal, of which the kernel tells."""
        numbers = self._numbers(core)
        self.online.difference_update(numbers)
        self._show()
        for number in numbers:
            self.tell("offline", number)

    def detach(self, core: int) -> None:
        """The second half, of which it does not."""
        for number in self._numbers(core):
            del self.owner[number]
            self._put(f"cpu{number}/physical_id", "-1")
        self._show()
        shutil.rmtree(self._node(core))
        del self.plugged[core]

    def _show(self) -> None:
        self._put("present", cpulist.render(self.owner))
        self._put("online", cpulist.render(self.online))
        for number in range(self._possible):
            self._put(f"cpu{number}/online", "1" if number in self.online else "0")

    def _put(self, name: str, text: str) -> None:
        path = self.cpu_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = path.with_name(f".{path.name}")
        staging.write_text(text + "\n")
        staging.replace(path)

    def close(self) -> None:
        """No more records."""
        os.close(self._writer)
        os.close(self._reader)
