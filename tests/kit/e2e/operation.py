# SPDX-License-Identifier: Apache-2.0
"""A ``vcpuctl`` under way on a VM, and the moments of its work that a fault can be set to.

The moments come from the VM's own record (what QEMU was told, what the guest's kernel said), so they are the same
however quick or busy the machine is.
"""

from __future__ import annotations

import signal
import subprocess
import time
from types import TracebackType
from typing import Self

from kit.e2e.machine import Machine
from kit.ended import Ended
from kit.lab import WaitTimeoutError

#: Seconds that a command may take to begin its work (Python's start on a busy machine, and the first look).
BEGIN = 20.0

#: Shell in the guest: the agent's main process.
PID = "$(systemctl show -P MainPID vcpud)"
#: Shell in the guest: its third CPU has just been registered.
ARRIVED = "[ -e /sys/devices/system/cpu/cpu2 ]"


def when(machine: Machine, condition: str, deed: str) -> None:
    """Have the guest do the deed, which may use ``$pid``, as soon as the condition, which costs no process, holds."""
    watch = f"until {condition}; do busybox usleep 5000; done; {deed}"
    machine.vm.shell(f"pid={PID}; ({watch}) >/dev/null 2>&1 </dev/null &")


class Operation:
    """``with Operation(machine, "scale", "4") as under_way``: started at once, and gone at the end of the block."""

    def __init__(self, machine: Machine, *words: str) -> None:
        self._vm = machine.vm
        self._before = len(self._vm.qmp_commands())
        self.began = time.monotonic()
        self.process = machine.vcpuctl.start(*words)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def told(self, command: str, slot: int) -> None:
        """QEMU has just been told this of the slot by this operation."""
        self._until(lambda: self._has_told(command, slot), f"{command} of slot {slot}")

    def _has_told(self, command: str, slot: int) -> bool:
        mine = self._vm.qmp_commands()[self._before :]
        return any(c["execute"] == command and c.get("arguments", {}).get("id") == f"vcpu-{slot}" for _, c in mine)

    def booting(self, slot: int) -> None:
        """The guest's kernel is in the middle of bringing the slot's CPU online (smpboot.c, announce_cpu)."""
        self._vm.wait_kernel(rf"Booting Node \d+ Processor \d+ APIC 0x{slot:x}\b", BEGIN, since=self.began)

    def offline(self, number: int) -> None:
        """The guest's kernel has just taken its CPU ``number`` down."""
        self._vm.wait_kernel(rf"CPU {number} is now offline", BEGIN, since=self.began)

    def _until(self, condition: object, what: str) -> None:
        assert callable(condition)
        if not self._vm.record.wait(lambda: bool(condition()), BEGIN):
            raise WaitTimeoutError(f"no {what} within {BEGIN} s\n{self._vm.record.tail()}")

    def stays(self, seconds: float) -> None:
        """Watch it for so long, in which it must not end."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        raise AssertionError(f"it ended with {self.process.returncode}")

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL: no last words."""
        self.process.kill()

    def ends(self, *, within: float) -> Ended:
        """How it ended, which must be within so many seconds from its start."""
        left = within - (time.monotonic() - self.began)
        stdout, stderr = self.process.communicate(timeout=max(0.1, left))
        return Ended(self.process.returncode, stdout, stderr)


def run(machine: Machine, *words: str, within: float) -> Ended:
    """A command from start to end, in bounded time."""
    with Operation(machine, *words) as operation:
        return operation.ends(within=within)
