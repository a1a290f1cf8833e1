# SPDX-License-Identifier: Apache-2.0
"""Whether a domain has the agent's channel, and giving it one: to the running domain, and for its next start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..core.domains import AgentChannel, Definition
from ..core.reason import Reason
from ..errors import OutcomeLostError, QemuGoneError, VcpuctlError
from . import domain_xml
from .connection import Connection
from .domain import find
from .domain_xml import DomainRecord
from .domains import open_qemu
from .port import CHANNEL_XML

#: What channels are added to.
_CONTROLLER = "<controller type='virtio-serial'/>"
#: virDomainModificationImpact.
_LIVE, _CONFIG = 1, 2
#: virDomainXMLFlags: what the domain starts from.
_INACTIVE = 2


async def look(uri: str, domain: str, *, timeout: float = 30.0) -> AgentChannel:
    """Return whether the domain of that name or UUID has the channel. Nothing is changed.

    Raise UsageError "no-such-domain", and as ``Connection.open`` and ``call``.
    """
    connection = await open_qemu(uri, timeout=timeout, readonly=True)
    try:
        return await _looked(connection, await _found(connection, domain))
    finally:
        await connection.close()


async def add(uri: str, domain: str, *, timeout: float = 30.0) -> AgentChannel:
    """Give the domain the channel wherever it has none. Return what it has then. Raise as ``look``.

    What libvirt refuses is no error here: it stands in the definition's ``reason``. Raise OutcomeLostError if libvirt
    goes while the channel is added.
    """
    connection = await open_qemu(uri, timeout=timeout, readonly=False)
    try:
        return await _added(connection, await _found(connection, domain))
    finally:
        await connection.close()


async def _found(connection: Connection, domain: str) -> Any:
    return await connection.call("find the domain", find, connection.raw, domain)


async def _looked(connection: Connection, domain: Any) -> AgentChannel:
    return _channel(connection, domain, *await _records(connection, domain))


async def _records(connection: Connection, domain: Any) -> tuple[DomainRecord | None, DomainRecord | None]:
    """Return the domain as it runs, and as it is defined."""
    running, persistent = await connection.call("read the domain's XML", _definitions, domain)
    return (
        None if running is None else domain_xml.read(running),
        None if persistent is None else domain_xml.read(persistent),
    )


def _definitions(domain: Any) -> tuple[str | None, str | None]:
    """Return the XML of the domain as it runs, and as it is defined. In the connection's thread."""
    running = domain.XMLDesc(0) if domain.isActive() else None
    return running, domain.XMLDesc(_INACTIVE) if domain.isPersistent() else None


def _channel(
    connection: Connection, domain: Any, running: DomainRecord | None, persistent: DomainRecord | None
) -> AgentChannel:
    return AgentChannel(
        CHANNEL_XML,
        connection.uri,
        domain.name(),
        domain.UUIDString(),
        None if running is None else Definition(running.channel),
        None if persistent is None else Definition(persistent.channel),
    )


async def _added(connection: Connection, domain: Any) -> AgentChannel:
    running, persistent = await _records(connection, domain)
    try:
        return await _completed(connection, domain, running, persistent)
    except QemuGoneError as error:
        if all(each is None or each.channel for each in (running, persistent)):
            raise
        text = f"{error.reason.text}: it is not known whether the channel was added"
        raise OutcomeLostError(error.reason._replace(text=text)) from error


async def _completed(
    connection: Connection, domain: Any, running: DomainRecord | None, persistent: DomainRecord | None
) -> AgentChannel:
    """Add the channel where these lack it. Raise QemuGoneError if libvirt goes meanwhile."""
    live, later = None, None
    if persistent is not None and not persistent.channel:
        later = await _attach(connection, domain, [CHANNEL_XML], _CONFIG)
    if running is not None and not running.channel:
        # Into a definition libvirt puts the controller itself; into a running domain it does not (9.0, 12.8).
        live = await _attach(connection, domain, [CHANNEL_XML] if running.serial else [_CONTROLLER, CHANNEL_XML], _LIVE)
        if live is not None and persistent is not None and later is None:
            live = live._replace(hint="shut the domain down and start it again: its definition has the channel")
    after = await _looked(connection, domain)  # which counts: somebody else may have been quicker
    return replace(
        after,
        running=_ended(running, after.running, live),
        persistent=_ended(persistent, after.persistent, later),
    )


async def _attach(connection: Connection, domain: Any, devices: Sequence[str], impact: int) -> Reason | None:
    """Add the devices. Return why libvirt refuses that, or None."""
    try:
        for xml in devices:
            await connection.call("add the channel", domain.attachDeviceFlags, xml, impact)
    except QemuGoneError:
        raise  # libvirt refuses nothing any more
    except VcpuctlError as error:
        if connection.lost:
            raise
        return error.reason
    return None


def _ended(before: DomainRecord | None, after: Definition | None, reason: Reason | None) -> Definition | None:
    """Return what has become of a definition; ``reason`` is why libvirt refused to add the channel."""
    if after is None or not after.channel:
        return None if after is None else replace(after, reason=reason)
    return replace(after, added=before is not None and not before.channel and reason is None)
