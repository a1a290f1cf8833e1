# SPDX-License-Identifier: Apache-2.0
"""What each platform module says of its machines."""

from __future__ import annotations

import pytest
from kit.sim.views import host
from vcpu_host.core import platforms
from vcpu_host.core.finding import Level
from vcpu_host.core.model import HostView, Ost, Slot, freeze_props
from vcpu_host.core.platforms import Platform, machine_properties, platform_for, unknown
from vcpu_host.core.reason import Origin, Reason

_NO_HOTPLUG = Reason("no-hotplug", Origin.QEMU, "machine does not support hot-plugging CPUs")


def _machine(arch: str, machine: str, *, threads: int = 1, accel: str = "tcg", **fields: object) -> HostView:
    """Four slots of so many threads, as pseries and s390x have them."""
    slots = tuple(
        Slot(i, "cpu", freeze_props({"core-id": i * threads}), threads, filled=True, at_start=True) for i in range(4)
    )
    view = host(4, slots=slots, accel=accel)
    return view._replace(arch=arch, machine=machine, **fields)  # type: ignore[arg-type]


def _names(view: HostView, index: int) -> tuple[str, ...]:
    return platform_for(view).firmware_ids(view, view.slots[index])


@pytest.mark.parametrize(
    ("arch", "machine", "name"),
    [
        ("x86_64", "pc-q35-10.0", "ACPI (pc, q35)"),
        ("i386", "pc-i440fx-7.2", "ACPI (pc, q35)"),
        ("ppc64", "pseries-10.0", "PAPR (pseries)"),
        ("ppc64", "powernv10", "unknown"),
        ("s390x", "s390-ccw-virtio-9.0", "SCLP (s390-ccw-virtio)"),
        ("loongarch64", "virt", "ACPI (LoongArch virt)"),
        ("sparc64", "sun4u", "unknown"),
    ],
)
def test_each_machine_finds_its_platform(arch: str, machine: str, name: str) -> None:
    assert platform_for(_machine(arch, machine)).name == name


@pytest.mark.parametrize(("arch", "machine"), [("aarch64", "virt-11.1"), ("riscv64", "virt"), ("x86_64", "microvm")])
def test_a_machine_without_hotplug_keeps_its_cpus_and_names_them_by_place(arch: str, machine: str) -> None:
    view = _machine(arch, machine, no_hotplug=_NO_HOTPLUG)
    platform = platform_for(view)
    assert platform.name == "fixed CPUs"
    assert [_names(view, index) for index in range(4)] == [("boot:0",), ("boot:1",), ("boot:2",), ("boot:3",)]
    assert platform.cannot_plug(view, view.slots[1]) is platform.cannot_unplug(view, view.slots[1]) is _NO_HOTPLUG


def test_acpi_names_are_the_slots_in_hexadecimal() -> None:
    view = host(16)
    assert _names(view, 10) == ("acpi:\\_SB_.CPUS.C00A",)
    assert _names(view._replace(arch="loongarch64"), 10) == ("acpi:\\_SB_.CPUS.C00A",)


def test_the_threads_of_a_pseries_core_bear_its_vcpu_ids() -> None:
    assert _names(_machine("ppc64", "pseries-10.0"), 3) == ("papr:3",)
    assert _names(_machine("ppc64", "pseries-10.0", threads=2), 3) == ("papr:6", "papr:7")


def test_a_vsmt_wider_than_the_cores_sets_their_ids_apart() -> None:
    """Core-id 6 is the fourth core: with vsmt=8 its threads are 24 and 25 (spapr_vcpu_id), not 6 and 7."""
    view = _machine("ppc64", "pseries-2.11", threads=2, properties={"vsmt": 8})
    assert _names(view, 3) == ("papr:24", "papr:25")
    assert _names(view._replace(properties={"vsmt": 0}), 3) == ("papr:6", "papr:7")


def test_an_s390x_core_is_known_by_its_address_and_never_unplugged() -> None:
    view = _machine("s390x", "s390-ccw-virtio-10.0")
    assert _names(view, 2) == ("s390:2",)
    for slot in view.slots:
        reason = platform_for(view).cannot_unplug(view, slot)
        assert reason is not None
        assert (reason.code, reason.who) == ("no-unplug", Origin.QEMU)
        assert f"vcpuctl offline {slot.index}" in reason.hint
        assert platform_for(view).cannot_plug(view, slot) is None


