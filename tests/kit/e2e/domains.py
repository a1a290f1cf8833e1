# SPDX-License-Identifier: Apache-2.0
"""A domain under test, with the real ``vcpuctl`` to resize it through libvirt, and the judgement of what was asked.

Shares no code with the product.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kit.e2e import guestfirst
from kit.e2e.machine import VCPUCTL, Vcpuctl
from kit.ended import Ended
from kit.lab import WaitTimeoutError
from kit.lab.spec import AGENT_READY
from kit.lab.virt import guests
from kit.lab.virt.domain import Domain
from kit.lab.virt.domain_xml import DomainSpec
from kit.lab.virt.ground import OWN
from kit.lab.virt.libvirt_host import LibvirtHost

#: With the standard guest and a record, so that all three sides are seen.
SPEC = DomainSpec(name="web1", guest="debian12-amd64", record=True)
#: The suites whose libvirt has no call for an unplug that waits for nobody (12.4 and newer have), so that a device_del,
#: of what libvirt itself has plugged, is the only way.
_NO_ASYNC_UNPLUG = frozenset({"bookworm"})
#: Seconds for a save, a restore or a migration, and for a guest's end or start, emulated on a busy machine.
_MOVES, _BOOTS = 300.0, 900.0


class BehindLibvirtError(AssertionError):
    """A monitor command did what libvirt has a call for: libvirt's record of the domain is wrong after that."""


class LibvirtVcpuctl:
    """Runs the real ``vcpuctl`` on a domain, as a process."""

    def __init__(self, uri: str, domain: str, module: Mapping[str, str]) -> None:
        """``module`` is the environment with which this interpreter imports libvirt."""
        self.uri, self.domain, self._module = uri, domain, module

    def start(self, *words: str, json_output: bool = True, whole: bool = False) -> subprocess.Popen[str]:
        """Start it and leave it running; the caller waits for it, with ``Vcpuctl.wait``.

        ``whole``: the words themselves say which domains it is about.
        """
        argv = [str(VCPUCTL), *([] if whole else ["--connect", self.uri, "--domain", self.domain])]
        argv += [*(["-o", "json"] if json_output else []), *words]
        environment = {**os.environ, **self._module}
        return subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __call__(self, *words: str, timeout: float = 180.0) -> Ended:
        """Run it to its end."""
        return Vcpuctl.wait(self.start(*words), timeout)

    def text(self, *words: str, timeout: float = 180.0) -> Ended:
        """Run it to its end, with what it says for people."""
        process = self.start(*words, json_output=False)
        stdout, stderr = process.communicate(timeout=timeout)
        return Ended(process.returncode, stdout, stderr)


@dataclass
class DomainMachine:
    """A domain with its ways in: ``vcpuctl`` is at the host's unix socket, ``by`` makes others."""

    domain: Domain
    module: Mapping[str, str]
    #: What there was when the record that is judged at the end begins.
    start: guestfirst.Start = field(default_factory=guestfirst.Start)

    @property
    def vcpuctl(self) -> LibvirtVcpuctl:
        """``vcpuctl`` by the unix socket of the host on which the domain is now."""
        return self.by(self.domain.host.uri)

    def by(self, uri: str) -> LibvirtVcpuctl:
        """``vcpuctl`` by another URI."""
        return LibvirtVcpuctl(uri, self.domain.name, self.module)

    def sides(self) -> dict[str, list[int]]:
        """The vCPUs by slot: online in the guest, plugged in QEMU, enabled in libvirt's record. Seen by the lab."""
        domain = self.domain
        return {"guest": domain.online(), "qemu": domain.slots(), "libvirt": domain.record()}


def save_and_restore(machine: DomainMachine) -> None:
    """``virsh save`` and ``virsh restore``; the domain goes on in a new QEMU, and vcpud has its channel."""
    domain, host = machine.domain, machine.domain.host
    place = f"{OWN}/{domain.name}/saved"
    host.ask("save", domain.name, place, timeout=_MOVES)
    host.ask("restore", place, "--running", timeout=_MOVES)
    domain.moved(host)
    domain.wait_shell(_MOVES)
    guests.wait_channel(domain)


