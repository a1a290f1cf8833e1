# SPDX-License-Identifier: Apache-2.0
"""The faults, done: each by the lab's monitor, the guest's console shell, or a signal."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping

from kit.chaos.choice import Fault, When
from kit.chaos.command import Command
from kit.chaos.world import EJECT, FOREIGN, FOREIGN_FILE, PID, PRESSURE, World, name_of, pause
from kit.e2e.load import begin_onliner
from kit.lab import QmpError, ShellError
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
#: Seconds to connect to a port that may be taken.
_CONNECT = 2.0


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
            "link-drop": self._link_drop,
            "link-garbage-host": self._link_garbage_host,
            "link-garbage-guest": self._link_garbage_guest,
            "raw-add": self._raw_add,
            "raw-del": self._raw_del,
            "guest-offline": self._guest_offline,
            "guest-online": self._guest_online,
            "onliner": self._onliner,
            "revert": self._revert,
            "foreign-name": self._foreign_name,
            "taken-id": self._taken_id,
            "refuse-deadline": self._refuse_deadline,
            "refuse-eject": self._refuse_eject,
            "memory": self._memory,
            "move": self._move,
            "reboot": self._reboot,
            "reset": self._reset,
        }

    def do(self, fault: Fault) -> None:
        """Do one. LabError if the VM is not there any more to do it to."""
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
        self.others.append(Command(self._world.monitor, fault.words, 30))

    def _connect(self, data: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as port:
            port.settimeout(_CONNECT)
            # taken by somebody, as it may be
            with contextlib.suppress(OSError):
                port.connect(str(self._world.vm.agent_socket))
                port.sendall(data)

    def _link_drop(self, _fault: Fault) -> None:
        self._connect(b"")

    def _link_garbage_host(self, fault: Fault) -> None:
        self._connect(fault.data)

    # -- QEMU --------------------------------------------------------------------------------------------------------

    def _pause(self, fault: Fault) -> None:
        self._world.vm.qmp.execute("stop")
        self._let_pass(fault.seconds)
        self._world.vm.qmp.execute("cont")

    def _raw_add(self, fault: Fault) -> None:
        entry = self._world.vm.qmp.execute("query-hotpluggable-cpus")[-1 - fault.slot]
        # Sometimes under the name that vcpuctl would give it, sometimes not.
        name = f"{'vcpu' if fault.seconds < 2.0 else 'chaos'}-{fault.slot}"
        with contextlib.suppress(QmpError):  # the slot is taken
            self._world.vm.qmp.execute("device_add", driver=entry["type"], id=name, **entry["props"])

    def _raw_del(self, fault: Fault) -> None:
        entry = self._world.vm.qmp.execute("query-hotpluggable-cpus")[-1 - fault.slot]
        name = str(entry.get("qom-path", "")).rpartition("/")[2]
        with contextlib.suppress(QmpError):  # the slot is empty
            self._world.vm.qmp.execute("device_del", id=name or f"vcpu-{fault.slot}")
            self._world.removals.append(name)
            self._world.taken.discard(name or f"vcpu-{fault.slot}")

    def _move(self, fault: Fault) -> None:
        # While it is moved, nobody may change what the new QEMU must be started with.
        if self.operation is not None:
            self.operation.stop()
        self._world.move()
        if self.operation is not None:
            self.operation.go_on()

    def _revert(self, _fault: Fault) -> None:
        self._world.revert()

    def _taken_id(self, fault: Fault) -> None:
        # a port, since its bus takes one on every machine
        with contextlib.suppress(QmpError):  # the slot's CPU has it
            taken = f"vcpu-{fault.slot}"
            self._world.vm.qmp.execute("device_add", driver="virtserialport", id=taken, bus="lab-serial.0", name=taken)
            self._world.taken.add(taken)

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
