# SPDX-License-Identifier: Apache-2.0
"""A domain: libvirt's calls that look at its record and change its vCPUs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..core.identity import DomainId
from ..core.model import Owner
from ..core.reason import Reason
from ..errors import QemuError, TooLateError, UsageError, in_time
from . import binding, domain_xml, words
from .connection import Connection
from .domain_xml import DomainRecord

T = TypeVar("T")

#: virDomainModificationImpact.
_LIVE, _CONFIG = 1, 2
#: virDomainControlState, with its details: a job that others can watch, one in QEMU's monitor, and one that waits
#: outside of it, such as for a removal's end (qemuDomainGetControlInfo, src/qemu/qemu_driver.c, calls that an error).
_BUSY = ((1, 0), (2, 0), (3, 3))
#: virDomainXMLFlags: the definition, and not what runs.
_INACTIVE = 2


class Domain:
    """Made by ``find``. ``raw`` is libvirt's object (virDomain), to be used in ``connection.call`` alone."""

    def __init__(self, connection: Connection, raw: Any, identity: DomainId, *, persistent: bool) -> None:
        self.connection = connection
        self.raw = raw
        self.identity = identity
        self.owner = Owner(f"libvirt {_version(connection.version)}", persistent)

    @classmethod
    async def find(cls, connection: Connection, name: str) -> Domain:
        """Return the domain of this name or UUID. Raise UsageError "no-such-domain"."""
        return await connection.call("find the domain", _find, connection, name)

    @property
    def asynchronous(self) -> bool:
        """Whether libvirt can begin a removal without waiting for its end."""
        return self.connection.version >= binding.ASYNC_UNPLUG_SINCE

    async def call(self, what: str, function: Callable[..., T], *arguments: Any) -> T:
        """Call as ``Connection.call`` does, for what is about this domain.

        A domain that there is no more is gone, like its QEMU.
        """
        try:
            return await self.connection.call(what, function, *arguments)
        except UsageError as error:
            raise words.vanished(error.reason.text) from error

    async def record(self) -> DomainRecord:
        """Return libvirt's record of the running domain."""
        return domain_xml.read(await self.call("read the domain's XML", self.raw.XMLDesc, 0))

    async def plug(self, number: int) -> None:
        """Plug a vCPU: virDomainSetVcpu."""
        await self._set(number, enabled=True, flags=_LIVE)

    async def unplug(self, number: int, *, asynchronously: bool, not_after: float | None = None) -> None:
        """Have a vCPU's removal begin, or wait for its end, which takes up to 5 s and holds up everybody else.

        Raise TooLateError if it is not this call's turn by ``not_after``: see ``ports.Vmm.unplug``.
        """
        flags = _LIVE | (binding.ASYNC_UNPLUG if asynchronously else 0)
        await self._set(number, enabled=False, flags=flags, not_after=not_after)

    async def keep(self, vcpus: Mapping[int, bool], *, whole: bool = False) -> Mapping[int, Reason]:
        """Have the domain start next time with these vCPUs, or without: see ``ports.Vmm.keep``.

        A vCPU that is kept so can be removed after the next start (``hotpluggable='yes'``); virDomainSetVcpus would
        make it one of the start, which stays. So one that stays is set anew, but for vCPU 0. libvirt refuses to change
        a vCPU that one which stays comes after (qemuDomainVcpuValidateConfig), hence from the last one on.
        """
        xml = await self.call("read the domain's definition", self.raw.XMLDesc, _INACTIVE)
        definition = domain_xml.read(xml)
        failed: dict[int, Reason] = {}
        others = {number: False for number in definition.vcpus if number not in vcpus} if whole else {}
        for number, wanted in sorted({**vcpus, **others}.items(), reverse=True):
            stays = number > 0 and wanted and definition.stays(number)
            if stays or definition.has(number) is not wanted:
                try:
                    await self._set(number, enabled=wanted, flags=_CONFIG)
                except QemuError as error:
                    failed[number] = words.stays_kept(error.reason, number) if stays else error.reason
        return failed

    async def _set(self, number: int, *, enabled: bool, flags: int, not_after: float | None = None) -> None:
        def set_vcpu() -> None:
            self.goes_out(not_after)
            self.raw.setVcpu(str(number), int(enabled), flags)

        try:
            await self.call(f"{'plug' if enabled else 'unplug'} vCPU {number}", set_vcpu)
        except QemuError as error:
            raise words.of_set_vcpu(error, enabled=enabled) from error

    def goes_out(self, not_after: float | None) -> None:
        """Raise TooLateError if what is to be sent by then would be late. In the connection's thread, right before it.

        libvirt has a call wait for up to 30 s while others keep the domain busy, and nobody can give it less time. So
        it is asked whether somebody does (virDomainGetControlInfo waits for nobody). Who comes in between is not seen.
        """
        if not_after is None:
            return
        state, details, *_ = self.raw.controlInfo(0)
        if (state, details) in _BUSY:
            raise TooLateError
        in_time(not_after)

    async def close(self) -> None:
        """End the connection, which libvirt ends only when nobody has an object of it."""
        self.raw = None
        await self.connection.close()


def find(raw: Any, name: str) -> Any:
    """Return libvirt's object of the domain with this name or UUID. In the connection's thread."""
    libvirt = binding.module()
    try:
        return raw.lookupByName(name)
    except libvirt.libvirtError:
        if not re.fullmatch(r"[0-9A-Fa-f-]{32,36}", name):
            raise
        return raw.lookupByUUIDString(name)


def _find(connection: Connection, name: str) -> Domain:
    found = find(connection.raw, name)
    host = re.search(r"<host>\s*<uuid>([^<]*)</uuid>", connection.raw.getCapabilities())
    identity = DomainId(found.UUIDString(), host[1] if host else connection.raw.getHostname())
    return Domain(connection, found, identity, persistent=bool(found.isPersistent()))


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
