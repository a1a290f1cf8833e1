# SPDX-License-Identifier: Apache-2.0
"""A /sys/devices/system/cpu that behaves like an x86 kernel's, quirks included, and answers for the kernel.

`FakeKernel(root)` makes the tree. What the kernel does by itself is a method: `add`, `bind`, `remove`. What the agent
does comes in through `write`, which is `vcpu_guest.kernel.sysfs.Write`, or over a socket (`kernel_socket`) for one in
a process of its own. Quirks kept:

- cpu0 has no `online` file; `nohz_full` says "(null)" for none; `offline`, which the agent does not read, is not there;
- `firmware_node` comes after the `add` event, with `bind` (`late=True` keeps it away until `bind` is called); without
  ACPI there is none;
- the `remove` event comes before the directory goes (`linger=True` keeps it until `reap` is called);
- `topology` has files only while the CPU is online; a directory that comes back is another inode;
- a write can be refused by rule (`refuse`), and held (`released.clear()`) as the real one can take seconds. Meanwhile
  whoever reads that CPU's `online` waits for the write's end: reading takes the device's lock (drivers/base/core.c,
  online_show), which the write holds. If the CPU goes meanwhile, the write fails, and who reads waits no more;
- opening for that can be denied (`deny`), as by a mount or a security module;
- the counters of ACPI's events are there (drivers/acpi/sysfs.c, counter_show). `deafen` leaves one pending that nobody
  handles, as a wake from S3 can: the kernel then hears of no CPU that comes or is to go.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

from kit.fakes.programs import react
from vcpu_guest.core import cpulist
from vcpu_guest.kernel.sysfs import NotOpenedError

#: The switch for ejections, below the root.
EJECT = "firmware/acpi/hotplug/processor/enabled"
#: The counters of ACPI's events, below the root; and those of q35 that its GPE of CPU hotplug can tell from.
EVENTS = "firmware/acpi/interrupts"
GPE = "gpe02"
_COUNTERS = {
    "sci": "       3",
    "gpe_all": "       0",
    "ff_pwr_btn": "       0  EN     enabled      unmasked",
    "gpe00": "       0         invalid      unmasked",
    "gpe01": "       0         disabled     unmasked",
    GPE: "       0  EN     enabled      unmasked",
}

Listener = Callable[[str, int], object]


def firmware_path(slot: int) -> str:
    """How QEMU names the ACPI object of a slot, as Linux shows it."""
    return f"\\_SB_.CPUS.C{slot:03X}"


def old_path(slot: int) -> str:
    """The same on machine types from before 2.7, where APIC ids have no gaps."""
    return f"\\_SB_.CP{slot:02X}"


def firmware_id(slot: int) -> str:
    """How the agent names it."""
    return f"acpi:{firmware_path(slot)}"


class FakeKernel:
    """One guest's kernel, as seen through sysfs, uevents and the writes that it answers."""

    def __init__(
        self,
        root: Path,
        *,
        possible: int = 16,
        boot: Iterable[int] = (0,),
        acpi: bool = True,
        named: Callable[[int], str] = firmware_path,
    ) -> None:
        self.root = root
        self._named = named
        self.cpu_dir = root / "devices/system/cpu"
        self._cpus = f"{self.cpu_dir}/cpu"  # as a text: pathlib would be a fifth of what an addition costs
        self.slots: dict[int, int] = {}
        self.online: set[int] = set()
        self.possible = possible
        self.acpi = acpi
        #: Whether it gets no interrupt of ACPI's any more.
        self.deaf = False
        #: (number, goal) to the errno with which writing is refused from now on.
        self.refusals: dict[tuple[int, bool], int] = {}
        #: Every write that came in: (number, goal).
        self.writes: list[tuple[int, bool]] = []
        #: Every write of the switch for ejections that came in, and the errno with which it is refused from now on.
        self.ejects: list[bool] = []
        self.eject_refusal = 0
        #: The errno with which files may not be opened for writing from now on, 0 if they may.
        self.denial = 0
        #: Writes that take this many seconds at most wait for it to be set; set by default.
        self.released = threading.Event()
        self.released.set()
        #: Set once a write is held.
        self.holding = threading.Event()
        self._lock = threading.RLock()
        #: The `online` files of which a write is held.
        self._held: set[str] = set()
        self._listeners: list[Listener] = []
        self._graves = 0
        #: Numbers as files, each made once: what a CPU shows while it is online is linked to them.
        self._numbers: dict[int, str] = {}
        self._make_files()
        for slot in boot:
            number = self.add(slot)
            self.online.add(number)
            self._show(number)
        self._lists()

    def _make_files(self) -> None:
        """Make all that is not of one CPU."""
        root, possible, acpi = self.root, self.possible, self.acpi
        self.cpu_dir.mkdir(parents=True)
        (self.cpu_dir / ".numbers").mkdir()
        for name, text in (("possible", f"0-{possible - 1}"), ("kernel_max", "8191"), ("isolated", "")):
            self._put(f"{self.cpu_dir}/{name}", text)
        self._put(f"{self.cpu_dir}/nohz_full", "  (null)")
        (self.cpu_dir / "cpufreq").mkdir()
        (root / "firmware").mkdir()
        for name, text in (
            ("devices/system/clocksource/clocksource0/current_clocksource", "tsc"),
            *(((EJECT, "1"), *((f"{EVENTS}/{name}", text) for name, text in _COUNTERS.items())) if acpi else ()),
            ("devices/system/cpu/uevent", ""),
            ("devices/system/cpu/modalias", "cpu:type:x86,ven0000fam0006mod0055:feature:,0000,0068,009F,00C0"),
            ("devices/system/cpu/smt/control", "on"),
        ):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            self._put(f"{root}/{name}", text)

    # -- what the kernel does by itself ------------------------------------------------------------------------------

    def add(self, slot: int, number: int | None = None, *, late: bool = False) -> int:
        """Register a CPU, as after device_add; its number. It is the lowest free one unless given."""
        with self._lock:
            if number is None:
                number = next(n for n in range(self.possible) if n not in self.slots)
            self.slots[number] = slot
            staging = f"{self.cpu_dir}/.new{number}"
            for directory in (staging, f"{staging}/topology", f"{staging}/node0"):
                os.mkdir(directory)
            if number:
                _write(f"{staging}/online", "0")
            os.rename(staging, f"{self._cpus}{number}")
            self._lists("present")
        self.tell("add", number)
        if not late and self.acpi:
            self.bind(number)
        return number

    def bind(self, number: int) -> None:
        """Link the CPU to its firmware object."""
        staging = f"{self.cpu_dir}/.node{number}"
        os.mkdir(staging)
        _write(f"{staging}/path", self._named(self.slots[number]))
        os.rename(staging, f"{self._cpus}{number}/firmware_node")
        self.tell("bind", number)

    def remove(self, number: int, *, linger: bool = False) -> None:
        """Take a CPU away, as after device_del; the kernel itself takes it offline first."""
        with self._lock:
            self._let_read(f"{self._cpus}{number}/online")
            was_online = number in self.online
            self.online.discard(number)
            self._show(number)
            del self.slots[number]
            self._lists("present", *(("online",) if was_online else ()))
            react(self.root.parent)
        if was_online:
            self.tell("offline", number)
        self.tell("unbind", number)
        self.tell("remove", number)
        if not linger:
            self.reap(number)

    def reap(self, number: int) -> None:
        """The directory goes. Its inode is kept, so that none that comes later gets the same."""
        with self._lock:
            self._graves += 1
            os.rename(f"{self._cpus}{number}", f"{self._cpus[:-3]}.grave{self._graves}")

    def tell(self, action: str, number: int) -> None:
        """Send a uevent, as `add` and the others do by themselves."""
        for listener in list(self._listeners):
            listener(action, number)

    def listen(self, listener: Listener) -> None:
        """From now on `listener` gets every uevent, in the thread that causes it."""
        self._listeners.append(listener)

    def mute(self) -> None:
        """Nobody hears of anything any more: events are lost."""
        self._listeners.clear()

    # -- what is asked of the kernel ---------------------------------------------------------------------------------

    def refuse(self, number: int, code: int, *, online: bool) -> None:
        """From now on writing this goal fails with errno `code`."""
        self.refusals[number, online] = code

    def deny(self, code: int) -> None:
        """From now on nothing may be opened for writing: EROFS as by a mount, EACCES as by a security module."""
        self.denial = code

    def deafen(self, *, on: bool = True) -> None:
        """From now on, or no longer, an event of ACPI's is pending and nobody handles it."""
        self.deaf = on
        self.count(GPE, 0, pending=on)

    def count(self, name: str, events: int, *, pending: bool = False) -> None:
        """Set a counter of ACPI's events, and whether one that is enabled is pending."""
        flags = "" if name == "sci" else f"  EN {'STS' if pending else '   '} enabled      unmasked"
        self._put(f"{self.root}/{EVENTS}/{name}", f"{events:8}{flags}")

    def set_list(self, name: str, text: str) -> None:
        """Set one of the lists that tests choose: "isolated", "nohz_full", or "smt/control"."""
        self._put(f"{self.cpu_dir}/{name}", text)

    def write(self, path: str, data: bytes) -> None:
        """What writing the attribute does. Raises OSError as the kernel would."""
        self.attempt(path)
        if path.endswith(EJECT):
            self._write_eject(path, data)
            return
        number, goal = int(path.rsplit("/", 2)[1].removeprefix("cpu")), data.strip() == b"1"
        self.writes.append((number, goal))
        gone = not self.released.is_set() and not self._wait_for_release(path)
        with self._lock:
            self._answer(path, number, goal, gone=gone)
            if (number in self.online) == goal:
                return
            (self.online.add if goal else self.online.discard)(number)
            self._show(number)
            self._lists("online")
            react(self.root.parent)
        self.tell("online" if goal else "offline", number)

    def _wait_for_release(self, path: str) -> bool:
        """Hold the write of a CPU's `online` until it is released; whether the CPU still is the one that it was."""
        with self._lock:
            cpu = _inode(path)
            if cpu is not None and path not in self._held:
                # A pipe in the file's place: who opens it waits for somebody at the other end.
                os.link(path, _kept(path))
                os.mkfifo(f"{path}.fifo")
                os.replace(f"{path}.fifo", path)
                self._held.add(path)
        self.holding.set()
        self.released.wait(60)
        with self._lock:
            self._let_read(path)
            return cpu == _inode(path)

    def _let_read(self, path: str) -> None:
        """End the hold on reading this file, if there is one."""
        if path in self._held:
            self._held.discard(path)
            end = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # who waits goes on
            os.replace(_kept(path), path)
            os.close(end)

    def attempt(self, path: str) -> None:
        """What opening it for writing does: `vcpu_guest.kernel.sysfs.Try`."""
        if self.denial:
            raise NotOpenedError(self.denial, os.strerror(self.denial), path)

    def _write_eject(self, path: str, data: bytes) -> None:
        if self.eject_refusal:
            raise OSError(self.eject_refusal, os.strerror(self.eject_refusal), path)
        self._put(path, data.decode().strip())
        self.ejects.append(data.strip() == b"1")

    def _answer(self, path: str, number: int, goal: bool, *, gone: bool) -> None:
        if gone or not os.path.exists(path):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        code = self.refusals.get((number, goal), 0)
        if number not in self.slots:
            code = errno.EINVAL
        if not goal and self.online == {number}:
            code = errno.EBUSY
        if code:
            raise OSError(code, os.strerror(code), path)

    # -- files -------------------------------------------------------------------------------------------------------

    def _show(self, number: int) -> None:
        directory = f"{self._cpus}{number}"
        online = number in self.online
        if number:
            _write(f"{directory}/online", "1" if online else "0")
        for name, value in (("physical_package_id", 0), ("die_id", 0), ("core_id", self.slots[number])):
            if online:
                os.link(self._number(value), f"{directory}/topology/{name}")
            else:
                with suppress(FileNotFoundError):
                    os.unlink(f"{directory}/topology/{name}")

    def _number(self, value: int) -> str:
        if value not in self._numbers:
            path = self._numbers[value] = f"{self.cpu_dir}/.numbers/{value}"
            _write(path, str(value))
        return self._numbers[value]

    def _lists(self, *names: str) -> None:
        """Write these lists anew, or both."""
        for name in names or ("present", "online"):
            self._put(f"{self.cpu_dir}/{name}", _list(self.slots.keys() if name == "present" else self.online))

    def _put(self, path: str, text: str) -> None:
        # A reader sees the old text or the new one, as with the kernel's own files.
        folder, _, name = path.rpartition("/")
        staging = f"{folder}/.{name}.{threading.get_ident()}"
        _write(staging, text)
        os.replace(staging, path)

    def close(self) -> None:
        """Release a write that is held, and take the tree away."""
        self.released.set()
        shutil.rmtree(self.root, ignore_errors=True)


def _kept(path: str) -> str:
    """Where a file is while a pipe has its place."""
    return f"{path.rpartition('/')[0]}/.online"


def _inode(path: str) -> int | None:
    """Which CPU's folder a file is in; None if that is not there."""
    try:
        return os.stat(path.rpartition("/")[0]).st_ino
    except FileNotFoundError:
        return None


def _list(numbers: Collection[int]) -> str:
    """The kernel's list of them; the one without a hole, which is the most frequent, without looking at each."""
    count = len(numbers)
    return f"0-{count - 1}" if count > 1 and max(numbers) == count - 1 else cpulist.render(numbers)


def _write(path: str, text: str) -> None:
    """Write a file that nobody sees yet, or another text of the same length in its place, which is seen at once."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.write(file, text.encode() + b"\n")
    finally:
        os.close(file)
