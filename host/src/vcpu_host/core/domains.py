# SPDX-License-Identifier: Apache-2.0
"""The domains of one libvirt, put together with the files of vms.d, and whether one has the agent's channel."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from . import codes
from .channel import PORT_NAME
from .reason import Origin, Outcome, Reason
from .text import printable
from .vms import Configured, Offer, domain_word, toml, valid_name


@dataclass(frozen=True, slots=True)
class ListedDomain:
    """A domain as its libvirt describes it. ``name`` is exactly what libvirt calls it.

    ``state`` is libvirt's word for it (virDomainState). ``persistent``: libvirt keeps its definition when it is off.
    ``vcpus`` and ``most`` are how many it has and can have. ``channel``: it has the agent's channel. ``connected``: a
    program in the guest has that open, None where libvirt does not say. All of these are None if ``trouble`` says why
    the definition could not be read.
    """

    name: str
    uuid: str
    state: str
    persistent: bool
    vcpus: int | None = None
    most: int | None = None
    channel: bool | None = None
    connected: bool | None = None
    trouble: Reason | None = None


@dataclass(frozen=True, slots=True)
class FoundDomain:
    """A domain, the names of the VMs that are configured for it, what it lacks, and the file that would add it."""

    domain: ListedDomain
    configured: tuple[str, ...]
    lacks: tuple[Reason, ...]
    offer: Offer | None


@dataclass(frozen=True, slots=True)
class Domains:
    """The domains of the libvirt at ``uri``."""

    uri: str
    found: tuple[FoundDomain, ...]


def join(uri: str, listed: Iterable[ListedDomain], configured: Sequence[Configured], directory: str) -> Domains:
    """Return what is known, and for each domain that is not configured the file in ``directory`` that would add it.

    A file stands for a domain if it has this very URI: another one may lead to the same libvirt, which nobody can tell
    from it.
    """
    taken = {file.name for file in configured}
    found = []
    for domain in sorted(listed, key=lambda each: (each.name, each.uuid)):
        names = _names(uri, domain, configured)
        offer = None
        if not names:
            name = valid_name(domain.name, taken)
            offer = Offer(name, f"{directory}/{name}.toml", f"libvirt = {toml(uri)}\ndomain = {toml(domain.name)}")
            taken.add(name)
        found.append(FoundDomain(domain, names, tuple(_lacks(uri, domain)), offer))
    return Domains(uri, tuple(found))


def _names(uri: str, domain: ListedDomain, configured: Iterable[Configured]) -> tuple[str, ...]:
    return tuple(
        file.name
        for file in configured
        if file.hidden_by is None and file.libvirt == uri and file.domain in (domain.name, domain.uuid)
    )


def _lacks(uri: str, domain: ListedDomain) -> Iterator[Reason]:
    """Yield what stands between vcpuctl and this domain, as far as its definition shows."""
    if domain.trouble is not None:
        yield domain.trouble
    elif not domain.channel:
        text = f"this domain has no channel named {PORT_NAME}"
        yield Reason(codes.NO_CHANNEL, Origin.VCPUCTL, text, f"{adding(uri, domain.name, domain.uuid)} adds it")


def adding(uri: str, name: str, uuid: str) -> str:
    """Return the shell's command that adds the agent's channel."""
    return f"vcpuctl channel --connect {shlex.quote(printable(uri))} --domain {domain_word(name, uuid)} --apply"


@dataclass(frozen=True, slots=True)
class Definition:
    """One of a domain's two definitions. ``channel``: it has the agent's channel, which was ``added`` now.

    ``reason`` says why it was not added, though it was to be.
    """

    channel: bool
    added: bool = False
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class AgentChannel:
    """The agent's channel of one domain: the ``xml`` that its devices need, and which definition has it.

    ``running`` is None for a domain that is off, ``persistent`` for one that libvirt forgets when it is off.
    """

    xml: str
    uri: str
    name: str
    uuid: str
    running: Definition | None
    persistent: Definition | None

    @property
    def outcome(self) -> Outcome:
        """How it ended: all is well, one definition has the channel and the other was refused it, or none has.

        It counts what there is, and not what was added now: a repeat tells the same as the first time.
        """
        definitions = [each for each in (self.running, self.persistent) if each is not None]
        if all(each.reason is None for each in definitions):
            return Outcome.DONE
        return Outcome.PARTIAL if any(each.channel for each in definitions) else Outcome.REFUSED
