# SPDX-License-Identifier: Apache-2.0
"""A stand-in for libvirt's modules and their connections, which can be made to hang, to fail and to be lost."""

from __future__ import annotations

import json
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

from kit.fakes.libvirt_stream import FakeStream, LibvirtError


class FakeConnect:
    """A virConnect. ``closed`` says how often it was ended.

    As with libvirt's own, ``close`` ends nothing while a callback is registered, and returns 1 (seen on 9.0).
    """

    def __init__(self, module: FakeLibvirt) -> None:
        self._module = module
        self.closed = 0
        self.alive = True
        self.hears: Callable[[Any, int, object], None] | None = None
        #: Callbacks of events, by their number, and how many were registered so far.
        self.callbacks: dict[int, Any] = {}
        self.registered = 0

    @property
    def open(self) -> bool:
        """Whether it still costs: a thread of libvirt's, a socket, a process of ssh."""
        return not self.closed or bool(self.callbacks)

    def getLibVersion(self) -> int:  # noqa: N802 - libvirt calls it so
        if self._module.sick is not None:
            raise self._module.sick
        return 12_008_000

    def getType(self) -> str:  # noqa: N802
        return self._module.kind

    def isAlive(self) -> int:  # noqa: N802
        return int(self.alive)

    def getCapabilities(self) -> str:  # noqa: N802
        return "<capabilities><host><uuid>host</uuid></host></capabilities>"

    def lookupByName(self, name: str) -> FakeDomain:  # noqa: N802
        domain = FakeDomain(name, self._module)
        domain.there()
        return domain

    def lookupByUUIDString(self, uuid: str) -> FakeDomain:  # noqa: N802
        return self.lookupByName(uuid)

    def newStream(self, flags: int) -> FakeStream:  # noqa: N802
        assert flags == FakeLibvirt.VIR_STREAM_NONBLOCK
        return self._module.stream()

    def registerCloseCallback(self, hears: Callable[[Any, int, object], None], opaque: object) -> None:  # noqa: N802
        assert opaque is None
        self.hears = hears

    def unregisterCloseCallback(self) -> None:  # noqa: N802
        self.hears = None

    def domainEventRegisterAny(self, domain: Any, event: int, hears: Any, opaque: object) -> int:  # noqa: N802
        assert (event, opaque) == (0, None)
        assert domain is not None, "that would be all domains"
        if self._module.no_events is not None:
            raise self._module.no_events
        return self.register(hears)

    def domainEventDeregisterAny(self, number: int) -> None:  # noqa: N802
        del self.callbacks[number]

    def register(self, hears: Any) -> int:
        """Keep a callback, and return its number."""
        self.registered += 1
        self.callbacks[self.registered] = hears
        return self.registered

    def setKeepAlive(self, seconds: int, count: int) -> None:  # noqa: N802
        assert seconds > 0 < count

    def close(self) -> int:
        self.closed += 1
        return int(bool(self.callbacks))

    def lose(self) -> None:
        """The daemon ends: libvirt tells of it in its thread of events."""
        assert self.hears is not None
        thread = threading.Thread(target=self.hears, args=(self, 1, None))
        thread.start()
        thread.join()


class FakeDomain:
    """A virDomain, found by its name."""

    CONFIG = INACTIVE = 2

    def __init__(self, name: str, module: FakeLibvirt) -> None:
        self.name = name
        self._module = module

    def there(self) -> None:
        """Raise what each call does once the domain has ended for good."""
        if self._module.vanished:
            raise LibvirtError(f"Domain not found: no domain with matching name '{self.name}'", 42, 10)

    def XMLDesc(self, flags: int) -> str:  # noqa: N802
        self.there()
        vcpus = (
            f"<vcpu>8</vcpu><vcpus>{self._module.definition}</vcpus>" if flags == self.INACTIVE else "<vcpu>2</vcpu>"
        )
        return f"<domain><name>{self.name}</name><uuid>uuid</uuid>{vcpus}</domain>"

    def openChannel(self, name: str, stream: FakeStream, flags: int) -> None:  # noqa: N802
        assert name == "org.vcpuctl.agent.0"
        if self._module.no_channel is not None:
            raise self._module.no_channel
        holder, self._module.holder = self._module.holder, stream
        if flags == FakeLibvirt.VIR_DOMAIN_CHANNEL_FORCE and holder is not None:
            self._module.forced.append(stream)
            holder.freed.set()

    def setVcpu(self, vcpus: str, state: int, flags: int) -> None:  # noqa: N802
        assert vcpus.isdigit()
        self.there()
        if flags == self.CONFIG:
            self._module.define(int(vcpus), state)

    def UUIDString(self) -> str:  # noqa: N802 - libvirt calls it so
        return "uuid"

    def isPersistent(self) -> int:  # noqa: N802
        return 1


