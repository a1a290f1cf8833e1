# SPDX-License-Identifier: Apache-2.0
"""A domain of a real libvirt under chaos, and the faults that are to be had there alone."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kit.chaos.choice import OF_DOMAINS, Fault, Shape, When
from kit.chaos.home import Deed, LetPass, Look, NotMendedError
from kit.e2e import domains
from kit.e2e.platforms import SlotOf, by_acpi_path
from kit.lab.cache import Entry
from kit.lab.guest import Image
from kit.lab.record import Record
from kit.lab.spec import AGENT_PORT
from kit.lab.virt import guests
from kit.lab.virt.domain import Domain
from kit.lab.virt.domain_xml import DomainSpec
from kit.lab.virt.libvirt_host import LibvirtHost

#: Seconds to save a domain, and to start it from that.
_MOVE = 300.0
#: Seconds for a small process of libvirt's module to come to its call, and for libvirtd to be there again.
_SOON, _DAEMON = 30.0, 60.0
#: QEMU's stamps and this process's clock may differ so much, in seconds.
_STAMPS = 0.02
#: What libvirtd adds to QEMU's log when a domain has ended.
_LAST_WORDS = "shutting down"
#: Another client of the channel: connects, opens it, says so, sends what it was given (hexadecimal), and holds it.
_CLIENT = """
import sys, threading, libvirt
uri, name, port, force, data, seconds = sys.argv[1:]
connection = libvirt.open(uri)
stream = connection.newStream(0)
connection.lookupByName(name).openChannel(port, stream, libvirt.VIR_DOMAIN_CHANNEL_FORCE if force == "force" else 0)
print("held", flush=True)
if data:
    stream.send(bytes.fromhex(data))
