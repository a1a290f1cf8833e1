# SPDX-License-Identifier: Apache-2.0
"""PAPR guests with legacy events: takes hotplug records from the RTAS log, and does as they say.

The kernel only logs such an event and leaves the work to user space (arch/powerpc/platforms/pseries/ras.c); what to do
is then written to the kernel's dlpar file (pseries/dlpar.c), which takes in or lets go of the whole core, its threads
online or offline with it. Each record can be read once, by one reader. Where rtas_errd, which does the same, is
running, nothing is done here. Lost records cost time only, and so does a log that is not there: who waits for a CPU has
it summoned.

After a restart the kernel logs the last record of before once more, out of NVRAM (arch/powerpc/kernel/rtasd.c,
rtas_event_scan). So a removal that is found at the start, and is older than this boot, is not done to a core that is in
use.

This module alone opens the log and the dlpar file.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from vcpu_guest import logs
from vcpu_guest.core import rtas_records
from vcpu_guest.core.reasons import denial, name_of
from vcpu_guest.core.rtas_records import Action, HotplugEvent, RtasError
from vcpu_guest.kernel.sysfs import Sysfs, Try, Write, try_attribute, write_attribute
from vcpu_guest.platforms.hotplug import Submit
from vcpu_guest.platforms.pseries import Pseries

#: Where the unit's sandbox shows the kernel's directory, most of /proc being hidden in it, and where it is otherwise.
LOG_PATHS = ("/run/vcpud-rtas/error_log", "/proc/powerpc/rtas/error_log")
DLPAR = "/sys/kernel/dlpar"
#: The kernel refuses a smaller read than a whole record (arch/powerpc/kernel/rtasd.c, rtas_log_read): 4 bytes and
#: rtas-error-log-max, which is 2048 on QEMU.
_READ_SIZE = 65536
#: The kernel keeps so many; a bound for one turn of the loop.
_RING = 64
_VERBS = {Action.ADD: "add", Action.REMOVE: "remove"}


def boot_time(sysfs: Sysfs) -> datetime:
    """When the kernel began, by the machine's own clock, which the records go by; without one, by the guest's."""
    now = sysfs.read("class/rtc/rtc0/since_epoch") or ""
    seconds = float(now) if now.isdigit() else time.time()
    return datetime.fromtimestamp(seconds - time.clock_gettime(time.CLOCK_BOOTTIME), UTC)


class ErrdHotplug:
    """rtas_errd does the work."""

    name = "rtas_errd"

    def __init__(self, errd_runs: Callable[[], bool]) -> None:
        self._errd_runs = errd_runs

    @property
    def alive(self) -> bool:
        """Until it has ended: then the work is ours."""
        return self._errd_runs()

    async def ended(self) -> None:
        """Nothing tells of its end: `alive` does, when somebody asks."""
        await asyncio.Event().wait()

    def start(self, submit: Submit, changed: Callable[[], None]) -> None:
        """Nothing to begin."""

    def summon(self, firmware_ids: Iterable[str]) -> None:
        """Two who do the same work would trip over each other."""

    def denials(self) -> tuple[str, ...]:
        """It writes none."""
        return ()

    def close(self) -> None:
        """Nothing to end."""


class RtasHotplug:
    """Acts on the records, and on what is waited for."""

    def __init__(
        self,
        sysfs: Sysfs,
        platform: Pseries,
        errd_runs: Callable[[], bool],
        log_paths: Sequence[str] = LOG_PATHS,
        write: Write = write_attribute,
        boot_time: Callable[[Sysfs], datetime] = boot_time,
        attempt: Try = try_attribute,
    ) -> None:
        self._sysfs = sysfs
        self._platform = platform
        self._errd_runs = errd_runs
        self._write = write
        self._attempt = attempt
        self._boot_time = boot_time
        self._log_paths = log_paths
        self._fd = -1
        self._reads = False
        self._submit: Submit
        self._changed: Callable[[], None]
        self._closed = asyncio.Event()
        self._summoned: set[int] = set()

    @property
    def name(self) -> str:
        """What is heard, or that nothing is."""
        return "rtas" if self._reads else "dlpar"

    @property
    def alive(self) -> bool:
        """Whether it does what it began with, and is still the only one."""
        return not self._closed.is_set() and not self._errd_runs()

    async def ended(self) -> None:
        """Return when it has stopped to read."""
        await self._closed.wait()

    def start(self, submit: Submit, changed: Callable[[], None]) -> None:
        """Read what is there, which may have come while no agent was running, and what comes.

        Raises OSError if another reader was quicker and has the log alone.
        """
        self._submit, self._changed = submit, changed
        try:
            self._fd = _open_first(self._log_paths)
        except FileNotFoundError as error:
            logs.warning("no RTAS log: cores come when they are waited for, and go by request alone", error=str(error))
            return
        self._reads = True
        self._take(old=True)
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def close(self) -> None:
        """Leave the log to another reader."""
        self._closed.set()
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def denials(self) -> tuple[str, ...]:
        """The dlpar file, if it may not be written."""
        try:
            self._attempt(DLPAR)
        except FileNotFoundError:  # nothing of what is waited for will come, and the log says so
            return ()
        except OSError as error:
            return denial(DLPAR, error.errno or errno.EIO)
        return ()

    def summon(self, firmware_ids: Iterable[str]) -> None:
        """Try to take in the cores of these threads: the record of one may have been lost."""
        if not self.alive:
            return
        for index in sorted({self._platform.drc_index(name) or 0 for name in firmware_ids} - {0}):
            if index not in self._summoned:
                self._summoned.add(index)
                self._queue(HotplugEvent(Action.ADD, index), asked=False)

    def _readable(self) -> None:
        if self._errd_runs():
            self.close()  # the agent starts anew
            return
        self._take(old=False)

    def _take(self, *, old: bool) -> None:
        """Act on the records that are there; `old` ones were there at the start."""
        records: list[bytes] = []
        try:
            records.extend(self._records())
        except OSError as error:
            logs.error("the RTAS log cannot be read", error=str(error))
            self.close()
        events = []
        for record in records:
            try:
                event = rtas_records.parse(record)
            except RtasError as error:
                logs.warning("a malformed RTAS record was left alone", error=str(error))
                continue
            if event is not None:
                events.append(event)
        for event in rtas_records.latest(events):
            self._queue(event, asked=True, old=old)

    def _records(self) -> Iterator[bytes]:
        for _ in range(_RING):
            try:
                record = os.read(self._fd, _READ_SIZE)
            except BlockingIOError:
                return
            if not record:
                raise OSError(errno.EIO, "it has ended")
            yield record

    def _is_replayed(self, event: HotplugEvent) -> bool:
        before = event.created is None or event.created < self._boot_time(self._sysfs)
        return before and self._platform.core_is_online(self._sysfs, event.drc_index)

    def _queue(self, event: HotplugEvent, *, asked: bool, old: bool = False) -> None:
        loop = asyncio.get_running_loop()

        def work() -> None:
            acted = False
            try:
                acted = self._act(event, asked=asked, old=old)
            finally:
                loop.call_soon_threadsafe(self._settled, event, acted)

        self._submit(work)

    def _settled(self, event: HotplugEvent, acted: bool) -> None:  # noqa: FBT001 - called back with it
        self._summoned.discard(event.drc_index)
        if acted:
            self._changed()

    def _act(self, event: HotplugEvent, *, asked: bool, old: bool) -> bool:
        """In the writer's thread; whether anything was done. `asked`: by the hypervisor, rather than tried."""
        verb, index = _VERBS[event.action], f"{event.drc_index:#x}"
        if self._platform.has_core(self._sysfs, event.drc_index) == (event.action is Action.ADD):
            if asked:
                logs.info("nothing to do about a core", action=verb, drc_index=index)
            return False
        if old and event.action is Action.REMOVE and self._is_replayed(event):
            logs.warning("a removal from before the restart was left alone: the core is in use", drc_index=index)
            return False
        try:
            self._write(DLPAR, f"cpu {verb} index {index}".encode())
        except OSError as error:
            if asked:
                logs.warning("the kernel refused", action=verb, drc_index=index, errno=name_of(error.errno or 0))
            return False
        logs.info("done for the hypervisor", action=verb, drc_index=index)
        return True


def _open_first(paths: Sequence[str]) -> int:
    for path in paths:
        try:
            return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), paths[-1])
