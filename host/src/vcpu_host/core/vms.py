# SPDX-License-Identifier: Apache-2.0
"""The VMs that are configured, and the QEMU processes of this host, put together for ``vcpuctl vms``."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from . import codes
from .channel import MONITOR, no_channel, no_socket
from .model import Channel
from .qemu_argv import CommandLine
from .reason import Origin, Reason

_LONGEST_NAME = 64
#: How the URIs of this host's own libvirts begin (https://libvirt.org/uri.html).
_HERE = "qemu:///"


def is_here(uri: str) -> bool:
    """Return whether this libvirt runs its domains on this host."""
    return uri.startswith(_HERE)


class Configured(NamedTuple):
    """A file of vms.d. ``trouble`` says what is wrong with it; ``hidden_by`` is the file that counts in its place.

    ``qmp`` and ``agent`` are what it says, None if it says nothing that can be used. ``key`` is the same for whatever
    leads to the same socket, None if there is none. ``libvirt`` and ``domain`` are the URI and the name of a VM that
    libvirt owns.
    """

    name: str
    file: str
    qmp: str | None = None
    agent: str | None = None
    trouble: Reason | None = None
    hidden_by: str | None = None
    key: str | None = None
    libvirt: str | None = None
    domain: str | None = None


class Monitor(NamedTuple):
    """A QMP monitor on a unix socket. ``told`` is what QEMU calls it, ``here`` what it is called from here, in UTF-8.

    If nothing leads there from here, ``here`` is None and ``trouble`` says why. ``key`` is as in ``Configured``.
    """

    told: str
    here: str | None = None
    trouble: Reason | None = None
    key: str | None = None


class Process(NamedTuple):
    """A process that looks like a QEMU, with its command line and its owner's name.

    ``started`` tells which of two is the younger one. ``monitors`` are those that listen on unix sockets.
    """

    pid: int
    user: str
    started: int
    says: CommandLine
    monitors: tuple[Monitor, ...] = ()


class Offer(NamedTuple):
    """The file that would make a VM known: its name, its path, and what it says."""

    name: str
    file: str
    text: str

    @property
    def command(self) -> str:
        """A shell's command, in one line, that writes the file."""
        directory, file = shlex.quote(posixpath.dirname(self.file)), shlex.quote(self.file)
        lines = " ".join(map(shlex.quote, self.text.split("\n")))
        return f"mkdir -p {directory} && printf '%s\\n' {lines} >{file}"


class Found(NamedTuple):
    """A process, the names of the VMs that are configured for it, what it lacks, and the file that would add it."""

    process: Process
    configured: tuple[str, ...]
    lacks: tuple[Reason, ...]
    offer: Offer | None

    @property
    def port(self) -> bool:
        """Whether QEMU has the agent's port."""
        return self.process.says.port is not None


class Vms(NamedTuple):
    """All of it. ``unseen`` says that there are processes that could not be looked at, or is None."""

    configured: tuple[Configured, ...]
    found: tuple[Found, ...]
    unseen: Reason | None = None

    def pids(self, file: Configured) -> tuple[int, ...]:
        """Return the ids of the processes that the file stands for."""
        if file.hidden_by is not None:
            return ()
        return tuple(found.process.pid for found in self.found if file.name in found.configured)


def join(configured: Sequence[Configured], processes: Sequence[Process], unseen: Reason | None, directory: str) -> Vms:
    """Return what is known, and for each process that is not configured the file in ``directory`` that would add it."""
    taken = {file.name for file in configured}
    found = []
    for process in processes:
        mine = _usable(process, processes)
        names = _as_domain(process, configured) if process.says.libvirt else _names(mine, configured)
        offer = None
        if not names and not process.says.libvirt:
            offer = _offer(process, mine, taken, directory)
        if offer is not None:
            taken.add(offer.name)
        lacks = () if process.says.libvirt and names else tuple(_lacks(process, mine))
        found.append(Found(process, names, lacks, offer))
    return Vms(tuple(configured), tuple(found), unseen)