threading.Event().wait(float(seconds))
"""


@dataclass
class Doing:
    """Something that libvirt is made to do beside vcpuctl; ``target`` is the device it is about, "" for any."""

    began: float
    ended: float
    target: str


class LibvirtHome:
    """A domain with vcpud on a host of the lab: see ``home.Home``."""

    def __init__(
        self, host: LibvirtHost, spec: DomainSpec, saved: tuple[Entry, Image], environment: Mapping[str, str]
    ) -> None:
        """Restore it. ``environment`` has libvirt's module for this interpreter; ``saved`` is the spec's saved state.

        Raises LabError.
        """
        self._host, self._spec, self._saved, self.environment = host, spec, saved, environment
        self.shape = Shape(
            threads=1,
            slots=spec.max_vcpus,
            without=frozenset({"link-drop", "link-garbage-host", "raw-add", "raw-del", "taken-id", "revert"}),
            also=OF_DOMAINS,
        )
        self.slot_of: SlotOf = by_acpi_path
        self.traced = True
        self.removals: list[str] = []
        self.deeds: Mapping[str, Deed] = {
            "libvirtd-restart": lambda _fault, _wait: self._libvirtd_restart(),
            "libvirtd-kill": self._libvirtd_kill,
            "channel-held": self._client,
            "channel-stolen": self._client,
            "channel-garbage": self._client,
            "operator-plug": lambda fault, _wait: self._operator(fault, "--enable"),
            "operator-unplug": lambda fault, _wait: self._operator(fault, "--disable", "--async"),
            "over-ssh": lambda _fault, _wait: self._over(self._host.ssh_uri),
            "over-tcp": lambda _fault, _wait: self._over(self._host.tcp_uri),
            "ssh-ended": lambda _fault, _wait: self._host.end_ssh(),
            "network-cut": self._network_cut,
        }
        self.uri = host.uri
        self._doings: list[Doing] = []
        self._clients: list[subprocess.Popen[bytes]] = []
        #: Brings libvirtd back, where it was killed before an operation.
        self._revival: threading.Timer | None = None
        self._told = len(host.monitor_commands())
        self._domain = guests.restore(host, spec, *saved)

    @property
    def vm(self) -> Domain:
        """See ``Home``."""
        return self._domain

    @property
    def record(self) -> Record:
        """See ``Home``."""
        return self._domain.qemu_record

    @property
    def alive(self) -> bool:
        """See ``Home``."""
        return not self._domain.qmp.closed

    @property
    def smp(self) -> str:
        """See ``Home``."""
        return domains.smp(self._spec)

    @property
    def plugs_left(self) -> int:
        """See ``Home``: as ``Vm.plugs_left`` counts, which says why."""
        adds = [said for _, said in self._domain.qmp_commands() if said.get("execute") == "device_add"]
        return self._spec.max_vcpus - self._spec.current - sum("-cpu" in said["arguments"]["driver"] for said in adds)

    def options(self, look: Look) -> tuple[str, ...]:
        """See ``Home``."""
        del look  # the console says all
        return ("--domain", self._spec.name, "--connect", self.uri)

    def commands(self) -> list[tuple[float, dict[str, Any]]]:
        """See ``Home``: libvirt's own ids do not say for whom it sends a command."""
        return marked(self._domain.qmp_commands(), self._doings)

    def again(self) -> None:
        """See ``Home``."""
        self.release()
        self._domain.end()
        self.removals.clear()
        self._doings.clear()
        self._domain = guests.restore(self._host, self._spec, *self._saved)

    def move(self, before_end: Callable[[], None]) -> None:
        """See ``Home``: a managed save, and a start from that."""
        self._back()
        name = self._spec.name
        with self._doing(""):
            self._host.ask("managedsave", name, "--running", timeout=_MOVE)
            record = self.record
            record.wait(lambda: any(_LAST_WORDS in line for line in record.messages), _SOON)
            before_end()
            self._host.forget_log(name)
            self._host.ask("start", name, timeout=_MOVE)
        self._domain.moved(self._host)

    def snapshot(self) -> None:
        """See ``Home``: ``shape`` has no revert."""
        raise NotMendedError("a domain has no snapshots here")

    def revert(self) -> None:
        """See ``snapshot``."""
        self.snapshot()

    def release(self) -> None:
        """Let go of the channel, and have libvirtd back; vcpuctl gets to it by its unix socket again."""
        for client in self._clients:
            _end(client)
        self._clients.clear()
        self._host.ground.cut(False)
        self._over(self._host.uri)
        self._back()

    def agent_there(self) -> bool:
        """See ``Home``."""
        chardevs = self._domain.qmp.execute("query-chardev")
        return any(AGENT_PORT in item["filename"] and item["frontend-open"] for item in chardevs)

    def disagreements(self) -> list[str]:
        """See ``Home``: libvirt's record has the slots that are filled."""
        return differ(self._domain.slots(), self._domain.record())

    def misdeeds(self) -> list[str]:
        """See ``Home``: nothing is plugged or unplugged behind libvirt's back."""
        commands = self._host.monitor_commands()
        fresh, self._told = commands[self._told :], len(commands)
        behind = domains.behind_libvirt(fresh, self._host.suite)
        return [f"behind libvirt's back: {command}" for command in behind]

    def close(self) -> None:
        """End the domain."""
        self.release()
        self._domain.end()

    # -- faults --------------------------------------------------------------------------------------------------------

    def _libvirtd_restart(self) -> None:
        self._back()
        self._host.restart_daemon()

    def _libvirtd_kill(self, fault: Fault, wait: LetPass) -> None:
        self._back()
        self._host.kill_daemon()
        if fault.when is When.BEFORE:
            # into the operation
            self._revival = threading.Timer(fault.seconds, self._host.start_daemon)
            self._revival.start()
        else:
            wait(fault.seconds)
            self._host.start_daemon()

    def _back(self) -> None:
        """Wait until libvirtd is there, if it was killed for a while."""
        if self._revival is not None:
            self._revival.join(_DAEMON)
            self._revival = None

    def _client(self, fault: Fault, wait: LetPass) -> None:
        self._back()
        force = "force" if fault.name == "channel-stolen" else "free"
        seconds = 0.0 if fault.name == "channel-garbage" else fault.seconds
        words = [self._host.uri, self._spec.name, AGENT_PORT, force, fault.data.hex(), str(seconds)]
        client = subprocess.Popen(
            [sys.executable, "-c", _CLIENT, *words],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._clients.append(client)
        assert client.stdout is not None
        held = client.stdout.readline()  # or its end: somebody has the channel, as it may be
        if held and fault.when is not When.BEFORE:
            wait(seconds)
            _end(client)

    def _operator(self, fault: Fault, *flags: str) -> None:
        self._back()
        target = f"vcpu{fault.slot}"
        with self._doing(target):
            done = self._host.virsh("setvcpu", self._spec.name, str(fault.slot), *flags, "--live")
        if done.returncode == 0 and "--disable" in flags:
            self.removals.append(target)

    def _over(self, uri: str) -> None:
        self.uri = uri

    def _network_cut(self, fault: Fault, wait: LetPass) -> None:
        self._host.ground.cut()
        wait(fault.seconds)
        self._host.ground.cut(False)

    @contextmanager
    def _doing(self, target: str) -> Iterator[None]:
        doing = Doing(time.monotonic(), math.inf, target)
        self._doings.append(doing)
        try:
            yield
        finally:
            doing.ended = time.monotonic()


def marked(
    commands: Sequence[tuple[float, dict[str, Any]]], doings: Sequence[Doing]
) -> list[tuple[float, dict[str, Any]]]:
    """Return the commands, with an id of the lab's where others than vcpuctl are the reason: by time and device."""

    def others(when: float, command: Mapping[str, Any]) -> bool:
        target = str(command.get("arguments", {}).get("id"))
        return command.get("execute") in ("device_add", "device_del") and any(
            doing.began - _STAMPS <= when <= doing.ended + _STAMPS and doing.target in ("", target) for doing in doings
        )

    return [
        (when, {**command, "id": f"lab-{command.get('id')}"} if others(when, command) else command)
        for when, command in commands
    ]


def differ(slots: Sequence[int], record: Sequence[int]) -> list[str]:
    """What libvirt's record of a domain says otherwise than QEMU, in words."""
    if sorted(slots) == sorted(record):
        return []
    return [f"QEMU has vCPUs in slots {sorted(slots)}, and libvirt's record has {sorted(record)}"]


def _end(client: subprocess.Popen[bytes]) -> None:
    client.kill()
    client.wait()
    if client.stdout is not None:
        client.stdout.close()
