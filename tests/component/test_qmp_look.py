# SPDX-License-Identifier: Apache-2.0
"""What one look at a machine reads: what may change each time, what cannot change once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.component.adapter import machine
from vcpu_host.errors import QemuError


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="vq", dir="/tmp") as name:
        yield Path(name)


async def test_what_cannot_change_is_asked_for_once(folder: Path) -> None:
    async with machine(folder) as (qemu, vmm):
        first = await vmm.look()
        assert await vmm.look() == first
        asked = [command for _, command, _ in qemu.log]
    assert (asked.count("query-target"), asked.count("query-name"), asked.count("query-status")) == (1, 1, 2)


async def test_who_has_which_id_is_seen_in_every_look(folder: Path) -> None:
    async with machine(folder, devices="vcpu-1:virtio-rng-pci") as (qemu, vmm):
        view = await vmm.look()
        others = {"root-disk": "virtio-blk-pci", "port0": "virtserialport", "vcpu-1": "virtio-rng-pci"}
        assert view.devices == others
        await vmm.plug(view.slots[2])
        assert (await vmm.look_slots(view)).devices == {**others, "vcpu-2": qemu.config.cpu_type}
        with pytest.raises(QemuError) as caught:
            await vmm.plug(view.slots[1])
        assert caught.value.reason.code == "duplicate-id"


@pytest.mark.parametrize("x2apic", [True, False])
async def test_what_the_cpu_model_can_is_asked_of_the_first_cpu_and_once(folder: Path, x2apic: bool) -> None:
    async with machine(folder, x2apic=x2apic) as (qemu, vmm):
        view = await vmm.look()
        assert view.cpu_properties == {"x2apic": x2apic, "hypervisor": True, "kvm": True}
        assert (await vmm.look()).cpu_properties == (await vmm.look_slots(view)).cpu_properties == view.cpu_properties
        asked = [args for _, command, args in qemu.log if command == "qom-get" and args["property"] == "x2apic"]
    assert [args["path"] for args in asked] == ["/machine/unattached/device[0]"]


async def test_a_cpu_that_has_no_such_property_says_nothing_of_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with machine(folder) as (qemu, vmm):
        whole = qemu.properties
        monkeypatch.setattr(
            qemu, "properties", lambda path: {k: v for k, v in (whole(path) or {}).items() if k != "x2apic"}
        )
        assert "x2apic" not in (await vmm.look()).cpu_properties


async def test_an_iommu_is_asked_once_what_it_remaps(folder: Path) -> None:
    async with machine(folder, devices="iommu0:intel-iommu") as (qemu, vmm):
        assert (await vmm.look()).iommu == (await vmm.look()).iommu == {"intremap": "on", "eim": "on"}
        assert sum(args.get("property") == "eim" for _, command, args in qemu.log if command == "qom-get") == 1


async def test_a_machine_without_an_iommu_has_nothing_to_say_of_it(folder: Path) -> None:
    async with machine(folder) as (_, vmm):
        assert (await vmm.look()).iommu == {}


async def test_a_guest_whose_acpi_is_not_up_has_no_driver_for_the_port_either(folder: Path) -> None:
    async with machine(folder, boots=False) as (qemu, vmm):
        before = (await vmm.look()).channel
        await qemu.machine.boot()
        after = (await vmm.look()).channel
        assert before is not None
        assert after is not None
        assert (before.acpi_up, after.acpi_up) == (False, None)


@pytest.mark.parametrize("facts", [{"machine": "pc-i440fx-2.6"}, {"machine": "pc-q35-2.6"}, {"acpi": False}])
async def test_a_list_that_is_empty_for_good_tells_nothing_of_the_boot(folder: Path, facts: dict[str, Any]) -> None:
    async with machine(folder, **facts) as (_, vmm):
        port = (await vmm.look()).channel
        assert port is not None
        assert (port.guest_open, port.acpi_up) == (False, None)
