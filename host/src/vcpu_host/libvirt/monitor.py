# SPDX-License-Identifier: Apache-2.0
"""QEMU's monitor as libvirt lends it: for looking alone. What changes a VM goes through libvirt's own calls.

A CPU that is plugged behind libvirt's back is none in its record: a save of such a VM can never be loaded again, and
libvirt may lose the running VM when it is restarted (seen on 9.0 and 12.8).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..core import codes
from ..core.identity import VmIdentity
from ..core.reason import Origin, Reason
from ..core.vm_events import QemuGone
from ..core.vms import is_here
from ..errors import QemuError
from ..local.processes import qemus_thread
from ..qmp.events import EventHub, convert
from ..qmp.traps import explain
from . import binding, words
from .domain import Domain

#: What ends or changes CPUs: libvirt has calls for it.
_NOT_HERE = frozenset({"device_add", "device_del"})
#: virDomainEventType and virDomainEventStoppedDetailType of what ends a domain here.
_LIFECYCLE, _STOPPED, _MIGRATED = 0, 5, 3


class LentMonitor:
    """Fills ``qmp.roles.Monitor`` over virDomainQemuMonitorCommand. It has the domain's connection, and ends it."""

    def __init__(self, domain: Domain, hub: EventHub) -> None:
        self._domain = domain
        self._connection = domain.connection
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._version: object = None
        self._asked = 0  # how many calls there were
        self._in_vain = 0  # the last one that is not worth sending any more
        self._busy: Reason | None = None  # and why
        self._callbacks: list[Callable[[], object]] = []  # what ends each; used in the connection's thread alone
        self._connection.on_loss(lambda reason: hub.put(QemuGone(reason)))

    async def begin(self) -> None:
        """Hear events from now on, and ask for QEMU's version. Raise as ``call``; ``close`` is called all the same."""
        await self._domain.call("hear events", self._register)
        self._version = (await self.call("query-version")).get("qemu")

    def _register(self) -> None:
        raw, domain = self._connection.raw, self._domain.raw
        libvirt, module = binding.module(), binding.monitor_module()
        heard = module.qemuMonitorEventRegister(raw, domain, None, self._heard, None, 0)
        self._callbacks.append(partial(module.qemuMonitorEventDeregister, raw, heard))
        number = raw.domainEventRegisterAny(domain, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._changed, None)
        self._callbacks.append(partial(raw.domainEventDeregisterAny, number))

    def _deregister(self) -> None:
        libvirt = binding.module()
        while self._callbacks:
            with contextlib.suppress(libvirt.libvirtError):  # the connection is lost: what is kept here is freed
                self._callbacks.pop()()

    @property
    def qemu_version(self) -> object:
        """See ``qmp.roles.Monitor``."""
        return self._version

    async def call(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """See ``qmp.roles.Monitor``. A command that changes CPUs is none of this monitor's."""
        if command in _NOT_HERE:
            raise AssertionError(f"{command} would go behind libvirt's back")
        return await self.send(command, arguments)

    async def send(
        self, command: str, arguments: Mapping[str, object] | None = None, *, not_after: float | None = None
    ) -> Any:
        """Send any command. Raise as ``call``, and TooLateError if it is not its turn by ``not_after``."""
        message = json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})})
        self._asked += 1
        text = await self._domain.call(command, self._sent, self._domain.raw, command, message, self._asked, not_after)
        try:
            reply = json.loads(text)
            if "error" in reply:
                error = reply["error"]
                raise explain(command, error["class"], error["desc"])
            return reply["return"]
        except (ValueError, KeyError, TypeError) as error:
            raise QemuError(
                Reason(codes.BAD_REPLY, Origin.LIBVIRT, f"the reply to {command} is not understood: {error!r:.200}")
            ) from error

    def _sent(self, domain: Any, command: str, message: str, number: int, not_after: float | None) -> str:
        """Return QEMU's reply. In the connection's thread.

        While others keep the domain busy, libvirt has each call wait for 30 s. Those asked for meanwhile would wait as
        long, one after another: a look would take many minutes to say what the first of its calls has said.
        """
        if self._busy is not None and number <= self._in_vain:
            raise QemuError(self._busy)
        self._domain.goes_out(not_after)
        libvirt = binding.module()
        try:
            return str(binding.monitor_module().qemuMonitorCommand(domain, message, 0))
        except libvirt.libvirtError as error:
            busy = words.busy(error, command)
            if busy is not None:
                self._busy, self._in_vain = busy, self._asked
            raise

    def identify(self, thread_id: int | None) -> VmIdentity:
        """See ``qmp.roles.Monitor``. A thread of another host's says nothing here.

        That of this host's tells that a domain and another monitor of its QEMU are one VM.
        """
        if thread_id is None or not is_here(self._connection.uri):
            return VmIdentity(self._domain.identity)
        return VmIdentity(self._domain.identity, first_thread=qemus_thread(thread_id))

    async def close(self) -> None:
        """See ``qmp.roles.Monitor``."""
        # In the thread that registers them, which somebody who gave up may have left in the middle of that.
        await self._connection.let_go(self._deregister)
        await self._domain.close()

    # --- events, in libvirt's thread ----------------------------------------------------------------------------------

    def _heard(self, connection: Any, domain: Any, event: str, when: int, micros: int, data: str, opaque: Any) -> None:
        del connection, domain, when, micros, opaque
        self._later(self._take, event, data)

    def _changed(self, connection: Any, domain: Any, what: int, detail: int, opaque: object) -> None:
        del connection, domain, opaque
        if what == _STOPPED:
            self._later(self._ended, detail)

    def _later(self, what: Any, *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(what, *arguments)

    # --- and in ours --------------------------------------------------------------------------------------------------

    def _take(self, event: str, data: str | None) -> None:
        try:
            message = {"event": event, "data": json.loads(data) if data else {}}
        except ValueError:
            return  # a hint that cannot be read is none
        converted = convert(message, self._hub.paths)
        if converted is not None:
            self._hub.put(converted)

    def _ended(self, detail: int) -> None:
        where = "it has moved to another host" if detail == _MIGRATED else "it was shut off, or has crashed"
        hint = "look for it there" if detail == _MIGRATED else "start it: virsh start DOMAIN"
        self._hub.put(
            QemuGone(Reason(codes.DOMAIN_OFF, Origin.LIBVIRT, f"the domain does not run here any more: {where}", hint))
        )
