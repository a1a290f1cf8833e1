# SPDX-License-Identifier: Apache-2.0
"""The VM under chaos, by the lab's own eyes and hands: looked at, mended, restored, and its record kept."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kit.chaos import acpi, lapic
from kit.chaos.choice import Shape
from kit.chaos.home import Home, NotMendedError, QmpHome, pause
from kit.chaos.judge import Seen, see
from kit.e2e import guestfirst
from kit.e2e.guestfirst import Violation
from kit.e2e.load import ONLINER
from kit.lab import LabError, ShellError, Vm, WaitTimeoutError
from kit.lab.record import Record
from kit.lab.virt.domain import Domain
from kit.lab.vm import homeless

#: Seconds for a guest's whole restart, emulated on a busy machine, and for the agent's start after it.
BOOT, AGENT = 600.0, 120.0
#: Seconds in which a removal that was asked for behind the product's back is over, or never will be.
_REMOVAL = 15.0
EJECT = "/sys/firmware/acpi/hotplug/processor/enabled"
PRESSURE = "/dev/shm/chaos"
#: A name that no slot has, and where it lies in the guest to be laid over a CPU's own.
FOREIGN, FOREIGN_FILE = "\\_SB_.CPUS.CFFF", "/run/chaos-name"
_UNITS = "/sys/fs/cgroup/system.slice"


def name_of(number: int | str) -> str:
    """The guest's file with what its firmware calls a CPU of that number (x86)."""
    return f"/sys/devices/system/cpu/cpu{number}/firmware_node/path"


#: The agent's process, or nothing. Read where systemd keeps it: an emulated guest has its program systemctl started in
#: no less time than a whole look at its CPUs takes.
PID = f"$(read -r pid <{_UNITS}/vcpud.service/cgroup.procs && echo $pid)"
#: What faults left in the guest, undone, and then the agent: its process, resident memory (kB) and open descriptors.
_MEND = f"""[ ! -d {_UNITS}/{ONLINER} ] || systemctl stop {ONLINER}
[ ! -e {FOREIGN_FILE} ] || {{
    for file in {name_of("*")}; do while busybox umount $file 2>/dev/null; do :; done; done
    rm {FOREIGN_FILE}
}}
for hog in chaos-hog1 chaos-hog2; do
    [ ! -d {_UNITS}/$hog.service ] || systemctl stop $hog
done
[ ! -e {EJECT} ] || echo 1 >{EJECT}
[ ! -e {PRESSURE} ] || rm {PRESSURE}
kill -CONT {PID} 2>/dev/null
systemctl is-active --quiet vcpud || {{
    systemctl reset-failed vcpud
    systemctl start --no-block vcpud
    until systemctl is-active --quiet vcpud; do busybox usleep 200000; done
}}
pid={PID}
while read -r name value _; do [ $name != VmRSS: ] || rss=$value; done </proc/$pid/status
set -- /proc/$pid/fd/*
echo agent $pid $rss $#
"""
#: Seconds for a look at the guest while a device_del is held up: the shell's own bound, and its answer's after that.
_HOLD = (2.0, 1.0)
_SIZE = re.compile(r"^agent (\d+) (\d+) (\d+)$", re.MULTILINE)


class OwnTroubleError(Exception):
    """What is wrong is QEMU's or the guest's own, by their own words or the lab's own hands, and is named."""


