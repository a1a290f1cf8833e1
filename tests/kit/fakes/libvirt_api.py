# SPDX-License-Identifier: Apache-2.0
"""A libvirt in this process: as much of its Python module as lists domains and adds devices."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import Any

import pytest
from vcpu_host.libvirt import binding

LIVE, CONFIG, INACTIVE = 1, 2, 2
CHANNEL = "<channel type='unix'><target type='virtio' name='org.vcpuctl.agent.0'/></channel>"
CONTROLLER = "<controller type='virtio-serial'/>"


class FakeError(Exception):
    """As libvirt.libvirtError."""

    def __init__(self, code: int, words: str, domain: int = 10) -> None:
        super().__init__(words)
        self._code, self._words, self._domain = code, words, domain

    def get_error_domain(self) -> int:
        return self._domain

    def get_error_code(self) -> int:
        return self._code

    def get_error_message(self) -> str:
        return self._words


@dataclass
class FakeDomain:
    """A domain; ``running`` and ``defined`` are the devices of its definitions, None where it has no such."""

    named: str
    running: str | None = ""
    defined: str | None = ""
    vcpu: str = "<vcpu current='1'>4</vcpu>"
    #: libvirt's error for each call of the name.
    fails: dict[str, FakeError] = field(default_factory=dict)
    #: What libvirt refuses to add, by the impact.
    refuses: dict[int, FakeError] = field(default_factory=dict)
    #: What was added, with the impact.
    added: list[tuple[str, int]] = field(default_factory=list)

    def name(self) -> str:
        return self.named

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's
        return f"uuid-of-{self.named}"

    def state(self) -> list[int]:
        self._may("state")
        return [1 if self.running is not None else 5, 0]

    def isActive(self) -> int:  # noqa: N802 - libvirt's
        return int(self.running is not None)

    def isPersistent(self) -> int:  # noqa: N802 - libvirt's
        return int(self.defined is not None)

    def XMLDesc(self, flags: int) -> str:  # noqa: N802 - libvirt's
        self._may("XMLDesc")
        devices = self.defined if flags & INACTIVE or self.running is None else self.running
        return (
            f"<domain><name>{self.named}</name><uuid>{self.UUIDString()}</uuid>{self.vcpu}"
            f"<devices>{devices}</devices></domain>"
        )

    def attachDeviceFlags(self, xml: str, flags: int) -> int:  # noqa: N802 - libvirt's
        ET.fromstring(xml)
        if flags in self.refuses:
            raise self.refuses[flags]
        self.added.append((xml, flags))
        if flags == LIVE:
            self.running = f"{self.running}{xml}"
        else:
            self.defined = f"{self.defined}{xml}"
        return 0

    def _may(self, call: str) -> None:
        if call in self.fails:
            raise self.fails[call]


class FakeLibvirt:
    """The module ``libvirt``; ``opened`` has each connection that was opened, and how."""

    libvirtError = FakeError  # noqa: N815 - libvirt's

    def __init__(self, *domains: FakeDomain, kind: str = "QEMU") -> None:
        self.domains = list(domains)
        self.kind = kind
        self.opened: list[tuple[str, str]] = []

    def take_the_place(self, monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
        """Be what the adapter loads."""
        monkeypatch.setattr(binding, "module", lambda: self)
        return self

    def open(self, uri: str) -> FakeConnection:
        self.opened.append((uri, "all"))
        return FakeConnection(self)

    def openReadOnly(self, uri: str) -> FakeConnection:  # noqa: N802 - libvirt's
        self.opened.append((uri, "read"))
        return FakeConnection(self)


class FakeConnection:
    """As virConnect."""

    def __init__(self, libvirt: FakeLibvirt) -> None:
        self._libvirt = libvirt

    def getLibVersion(self) -> int:  # noqa: N802 - libvirt's
        return 12_008_000

    def getType(self) -> str:  # noqa: N802 - libvirt's
        return self._libvirt.kind

    def isAlive(self) -> int:  # noqa: N802 - libvirt's
        return 1

    def registerCloseCallback(self, *words: Any) -> None:  # noqa: N802 - libvirt's
        pass

    def unregisterCloseCallback(self) -> None:  # noqa: N802 - libvirt's
        pass

    def setKeepAlive(self, *words: int) -> None:  # noqa: N802 - libvirt's
        pass

    def close(self) -> int:
        return 0

    def listAllDomains(self) -> list[FakeDomain]:  # noqa: N802 - libvirt's
        return self._libvirt.domains

    def lookupByName(self, name: str) -> FakeDomain:  # noqa: N802 - libvirt's
        for domain in self._libvirt.domains:
            if domain.named == name:
                return domain
        raise FakeError(42, f"Domain not found: no domain with matching name '{name}'")
