# SPDX-License-Identifier: Apache-2.0
"""The online latch: a CPU that was taken offline for its ejection stays offline until it has gone.

Something in a guest may bring every CPU online that it finds offline (a cron job, a CPU manager), also in the moment
between the agent's last look and the host's device_del. The kernel has a switch for one failure of a CPU's next start,
hotplug/fail (kernel/cpu.c, write_cpuhp_fail): whoever tries gets EAGAIN, once, and before anything of the CPU has been
touched. The agent sets it when a CPU has gone offline for an ejection, and sets it again whenever it looks and finds it
used up. It takes it back when the CPU is to come online, when the host's stream ends, and when a CPU comes: the kernel
keeps the setting by logical number, beyond the CPU's removal. Where a udev rule brings CPUs online as they come, the
rule would meet the setting first, so the latch is not used there.
"""

from __future__ import annotations

import threading
import time

from vcpu_guest import logs
from vcpu_guest.sysfs import Sysfs

#: The first step of a CPU's start: when it fails there is nothing to roll back (include/linux/cpuhotplug.h,
#: CPUHP_CREATE_THREADS). Its number is looked up by this name.
_FIRST_STEP = "threads:prepare"
_NONE = -1
#: Seconds from look to look while a CPU is held, so that somebody who tries again and again finds it set again; and the
#: part of the time that looking may take, with many CPUs.
_INTERVAL, _SHARE = 0.015, 0.1


class OnlineLatch:
    """Used from the event loop and from the writer's thread."""

    def __init__(self, sysfs: Sysfs, *, used: bool = True) -> None:
        """``used`` is False where the platform's kernel brings CPUs online by itself."""
        self._sysfs = sysfs
        self._step = sysfs.hotplug_step(_FIRST_STEP) if used else None
        self._lock = threading.Lock()
        self._held: set[int] = set()
        self._holds = threading.Event()
        self._thread: threading.Thread | None = None
        #: Whether it may be used now; without it a CPU can come back unnoticed for a moment, which the host looks for.
        self.allowed = True

    def hold(self, number: int) -> None:
        """Keep cpuN, which is offline, from coming online."""
        if self._step is None or not self.allowed:
            return
        with self._lock:
            if not self._set(number):
                return
            self._held.add(number)
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="online latch", daemon=True)
                self._thread.start()
        self._holds.set()

    def _keep(self) -> None:
        """Renew while anything is held; for as long as the agent lives, since the next removal begins like this one."""
        while True:
            self._holds.wait()
            began = time.monotonic()
            self.renew()
            with self._lock:
                if not self._held:
                    self._holds.clear()
            time.sleep(max(_INTERVAL, (time.monotonic() - began) / _SHARE))

    def renew(self) -> None:
        """Hold those again for which somebody has used the failure up: each time is worth a line in the log."""
        with self._lock:
            for number in sorted(self._held):
                value = self._sysfs.read_fail(number)
                if value == self._step:
                    continue
                self._held.discard(number)
                if value is not None and self._set(number):
                    self._held.add(number)
                    logs.warning("somebody tried to bring a CPU online that is about to be ejected", cpu=number)

    def _set(self, number: int) -> bool:
        try:
            self._sysfs.write_fail(number, _NONE if self._step is None else self._step)
        except OSError as error:
            # EINVAL: it is online again by now; ENOENT: it has gone. The next look tells.
            logs.debug("not held offline", cpu=number, error=repr(error))
            return False
        return True

    def release(self, number: int) -> None:
        """Let cpuN come online, also if an agent before this one has held it."""
        if self._step is None:
            return
        with self._lock:
            self._held.discard(number)
            if self._sysfs.read_fail(number) == self._step:
                try:
                    self._sysfs.write_fail(number, _NONE)
                except OSError as error:
                    logs.warning("the next attempt to bring a CPU online will fail", cpu=number, error=repr(error))

    def release_all(self) -> None:
        """Nobody is about to eject anything any more."""
        for number in sorted(self._held):
            self.release(number)
