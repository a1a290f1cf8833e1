# SPDX-License-Identifier: Apache-2.0
"""The faults, done: each by the lab's monitor, the guest's console shell, or a signal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping

from kit.chaos.choice import Fault, When
from kit.chaos.command import Command
from kit.chaos.home import pause
from kit.chaos.world import EJECT, FOREIGN, FOREIGN_FILE, PID, PRESSURE, World, name_of
from kit.e2e.load import begin_onliner
from kit.lab import ShellError
from kit.lab.spec import AGENT_PORT

#: Nine tenths of a CPU: two of them are admitted on two CPUs and do not fit on one (tests/e2e/test_refusals.py).
_HOG = (
    "systemd-run --quiet --collect --unit={name} "
    "chrt -d --sched-runtime 900000000 --sched-deadline 1000000000 --sched-period 1000000000 0 sleep 900"
)
#: Leaves the guest so many MB.
_LEFT_MB = 64
_FILL = (
    "mb=$(awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo); "
    f"[ $mb -le {_LEFT_MB} ] || head -c $((mb - {_LEFT_MB}))M /dev/zero >{PRESSURE}"
)
_CPUS = "/sys/devices/system/cpu"


class Faults:
    """Does the faults of one turn. ``operation`` is the process under way, None before it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.operation: Command | None = None
        #: Other vcpuctl processes that were started.
        self.others: list[Command] = []
        self._deeds: Mapping[str, Callable[[Fault], None]] = {
            "kill-vcpuctl": self._kill_vcpuctl,
            "stop-vcpuctl": self._stop_vcpuctl,
            "second-vcpuctl": self._second_vcpuctl,
            "kill-vcpud": self._kill_vcpud,
            "stop-vcpud": self._stop_vcpud,
            "pause": self._pause,
            "link-garbage-guest": self._link_garbage_guest,
            "guest-offline": self._guest_offline,
            "guest-online": self._guest_online,
            "onliner": self._onliner,
            "revert": self._revert,
            "foreign-name": self._foreign_name,
            "refuse-deadline": self._refuse_deadline,
            "refuse-eject": self._refuse_eject,
            "memory": self._memory,
            "move": self._move,
            "reboot": self._reboot,
            "reset": self._reset,
        }

    def do(self, fault: Fault) -> None:
        """Do one. LabError if the VM is not there any more to do it to."""
        if fault.name in self._world.home.deeds:
            self._world.home.deeds[fault.name](fault, self._let_pass)
        else:
            self._deeds[fault.name](fault)

    def _let_pass(self, seconds: float) -> None:
        """So long, or until the operation has ended, which has then nothing more to be disturbed in."""
        if self.operation is None:
            pause(seconds)
        else:
            self.operation.wait(seconds)

    # -- the host ----------------------------------------------------------------------------------------------------

    def _kill_vcpuctl(self, _fault: Fault) -> None:
        assert self.operation is not None
        self.operation.kill()

    def _stop_vcpuctl(self, fault: Fault) -> None:
        assert self.operation is not None
        self.operation.stop()
        pause(fault.seconds if self.operation.running else 0.0)
        self.operation.go_on()

    def _second_vcpuctl(self, fault: Fault) -> None:
        self.others.append(Command(self._world.options, fault.words, 30, self._world.home.environment))

    # -- QEMU --------------------------------------------------------------------------------------------------------

    def _pause(self, fault: Fault) -> None:
        self._world.vm.qmp.execute("stop")
        self._let_pass(fault.seconds)
        self._world.vm.qmp.execute("cont")

    def _move(self, fault: Fault) -> None:
        # While it is moved, nobody may change what the new QEMU must be started with.
        if self.operation is not None:
            self.operation.stop()
        self._world.move()
        if self.operation is not None:
            self.operation.go_on()

    def _revert(self, _fault: Fault) -> None:
        self._world.home.revert()

    def _reset(self, _fault: Fault) -> None:
        self._world.vm.shell("sync", 60.0)
        asked = time.monotonic()
        self._world.vm.qmp.execute("system_reset")
        self._world.wait_reset(asked)

    # -- the guest ---------------------------------------------------------------------------------------------------

    def _reboot(self, _fault: Fault) -> None:
        asked = time.monotonic()
        self._world.vm.shell("sync; (busybox usleep 1000; reboot -ff) >/dev/null 2>&1 </dev/null &", 60.0)
        self._world.wait_reset(asked)

    def _kill_vcpud(self, _fault: Fault) -> None:
        self._tolerant(f"kill -KILL {PID}")

    def _stop_vcpud(self, fault: Fault) -> None:
        self._tolerant(f"kill -STOP {PID}")
        if fault.when is not When.BEFORE:
            self._let_pass(fault.seconds)
            self._tolerant(f"kill -CONT {PID}")
        else:
            # into the operation
            seconds = fault.seconds
            self._world.vm.shell(f"pid={PID}; (sleep {seconds}; kill -CONT $pid) >/dev/null 2>&1 </dev/null &")

    def _link_garbage_guest(self, fault: Fault) -> None:
        vm = self._world.vm
        vm.put(fault.data, "/run/garbage")
        port = f"/dev/virtio-ports/{AGENT_PORT}"
        write = f"timeout 2 dd if=/run/garbage of={port} bs=4096 oflag=nonblock conv=notrunc,nocreat"
        vm.shell(f"systemctl stop vcpud; {write} 2>/dev/null; rm /run/garbage; systemctl start --no-block vcpud", 60.0)

    def _guest_offline(self, fault: Fault) -> None:
        self._switch(fault.slot, 0)

    def _guest_online(self, fault: Fault) -> None:
        self._switch(fault.slot, 1)

    def _switch(self, slot: int, value: int) -> None:
        numbers = self._world.see().cpus.get(slot, {})
        if numbers:
            name = f"{_CPUS}/cpu{min(numbers)}/online"
            self._tolerant(f"[ ! -e {name} ] || echo {value} >{name}")

    def _onliner(self, fault: Fault) -> None:
        begin_onliner(self._world.vm, fault.interval)

    def _foreign_name(self, fault: Fault) -> None:
        # A file laid over the firmware's own; whoever looks at the CPU from now on sees that.
        for number in self._world.see().cpus.get(fault.slot, {}):
            self._tolerant(f"echo '{FOREIGN}' >{FOREIGN_FILE}; mount --bind {FOREIGN_FILE} {name_of(number)}")

    def _refuse_deadline(self, _fault: Fault) -> None:
        # Admitted on two CPUs only; the kernel may say no.
        self._world.reserved = True
        self._tolerant("; ".join(_HOG.format(name=f"chaos-hog{number}") for number in (1, 2)))

    def _refuse_eject(self, _fault: Fault) -> None:
        self._world.vm.shell(f"echo 0 >{EJECT}")

    def _memory(self, _fault: Fault) -> None:
        self._tolerant(_FILL, 90.0)

    def _tolerant(self, command: str, timeout: float = 20.0) -> None:
        """What the guest may refuse, for reasons that other faults made."""
        with contextlib.suppress(ShellError):
            self._world.vm.shell(command, timeout)