@pytest.mark.parametrize(("arch", "machine"), [("x86_64", "pc"), ("ppc64", "pseries-9.0"), ("loongarch64", "virt")])
def test_the_first_slot_stays(arch: str, machine: str) -> None:
    view = _machine(arch, machine)
    reason = platform_for(view).cannot_unplug(view, view.slots[0])
    assert reason is not None
    assert reason.code == "boot-cpu"
    assert platform_for(view).cannot_unplug(view, view.slots[1]) is None


def test_types_from_before_2_7_keep_every_cpu_and_offer_no_other_slot() -> None:
    view = host(4)._replace(machine="pc-i440fx-2.6")
    reasons = [platform_for(view).cannot_unplug(view, slot) for slot in view.slots]
    assert {reason.code for reason in reasons if reason} == {"no-unplug"}
    assert all(reason is not None for reason in reasons)
    hints = [reason.hint for reason in reasons if reason]
    assert "another slot" not in hints[0]
    assert "vcpuctl offline" not in hints[0], "its guest keeps the boot CPU online"
    assert "vcpuctl offline 3" in hints[3]


def test_only_acpi_reads_ost() -> None:
    refused, ejected, added = Ost(3, 0x82), Ost(0x103, 0), Ost(1, 0)
    acpi = platform_for(_machine("loongarch64", "virt"))
    papr = platform_for(_machine("ppc64", "pseries-9.0"))
    assert (acpi.acknowledges, papr.acknowledges) == (True, False)
    assert (acpi.refusal(refused) is None, papr.refusal(refused) is None) == (False, True)
    assert (acpi.ejected(ejected), papr.ejected(ejected)) == (True, False)
    assert (acpi.acknowledged(added), papr.acknowledged(added)) == (True, False)


@pytest.mark.parametrize(
    ("arch", "machine", "threads", "version", "codes"),
    [
        ("x86_64", "pc", 1, (7, 2, 22), {"tcg-flat-apic", "tcg-replug"}),
        ("x86_64", "pc", 1, (10, 0, 2), {"tcg-plug-budget"}),
        ("ppc64", "pseries-10.0", 2, (10, 0, 13), {"tcg-plug-budget", "tcg-core-unplug"}),
        ("ppc64", "pseries-10.0", 1, (10, 0, 13), {"tcg-plug-budget"}),
        ("ppc64", "pseries-11.1", 2, (11, 1, 3), {"tcg-plug-budget"}),
        ("s390x", "s390-ccw-virtio-10.0", 1, (10, 0, 13), {"tcg-plug-budget"}),
        ("s390x", "s390-ccw-virtio-11.1", 1, (11, 1, 3), {"tcg-plug-budget", "tcg-s390x-plug"}),
        ("loongarch64", "virt", 1, (10, 0, 13), {"tcg-plug-budget", "loongarch-acpi"}),
        ("loongarch64", "virt", 1, (11, 1, 3), {"tcg-plug-budget"}),
    ],
)
def test_known_bugs_are_told_of_the_machines_that_have_them(
    arch: str, machine: str, threads: int, version: tuple[int, int, int], codes: set[str]
) -> None:
    view = _machine(arch, machine, threads=threads, accel="tcg", qemu_version=version)
    found = list(platform_for(view).known_bugs(view))
    assert {finding.code for finding in found} == codes
    assert all(finding.fix and finding.level in (Level.WARNING, Level.PROBLEM) for finding in found)
    under_kvm = list(platform_for(view).known_bugs(view._replace(accel="kvm")))
    assert {finding.code for finding in under_kvm} <= {"loongarch-acpi", "plug-numbers"}
    assert not any(finding.code.startswith("tcg") for finding in under_kvm)


def test_a_platform_that_restricts_slots_says_so_and_no_other_is_asked() -> None:
    """What a platform says of its slots counts only where ``restricts`` says that there is anything to be said."""
    for platform in (*platforms._TABLE, unknown.PLATFORM):
        kind = type(platform)
        says = any(getattr(kind, name) is not getattr(Platform, name) for name in ("cannot_plug", "guest_cannot_use"))
        assert says is (kind.restricts is not Platform.restricts), kind


def test_each_architecture_is_asked_for_what_its_machines_can_have() -> None:
    assert machine_properties("ppc64") == ("vsmt", "ic-mode")
    for arch in ("x86_64", "loongarch64", "aarch64", "s390x"):
        assert machine_properties(arch) == ("pflash0", "acpi")
