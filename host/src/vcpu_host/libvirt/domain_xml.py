# SPDX-License-Identifier: Apache-2.0
"""What libvirt's record of a domain says of its vCPUs and of the agent's channel. Pure: XML in, values out.

libvirt numbers vCPUs by QEMU's possible_cpus: its vCPU N is in slot N on machines whose slots hold one (seen on x86,
with sockets, dies, threads and NUMA cells). The format is https://libvirt.org/formatdomain.html#cpu-allocation.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..core import codes
from ..core.channel import PORT_NAME
from ..core.reason import Origin, Reason
from ..errors import QemuError

#: What a policy makes of a CPU's feature; of one that is optional the host decides.
_POLICIES = {"force": True, "require": True, "disable": False, "forbid": False}


@dataclass(frozen=True, slots=True)
class RecordedVcpu:
    """One vCPU of the record. ``removable``: libvirt lets it go (``hotpluggable``)."""

    enabled: bool
    removable: bool


@dataclass(frozen=True, slots=True)
class DomainRecord:
    """The record. ``vcpus`` are by number; ``most`` is how many there can be.

    ``channel`` says whether the domain has the agent's, ``connected`` whether a program in the guest has it open, as
    libvirt knows it; None if libvirt does not say. ``machine``, ``arch`` and ``accel`` are in QEMU's words. ``serial``:
    it has a controller to which channels can be added. ``acpi``: among its features. ``x2apic`` is what the XML says of
    it, None if nothing: then it is the CPU model's own matter. ``topology`` is that of <cpu>, in -smp's words.
    """

    name: str
    uuid: str
    most: int
    vcpus: Mapping[int, RecordedVcpu]
    channel: bool
    connected: bool | None = None
    machine: str = ""
    arch: str = ""
    accel: str = ""
    serial: bool = False
    acpi: bool = True
    x2apic: bool | None = None
    topology: Mapping[str, int] = field(default_factory=dict)

    def has(self, number: int) -> bool:
        """Return whether the record has this vCPU."""
        vcpu = self.vcpus.get(number)
        return vcpu is not None and vcpu.enabled

    def stays(self, number: int) -> bool:
        """Return whether the record has this vCPU, and libvirt does not let it go."""
        vcpu = self.vcpus.get(number)
        return vcpu is not None and vcpu.enabled and not vcpu.removable


def read(xml: str) -> DomainRecord:
    """Return what the XML says. Raise QemuError "bad-reply" if libvirt does not write such."""
    try:
        root = ET.fromstring(xml)  # noqa: S314 - libvirt wrote it, and what it holds of others it has parsed
        most = int(root.findtext("vcpu") or "0")
        current = int(_attribute(root, "vcpu", "current") or most)
        topology = {level: int(count) for level, count in _attributes(root, "cpu/topology").items()}
        listed = {int(each.attrib["id"]): _vcpu(each.attrib) for each in root.findall("vcpus/vcpu")}
    except (ET.ParseError, ValueError, KeyError) as error:
        text = f"libvirt's XML of the domain is not understood: {error}"
        hint = "please report it with libvirt's version"
        raise QemuError(Reason(codes.BAD_REPLY, Origin.LIBVIRT, text, hint)) from error
    # Without a list all of them are as at the start: libvirt writes one as soon as they differ in anything.
    vcpus = listed or {number: RecordedVcpu(number < current, removable=False) for number in range(most)}
    target = root.find(f"devices/channel/target[@name='{PORT_NAME}']")
    state = None if target is None else target.get("state")
    return DomainRecord(
        root.findtext("name") or "",
        root.findtext("uuid") or "",
        most,
        vcpus,
        channel=target is not None,
        connected=None if state is None else state == "connected",
        machine=_attribute(root, "os/type", "machine") or "",
        arch=_attribute(root, "os/type", "arch") or "",
        accel="tcg" if root.get("type") == "qemu" else root.get("type") or "",
        serial=root.find("devices/controller[@type='virtio-serial']") is not None,
        acpi=root.find("features/acpi") is not None,
        x2apic=_POLICIES.get(_attributes(root, "cpu/feature[@name='x2apic']").get("policy", "")),
        topology=topology,
    )


def _attributes(root: ET.Element, path: str) -> Mapping[str, str]:
    found = root.find(path)
    return {} if found is None else found.attrib


def _vcpu(attributes: Mapping[str, str]) -> RecordedVcpu:
    enabled = attributes["enabled"] == "yes"
    return RecordedVcpu(enabled, removable=not enabled or attributes.get("hotpluggable") == "yes")


def _attribute(root: ET.Element, path: str, name: str) -> str | None:
    found = root.find(path)
    return None if found is None else found.get(name)