def migrate(machine: DomainMachine, to: LibvirtHost, *options: str) -> None:
    """``virsh migrate --live``; vcpud has its channel. The record until now is judged, and another begins there."""
    domain = machine.domain
    check(domain, machine.start)
    to.forget_log(domain.name)  # of an earlier life there: what came between is not in it
    domain.host.migrate(domain.name, to, *options, timeout=_MOVES)
    domain.moved(to)
    domain.wait_shell(_MOVES)
    machine.start = look(domain)
    guests.wait_channel(domain)


def start_again(machine: DomainMachine) -> None:
    """Have the guest shut itself down, and start the domain from its definition; vcpud is up after that."""
    domain, host = machine.domain, machine.domain.host
    domain.shell("(sync; busybox usleep 1000; poweroff -f) >/dev/null 2>&1 </dev/null &", _BOOTS)
    until = time.monotonic() + _BOOTS
    while host.ask("domstate", domain.name).strip() != "shut off":
        if time.monotonic() > until:
            raise WaitTimeoutError(f"{domain.name} does not shut down within {_BOOTS:.0f} s")
        # it may have ended before anybody waited for that: so not for long, and libvirt is asked once more
        host.virsh("event", domain.name, "--event", "lifecycle", "--timeout", "2")
    host.start(domain.name)
    domain.moved(host)
    domain.wait_shell(_BOOTS)
    domain.shell(f"until {AGENT_READY}; do busybox usleep 200000; done", _BOOTS)
    guests.wait_channel(domain)


def all_three(*slots: int) -> dict[str, list[int]]:
    """What ``sides`` says when these, and no others, are online, plugged and enabled."""
    return {side: sorted(slots) for side in ("guest", "qemu", "libvirt")}


def smp(spec: DomainSpec) -> str:
    """The topology as QEMU's -smp has it."""
    sockets, dies, cores, threads = spec.topology or (spec.max_vcpus, 1, 1, 1)
    return f"{spec.current},maxcpus={spec.max_vcpus},sockets={sockets},dies={dies},cores={cores},threads={threads}"


def look(domain: Domain) -> guestfirst.Start:
    """What there is when the judgement begins, of a domain whose guest answers."""
    slots: dict[str, int] = {}
    for entity in domain.qmp.execute("query-hotpluggable-cpus"):
        path = str(entity.get("qom-path", ""))
        if path:
            slots[path.removeprefix("/machine/peripheral/")] = guestfirst.apic_id(entity["props"], smp(domain.spec))
    online = {
        int(name.removeprefix("cpu")): cpu["apicid"]
        for name, cpu in domain.guest_cpus().items()
        if cpu["online"] and cpu["apicid"] is not None
    }
    return guestfirst.Start(slots, online, frozenset(online.values()))


def check(domain: Domain, start: guestfirst.Start) -> None:
    """Raise GuestNotFirstError if a ``device_del`` came before the CPU's going offline."""
    found = guestfirst.find(domain.qmp_commands(), domain.kernel_log, smp(domain.spec), start)
    if found:
        raise guestfirst.GuestNotFirstError("; ".join(map(str, found)))


def check_host(host: LibvirtHost) -> None:
    """Raise BehindLibvirtError if a client has plugged, or needlessly unplugged, by a monitor command."""
    found = behind_libvirt(host.monitor_commands(), host.suite)
    if found:
        raise BehindLibvirtError(f"behind the back of libvirt of {host.suite}: {found}")


def behind_libvirt(commands: list[dict[str, Any]], suite: str) -> list[dict[str, Any]]:
    """Return the commands for which libvirt of that suite has a call, whichever way they were put."""
    refused = {"device_add"} if suite in _NO_ASYNC_UNPLUG else {"device_add", "device_del"}

    def verb(command: dict[str, Any]) -> str:
        if command["execute"] != "human-monitor-command":
            return str(command["execute"])
        return str(command["arguments"]["command-line"]).split(" ", 1)[0]

    return [command for command in commands if verb(command) in refused]