def _usable(process: Process, processes: Iterable[Process]) -> tuple[Monitor, ...]:
    """Return the process's monitors; one whose socket a younger process has leads nowhere any more.

    (QEMU removes what is at the path before it binds: util/qemu-sockets.c, unix_listen_saddr.)
    """
    younger = [other for other in processes if (other.started, other.pid) > (process.started, process.pid)]
    takers = {monitor.key: other for other in younger for monitor in other.monitors if monitor.key is not None}
    return tuple(
        monitor if monitor.key not in takers else Monitor(monitor.told, None, _taken(monitor, takers[monitor.key]))
        for monitor in process.monitors
    )


def _taken(monitor: Monitor, other: Process) -> Reason:
    return Reason(
        codes.SOCKET_TAKEN,
        Origin.VCPUCTL,
        f"process {other.pid}, which was started later, has taken the monitor's path {monitor.told}",
        f"give each VM a path of its own: {MONITOR}",
    )


def _names(monitors: Iterable[Monitor], configured: Iterable[Configured]) -> tuple[str, ...]:
    keys = {monitor.key for monitor in monitors if monitor.key is not None}
    return tuple(file.name for file in configured if file.hidden_by is None and file.key in keys)


def _as_domain(process: Process, configured: Iterable[Configured]) -> tuple[str, ...]:
    """Return the names of the VMs that are the domain of this name, of a libvirt of this host."""
    return tuple(
        file.name
        for file in configured
        if file.hidden_by is None and is_here(file.libvirt or "") and file.domain == process.says.name
    )


def _lacks(process: Process, monitors: Sequence[Monitor]) -> Iterator[Reason]:
    """Yield what stands between vcpuctl and this VM, as far as its command line shows."""
    says = process.says
    if says.libvirt:
        yield Reason(
            codes.LIBVIRT_OWNED,
            Origin.VCPUCTL,
            "libvirt started this QEMU and holds its monitor, so it is reached by way of libvirt only",
            f"vcpuctl --domain {domain_word(says.name, 'NAME')} list; vcpuctl vms --connect qemu:///system prints the "
            "command that adds it to vms.d",
        )
        return
    if not monitors:
        others = ", ".join(monitor.told for monitor in says.monitors)
        has = f"; its monitors are {others}" if others else ""
        text = f"QEMU's command line has no QMP monitor on a unix socket on which it listens{has}"
        yield Reason(codes.NO_MONITOR, Origin.VCPUCTL, text, f"start QEMU with {MONITOR}")
    elif all(monitor.here is None for monitor in monitors):
        yield from (monitor.trouble for monitor in monitors if monitor.trouble is not None)
    if says.port is None:
        yield no_channel("virtio-serial")  # an alias that QEMU has on all machines (system/qdev-monitor.c)
    elif not says.port.reachable:
        yield no_socket(Channel(None, False, chardev=says.port.told))
    if says.unread:
        text = f"QEMU may have more than is told here, by what was not read: {', '.join(says.unread)}"
        yield Reason(codes.NOT_READ, Origin.VCPUCTL, text, "vcpuctl --qmp SOCKET doctor asks QEMU itself")


def _offer(process: Process, monitors: Iterable[Monitor], taken: set[str], directory: str) -> Offer | None:
    """Return a file by which the VM is reached; None if it is not reached from here."""
    here = next((monitor.here for monitor in monitors if monitor.here is not None), None)
    if here is None:
        return None
    name = valid_name(process.says.name, taken)
    return Offer(name, f"{directory}/{name}.toml", f"qmp = {toml(here)}")


def domain_word(name: str, other: str) -> str:
    """Return the word of a shell that names a domain: its name, or ``other`` where that cannot be one."""
    return other if not name or name.startswith("-") else shlex.quote(name)


def valid_name(text: str, taken: set[str]) -> str:
    """Return a name for vms.d that is like ``text`` and is not taken."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:_LONGEST_NAME].rstrip("-") or "vm"
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}-{number}"
    return unique


def toml(text: str) -> str:
    """Return the text as a string of TOML that has printable characters only."""
    return f'"{"".join(map(_character, text))}"'


def _character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"
