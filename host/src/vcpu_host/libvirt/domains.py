# SPDX-License-Identifier: Apache-2.0
"""The domains of a libvirt, as a read-only connection shows them: running ones, and those that are off."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..core.domains import ListedDomain
from ..core.text import printable
from ..errors import QemuError, RefusedError, UsageError
from . import domain_xml
from .connection import Connection

#: virDomainState, by its number.
_STATES = ("nostate", "running", "blocked", "paused", "shutdown", "shutoff", "crashed", "pmsuspended")
#: How long a call may take, in seconds: libvirt itself gives up after 30 s to wait for what others do with a domain.
CALL_TIMEOUT = 40.0


async def listed(uri: str, *, timeout: float = 30.0) -> list[ListedDomain]:
    """Return all domains of the libvirt at ``uri``.

    A domain that goes away meanwhile is none of them. Raise as ``Connection.open`` and ``call``.
    """
    connection = await open_qemu(uri, timeout=timeout, readonly=True)
    try:
        return await _listed(connection)
    finally:
        await connection.close()


async def open_qemu(uri: str, *, timeout: float, readonly: bool) -> Connection:
    """Return a connection to a libvirt that has QEMU's domains. Raise UsageError "bad-uri" for any other."""
    connection = await Connection.open(uri, timeout=timeout, call_timeout=CALL_TIMEOUT, readonly=readonly)
    try:
        await connection.has_qemu()
    except BaseException:
        await connection.close()
        raise
    return connection


async def _listed(connection: Connection) -> list[ListedDomain]:
    domains = await connection.call("list the domains", connection.raw.listAllDomains)
    found = [await _looked(connection, domain) for domain in domains]
    return [each for each in found if each is not None]


async def _looked(connection: Connection, domain: Any) -> ListedDomain | None:
    """Return the domain, or None if there is no such any more."""
    name, uuid = domain.name(), domain.UUIDString()
    try:
        (state, _), persistent = await connection.call("look at a domain", _state, domain)
    except UsageError:  # no-such-domain
        return None
    known = ListedDomain(name, uuid, _STATES[state] if state < len(_STATES) else "nostate", persistent)
    try:
        record = domain_xml.read(await connection.call(f"read the XML of {printable(name)}", domain.XMLDesc, 0))
    except UsageError:
        return None
    except (QemuError, RefusedError) as error:
        return replace(known, trouble=error.reason)
    vcpus = sum(vcpu.enabled for vcpu in record.vcpus.values())
    return replace(known, vcpus=vcpus, most=record.most, channel=record.channel, connected=record.connected)


def _state(domain: Any) -> tuple[tuple[int, int], bool]:
    return domain.state(), bool(domain.isPersistent())
