# SPDX-License-Identifier: Apache-2.0
"""The eject gate: the kernel ejects a CPU only while the agent has agreed to it. Opt-in (eject_gate in vcpud.conf).

While /sys/firmware/acpi/hotplug/processor/enabled is 0, the kernel answers every ejection with _OST 128, "eject
disabled"; it still lets CPUs come. It reads the file when it begins with an ejection, and not again
(drivers/acpi/scan.c, acpi_generic_hotplug_event and acpi_device_hotplug). There is one file for all CPUs: while the
gate is open for one CPU, the kernel ejects any.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vcpu_guest import logs
from vcpu_guest.core.reasons import denial
from vcpu_guest.cpus.inventory import Inventory
from vcpu_guest.errors import ConfigError, StartError
from vcpu_guest.kernel.sysfs import Sysfs

#: Seconds after which the host has lost interest: no further CPU was agreed on, and none of them has gone.
PATIENCE = 60.0
#: Seconds from one look to the next while the gate is open, so that a lost event costs time only.
LOOK = 1.0
#: Seconds that the last write gets when the agent ends.
LAST_WRITE = 5.0
#: A file in the runtime directory while an agent keeps the gate: if the agent is killed, the unit closes the gate.
MARK = "eject-gate"


@dataclass(frozen=True, slots=True)
class _Agreement:
    """Who asked for an ejection: the Control stream (None for a single call), and the link session.

    `shown`: the guest showed the CPU at that time. The kernel may have to eject a CPU that the guest does not show.
    """

    stream: object
    session: object
    shown: bool


class EjectGate:
    """Opens and closes the gate, in the event loop. A thread of its own makes the writes in order: they may wait."""

    def __init__(self, sysfs: Sysfs, inventory: Inventory, directory: str, session: Callable[[], object]) -> None:
        """Keep the gate of this machine.

        `directory` is the agent's runtime directory. `session` returns a value that changes when a link session begins
        or ends.
        """
        self._session = session
        self._sysfs = sysfs
        self._inventory = inventory
        self._mark = Path(directory, MARK)
        self._agreed: dict[str, _Agreement] = {}
        self._given_up_at = 0.0
        self._open = False
        self._written: asyncio.Future[None] | None = None
        self._guard: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gate")

    async def shut(self) -> None:
        """Close the gate when the agent begins. Raise ConfigError if the machine has none, StartError if that fails."""
        if self._sysfs.eject_enabled() is None:
            raise ConfigError(
                "eject_gate: this machine has no switch for ejections (firmware/acpi/hotplug/processor/enabled in "
                "sysfs): take eject_gate out of vcpud.conf"
            )
        self._mark.touch()
        try:
            await self._set()
        except OSError as error:
            raise StartError(
                f"eject_gate: the kernel's switch for ejections cannot be written ({error.strerror}): see the sandbox "
                "of vcpud.service, or take eject_gate out of vcpud.conf"
            ) from error

    def denials(self) -> tuple[str, ...]:
        """Return the kernel's file in the form of reasons.denial if it may not be written. May block for a moment."""
        return denial(*self._sysfs.eject_denied())

    async def agree(self, firmware_id: str, stream: object = None) -> None:
        """Open the gate for a CPU that is to be ejected, and is offline or unknown; return when it is open.

        If the kernel does not let it be opened, log that and return: the host's device_del is refused then.
        """
        shown = self._inventory.find(firmware_id) is not None
        self._agreed[firmware_id] = _Agreement(stream, self._session(), shown)
        self._be_patient()
        if self._guard is None or self._guard.done():
            self._guard = asyncio.get_running_loop().create_task(self._watch())
        try:
            await self._set()
        except OSError as error:
            logs.error("the eject gate does not open", firmware_id=firmware_id, error=str(error))
            self._agreed.pop(firmware_id, None)

    def withdraw(self, stream: object) -> None:
        """Drop the agreements that were made on this stream: it has ended."""
        self._keep(lambda _, agreement: agreement.stream is not stream)
        self._wake.set()

    async def close(self) -> None:
        """Close the gate when the agent ends."""
        self._agreed.clear()
        if self._guard is not None:
            self._guard.cancel()
            await asyncio.gather(self._guard, return_exceptions=True)
        try:
            await asyncio.wait_for(self._set(), LAST_WRITE)
            self._mark.unlink(missing_ok=True)
        except (OSError, TimeoutError) as error:
            logs.error("the eject gate does not close", error=repr(error))
        self._executor.shutdown(wait=False)

    async def _watch(self) -> None:
        """Close the gate when no agreement is left."""
        with self._inventory.changes() as self._wake:
            complained = False
            while True:
                self._wake.clear()
                try:
                    self._look()
                    await self._set()
                    # The last agreement may have been dropped while the gate was being opened.
                    if not (self._agreed or self._open):
                        return
                except OSError as error:
                    if not complained:
                        logs.error("the eject gate cannot be set", error=str(error))
                    complained = True
                try:
                    await asyncio.wait_for(self._wake.wait(), LOOK)
                except TimeoutError:
                    self._inventory.rescan()

    def _look(self) -> None:
        online, session = self._sysfs.mask("online"), self._session()

        def lasts(firmware_id: str, agreement: _Agreement) -> bool:
            number = self._inventory.find(firmware_id)
            gone = number is None and agreement.shown
            return not gone and number not in online and agreement.session == session

        if self._keep(lasts):
            self._be_patient()
        if self._agreed and asyncio.get_running_loop().time() >= self._given_up_at:
            logs.warning("the eject gate closes: the host asks for nothing", firmware_ids=sorted(self._agreed)[:8])
            self._agreed.clear()

    def _keep(self, lasts: Callable[[str, _Agreement], bool]) -> bool:
        """Drop the agreements that do not last; say whether there were any."""
        before = len(self._agreed)
        self._agreed = {name: agreement for name, agreement in self._agreed.items() if lasts(name, agreement)}
        return len(self._agreed) < before

    def _be_patient(self) -> None:
        self._given_up_at = asyncio.get_running_loop().time() + PATIENCE

    def _set(self) -> asyncio.Future[None]:
        """Return the write that makes the gate what it should be: a new one, or the last one if that does.

        Cancelling whoever waits for it does not cancel the write.
        """
        wanted, last = bool(self._agreed), self._written
        failed = last is not None and last.done() and (last.cancelled() or last.exception() is not None)
        if last is None or failed or wanted != self._open:
            self._open = wanted
            write = partial(self._sysfs.write_eject_enabled, enabled=wanted)
            self._written = last = asyncio.get_running_loop().run_in_executor(self._executor, write)
            logs.debug("eject gate", open=wanted)
        return asyncio.shield(last)
