# SPDX-License-Identifier: Apache-2.0
"""The documents about libvirt's domains themselves: which there are, and whether they have the agent's channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import Document, of_reason

if TYPE_CHECKING:
    from ..core.domains import AgentChannel, Definition, Domains, FoundDomain


def of_domains(domains: Domains) -> Document:
    """Return which domains a libvirt has."""
    return {"connect": domains.uri, "domains": [_of_domain(found) for found in domains.found]}


def _of_domain(found: FoundDomain) -> Document:
    domain, offer = found.domain, found.offer
    return {
        "name": domain.name,
        "uuid": domain.uuid,
        "state": domain.state,
        "persistent": domain.persistent,
        "vcpus": domain.vcpus,
        "most_vcpus": domain.most,
        "channel": domain.channel,
        "connected": domain.connected,
        "configured": list(found.configured),
        "lacks": [of_reason(reason) for reason in found.lacks],
        "add": None if offer is None else {"name": offer.name, "file": offer.file, "command": offer.command},
    }


def of_channel(channel: AgentChannel) -> Document:
    """Return whether a domain has the agent's channel, and what was done about it."""
    return {
        "channel_xml": channel.xml,
        "connect": channel.uri,
        "domain": {"name": channel.name, "uuid": channel.uuid},
        "running": _of_definition(channel.running),
        "persistent": _of_definition(channel.persistent),
    }


def _of_definition(definition: Definition | None) -> Document | None:
    if definition is None:
        return None
    reason = definition.reason
    return {
        "channel": definition.channel,
        "added": definition.added,
        "reason": None if reason is None else of_reason(reason),
    }
