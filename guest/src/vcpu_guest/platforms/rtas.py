# SPDX-License-Identifier: Apache-2.0
"""PAPR guests with legacy events: reads hotplug records from the RTAS log, and carries them out.

The kernel only logs such an event and leaves the work to user space (arch/powerpc/platforms/pseries/ras.c). User space
writes what is to be done to the kernel's dlpar file (pseries/dlpar.c); the kernel then takes in or releases the whole
core, and brings its threads online or offline with it. Each record can be read once, by one reader. If rtas_errd runs,
which does the same, this module does nothing. A lost record costs time only, and so does a missing log: a request that
waits for a CPU has it summoned.

After a restart the kernel logs the last record of the time before once more, out of NVRAM (arch/powerpc/kernel/rtasd.c,
rtas_event_scan). So a removal that is found at the start and is older than this boot is not carried out on a core that
is in use.

Only this module opens the log and the dlpar file.
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

#: The unit's sandbox hides most of /proc, and has the kernel's directory at the first path. Without a sandbox it is at
#: the second one.
LOG_PATHS = ("/run/vcpud-rtas/error_log", "/proc/powerpc/rtas/error_log")
DLPAR = "/sys/kernel/dlpar"
#: Bytes. The kernel refuses to read less than a whole record (arch/powerpc/kernel/rtasd.c, rtas_log_read): 4 bytes and
#: rtas-error-log-max, which is 2048 on QEMU.
_READ_SIZE = 65536
#: Records read in one turn of the loop: as many as the kernel keeps.
_RING = 64
_VERBS = {Action.ADD: "add", Action.REMOVE: "remove"}


def boot_time(sysfs: Sysfs) -> datetime:
    """Return when the kernel began, by the machine's clock like the records; without one, by the guest's clock."""
    now = sysfs.read("class/rtc/rtc0/since_epoch") or ""
    seconds = float(now) if now.isdigit() else time.time()
    return datetime.fromtimestamp(seconds - time.clock_gettime(time.CLOCK_BOOTTIME), UTC)


class ErrdHotplug:
    """rtas_errd carries out the events."""

    name = "rtas_errd"

    def __init__(self, errd_runs: Callable[[], bool]) -> None:
        self._errd_runs = errd_runs

    @property
    def alive(self) -> bool:
        """Say whether rtas_errd still runs: when it has ended, the work is ours."""
        return self._errd_runs()

    async def ended(self) -> None:
        """Never return: only asking `alive` shows that rtas_errd has ended."""
        await asyncio.Event().wait()

    def start(self, submit: Submit, changed: Callable[[], None]) -> None:
        """Do nothing."""

    def summon(self, firmware_ids: Iterable[str]) -> None:
        """Do nothing: two programs that do the same work would get into each other's way."""

    def denials(self) -> tuple[str, ...]:
        """Return nothing: it writes no file."""
        return ()

    def close(self) -> None:
        """Do nothing."""


class RtasHotplug:
    """Carries out the log's records, and takes in cores that a request waits for.

    `errd_runs` says whether rtas_errd runs. `log_paths`: the log is the first of them that exists. `boot_time` returns
    when the kernel began. `write` and `attempt` are as in Sysfs.
    """

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
        """Return "rtas", or "dlpar" if there is no log to read."""
        return "rtas" if self._reads else "dlpar"

    @property
    def alive(self) -> bool:
        """Say whether it still reads what it began to read, and is the only one that does this work."""
        return not self._closed.is_set() and not self._errd_runs()

    async def ended(self) -> None:
        """Return when it has stopped reading."""
        await self._closed.wait()

    def start(self, submit: Submit, changed: Callable[[], None]) -> None:
        """Carry out the records that are there, perhaps since a time without an agent, and those that come.

        Raise OSError if another reader was quicker and has the log for itself.
        """
        self._submit, self._changed = submit, changed
        try:
            self._fd = _open_first(self._log_paths)
        except FileNotFoundError as error:
            logs.warning(
                "no RTAS log: cores are taken in when a request waits for them, and leave on request only",
                error=str(error),
            )
            return
        self._reads = True
        self._take(old=True)
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def close(self) -> None:
        """Close the log, so that another reader can have it."""
        self._closed.set()
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def denials(self) -> tuple[str, ...]:
        """Return the dlpar file, if it may not be written."""
        try:
            self._attempt(DLPAR)
        except FileNotFoundError:  # no core can be taken in then; the log says so at each attempt
            return ()
        except OSError as error:
            return denial(DLPAR, error.errno or errno.EIO)
        return ()

    def summon(self, firmware_ids: Iterable[str]) -> None:
        """Try to take in the cores of these threads: their records may have been lost."""
        if not self.alive:
            return
        for index in sorted({self._platform.drc_index(name) or 0 for name in firmware_ids} - {0}):
            if index not in self._summoned:
                self._summoned.add(index)
                self._queue(HotplugEvent(Action.ADD, index), asked=False)

    def _readable(self) -> None:
        if self._errd_runs():
            self.close()  # the agent ends, and is started afresh
            return
        self._take(old=False)

    def _take(self, *, old: bool) -> None:
        """Carry out the records that are there; `old` ones were there at the start."""
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
        """Carry out one event, in the writer's thread; say whether anything was done.

        `asked`: the hypervisor asked for it; else it is only tried.
        """
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