@dataclass
class World:
    """``home`` is where the VM lives."""

    home: Home

    def __post_init__(self) -> None:
        self._commands: list[tuple[float, dict[str, Any]]] = []
        self._kernel: list[tuple[float, str]] = []
        self._known: set[Violation] = set()
        #: Whether this guest has had deadline reservations.
        self.reserved = False
        #: Lives and boots so far: a process's number counts in one boot alone.
        self._boots = 0
        self._mended = 0  # how many of these there were when all was well last
        #: CPUs may have come online since the last look without the console saying so.
        self._silent = False
        self._against: list[str] = []
        #: How often a device_del was held until the guest had been looked at, by what came of it; how often one came
        #: when something had just brought its CPU online again.
        self.held: Counter[str] = Counter()

    @property
    def vm(self) -> Vm | Domain:
        """The running VM."""
        return self.home.vm

    @property
    def shape(self) -> Shape:
        """What the choices depend on."""
        return self.home.shape

    @property
    def record(self) -> Record:
        """The record of the QEMU that runs."""
        return self.home.record

    @property
    def options(self) -> tuple[str, ...]:
        """vcpuctl's words for the VM."""
        return self.home.options(self._look_first)

    def commands(self) -> list[tuple[float, dict[str, Any]]]:
        """All that QEMU was told in this life, in all of its processes."""
        return [*self._commands, *self.home.commands()]

    def see(self) -> Seen:
        """Look at both sides."""
        reply = self.vm.qmp.execute("query-hotpluggable-cpus")
        return see(reply, self.vm.guest_cpus(), self.home.slot_of, self.shape.threads)

    def restore(self) -> None:
        """A new life, from the saved state."""
        self._commands, self._kernel, self._known = [], [], set()
        self.reserved = False
        self._boots += 1
        self.home.again()

    def move(self) -> None:
        """The VM goes on in a new QEMU, and its record with it."""

        def keep() -> None:
            self._commands += self.home.commands()
            self._kernel += self.vm.kernel_log

        self.home.move(keep)
        self._silent = True
        self.vm.wait_shell(60.0)

    def wait_reset(self, since: float) -> None:
        """Wait until the machine was reset after that moment. QEMU says it twice: the echo of an older one is none."""
        self._until(
            lambda: any(event.name == "RESET" and event.time >= since for event in self.vm.qmp.events()),
            60.0,
            "the machine is reset",
        )
        self._boots += 1
        self._silent = True

    def mend(self) -> tuple[tuple[int, ...], int, int]:
        """Wait until all faults are over and nothing stirs; NotMendedError, with what is wrong, if that does not come.

        The agent then: which process of the run it is, its resident memory (kB) and open descriptors. VmDiedError if
        QEMU has died of it.
        """
        self.home.release()
        if self.vm.qmp.execute("query-status")["status"] == "paused":
            self.vm.qmp.execute("cont")
        try:
            self.vm.wait_shell(BOOT)
        except WaitTimeoutError as error:
            raise NotMendedError(f"the guest's console does not answer: {error}") from error
        # A guest that has just booted has its shell long before its services, where the host is busy.
        within = AGENT if self._boots == self._mended else BOOT
        try:
            said = self.vm.shell(_MEND, within)
            self._until(self.home.agent_there, within, "the agent has its port open")
        except (WaitTimeoutError, ShellError) as error:
            raise NotMendedError(f"vcpud does not come back: {error}") from error
        self._mended = self._boots
        self._wait_removals()
        if self._silent:
            self._note(self.see())
            self._silent = False
        size = _SIZE.search(said)
        if size is None:
            raise NotMendedError(f"vcpud has gone again: {said}")
        pid, memory, descriptors = map(int, size.groups())
        return (self._boots, pid), memory, descriptors

    def guest_first(self) -> list[Violation | str]:
        """What the whole record of this life shows against promise 2, and against the host's devices; each once."""
        against, self._against = [*self._against, *self.home.misdeeds()], []
        if not self.home.traced:
            return [*against]
        kernel = [*self._kernel, *self.vm.kernel_log]
        found = guestfirst.find(self.commands(), kernel, self.home.smp)
        fresh = [violation for violation in found if violation not in self._known]
        self._known.update(fresh)
        return [*against, *fresh]

    def half_removed(self) -> list[str]:
        """vCPUs that QEMU still runs, although their slot is empty, while the guest stands still: a removal that hangs.

        Seen of pseries: the guest's CPU that asked for it waits in QEMU (pthread_join) for a vCPU's thread that sleeps.
        """
        if not self.home.alive or self.vm.qmp.closed:
            return []
        with suppress(WaitTimeoutError):
            self.vm.shell("true", 20.0)
            return []  # it goes on: whatever is wrong is not that
        qmp = self.vm.qmp
        return homeless(qmp.execute("query-hotpluggable-cpus"), qmp.execute("query-cpus-fast"))

    def interrupt_lost(self) -> str:
        """What shows that QEMU has lost an interrupt of the guest's, which may stand still by that; or ""."""
        if not self.home.alive or self.vm.qmp.closed:
            return ""
        with suppress(LabError):
            return lapic.lost(self.vm.qmp)
        return ""

    def deaf(self) -> str:
        """What shows that the guest does not hear its firmware any more, which nobody's word can mend; or ""."""
        if not isinstance(self.home, QmpHome) or not self.home.alive or self.home.vm.qmp.closed:
            return ""
        with suppress(LabError):
            return acpi.deaf(self.home.vm)
        return ""

    def guest_says_no(self, slots: Iterable[int]) -> str:
        """Whether the guest refuses to the lab too, for no reason that is left, to take a CPU of these slots offline.

        Linux 6.1 counts deadline reservations wrongly once a CPU went offline while there were some (it says "Device or
        resource busy" for ever, also when their tasks have ended): the words of its refusal, or "".
        """
        for slot in slots:
            for number in self.see().cpus.get(slot, {}):
                name = f"/sys/devices/system/cpu/cpu{number}/online"
                try:
                    # unlike sh, bash says which error it was
                    self.vm.shell(f"bash -c 'echo 0 >{name} && echo 1 >{name}'", 30.0)
                except ShellError as error:
                    return error.output.strip()
        return ""

    def _look_first(self, vm: Vm, command: Mapping[str, Any]) -> None:
        """Before a device_del is passed on: the guest, asked by the lab, must have the slot's threads offline."""
        if command.get("execute") != "device_del":
            return
        target = str(command.get("arguments", {}).get("id"))
        try:
            guest = vm.guest_cpus(*_HOLD)
            reply = vm.qmp.execute("query-hotpluggable-cpus")
        except LabError:
            self.held["not seen"] += 1  # paused, or in the middle of a boot: nobody can tell
            return
        self.held["seen"] += 1
        seen = see(reply, guest, self.home.slot_of, self.shape.threads)
        for slot, path in seen.filled.items():
            online = [number for number, up in seen.cpus.get(slot, {}).items() if up]
            if target in (path, path.rpartition("/")[2]) and online:
                self._against.append(f"device_del of {target}, slot {slot}, whose guest CPUs {online} were online")

    def qemu_version(self) -> str:
        """As QEMU says it."""
        version = self.vm.qmp.execute("query-version")["qemu"]
        return ".".join(str(version[part]) for part in ("major", "minor", "micro"))

    def _note(self, seen: Seen) -> None:
        """The console is silent about CPUs that come online in a boot, or before a move: what was seen is added."""
        now = time.monotonic()
        for slot, cpus in seen.cpus.items():
            for number, online in cpus.items():
                line = (
                    f"Booting Node 0 Processor {number} APIC 0x{slot:x}" if online else f"CPU {number} is now offline"
                )
                self._kernel.append((now, line))

    def _wait_removals(self) -> None:
        for target in self.home.removals:
            try:
                self._until(partial(self._gone, target), _REMOVAL, f"{target} is gone")
            except WaitTimeoutError:
                continue  # refused by the guest, or lost with a restart: it stays, which is no fault of anybody
        self.home.removals.clear()

    def _gone(self, target: str) -> bool:
        slots = self.vm.qmp.execute("query-hotpluggable-cpus")
        return all(slot.get("qom-path") != f"/machine/peripheral/{target}" for slot in slots)

    def _until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise WaitTimeoutError(f"not within {seconds:.0f} s: {what}\n{self.record.tail()}")
            pause(0.1)


def names(directory: Path) -> set[str]:
    """What lies in a directory, if it is there."""
    return {path.name for path in directory.iterdir()} if directory.is_dir() else set()