class FakeLibvirt:
    """The module. ``hang`` has whoever opens a connection wait until ``goes_on`` is set; ``refuse`` fails it.

    ``turns_away``: so many attempts sshd closes before any login. ``opening`` says how many are being opened, ``most``
    how many that were at once. ``sick``: the first call of an open connection fails with it; ``no_events``: the
    registering of events does, ``no_channel``: the opening of a channel. ``vanished``: no domain is there (any more).
    ``stream`` makes a stream, ``holder`` is the one that has the agent's channel, ``forced`` are those that took it by
    force. ``definition`` has the vCPUs of each domain's; ``defined`` is what was changed of it.
    """

    libvirtError = LibvirtError  # noqa: N815
    VIR_DOMAIN_EVENT_ID_LIFECYCLE = 0
    VIR_STREAM_NONBLOCK = 1
    VIR_DOMAIN_CHANNEL_FORCE = 1
    VIR_STREAM_EVENT_READABLE, VIR_STREAM_EVENT_ERROR, VIR_STREAM_EVENT_HANGUP = 1, 4, 8

    def __init__(self) -> None:
        self.opened: list[FakeConnect] = []
        self.attempts = 0
        self.hang = False
        self.refuse = False
        self.goes_on = threading.Event()
        self.kind = "QEMU"
        self.sick: LibvirtError | None = None
        self.no_events: LibvirtError | None = None
        self.no_channel: LibvirtError | None = None
        self.vanished = False
        self.stream: Callable[[], FakeStream] = FakeStream
        self.holder: FakeStream | None = None
        self.forced: list[FakeStream] = []
        self.definition = ""
        self.defined: list[tuple[int, int]] = []
        self.turns_away = 0
        self.opening = self.most = 0
        self._counting = threading.Lock()

    def define(self, number: int, state: int) -> None:
        """As src/qemu/qemu_hotplug.c: qemuDomainVcpuValidateConfig, then qemuDomainSetVcpuConfig.

        Whether the vCPU is in that state already is asked of the running domain alone.
        """
        vcpus = {int(vcpu.attrib["id"]): vcpu for vcpu in ET.fromstring(f"<vcpus>{self.definition}</vcpus>")}
        if number == 0:
            raise LibvirtError("invalid argument: vCPU '0' can't be modified", 8, 10)
        for after, vcpu in vcpus.items():
            if after > number and (vcpu.get("enabled"), vcpu.get("hotpluggable")) == ("yes", "no"):
                text = f"vcpu '{number}' can't be modified as it is followed by non-hotpluggable online vcpus"
                raise LibvirtError(f"invalid argument: {text}", 8, 10)
        if number in vcpus:
            vcpus[number].attrib.update(enabled="yes" if state else "no", hotpluggable="yes")
        self.definition = "".join(ET.tostring(vcpu, encoding="unicode") for vcpu in vcpus.values())
        self.defined.append((number, state))

    def openReadOnly(self, uri: str) -> FakeConnect:  # noqa: N802
        assert uri
        with self._counting:
            self.attempts += 1
            self.opening += 1
            self.most = max(self.most, self.opening)
            turned_away, self.turns_away = self.turns_away > 0, max(0, self.turns_away - 1)
        try:
            return self._opened(turned_away)
        finally:
            with self._counting:
                self.opening -= 1

    open = openReadOnly

    def _opened(self, turned_away: bool) -> FakeConnect:
        if self.hang:
            assert self.goes_on.wait(60)
        if self.refuse:
            raise LibvirtError("no such daemon")
        if turned_away:
            text = "Cannot recv data: kex_exchange_identification: Connection closed by remote host"
            raise LibvirtError(f"{text}: Connection reset by peer", 38)
        connect = FakeConnect(self)
        self.opened.append(connect)
        return connect


class FakeMonitorModule:
    """The module ``libvirt_qemu``. ``answers`` are QEMU's, by the command; one that is an error is raised."""

    def __init__(self, **answers: object) -> None:
        self.answers = {command.replace("_", "-"): answer for command, answer in answers.items()}
        self.sent: list[str] = []

    def qemuMonitorEventRegister(  # noqa: N802 - libvirt calls it so
        self, connect: FakeConnect, domain: Any, event: object, hears: Any, opaque: object, flags: int
    ) -> int:
        assert (event, opaque, flags) == (None, None, 0)
        assert domain is not None, "that would be all domains"
        return connect.register(hears)

    def qemuMonitorEventDeregister(self, connect: FakeConnect, number: int) -> None:  # noqa: N802
        connect.domainEventDeregisterAny(number)

    def qemuMonitorCommand(self, domain: Any, message: str, flags: int) -> str:  # noqa: N802
        assert (domain is not None, flags) == (True, 0)
        command = json.loads(message)["execute"]
        self.sent.append(command)
        answer = self.answers[command]
        if isinstance(answer, Exception):
            raise answer
        return json.dumps({"return": answer})
