# SPDX-License-Identifier: Apache-2.0
"""What each machine shows of its CPUs, and how they are named to the host."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from kit.fakes.papr import FakePapr
from kit.fakes.sysfs import FakeKernel
from vcpu_guest.core.model import Hint
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms import detect
from vcpu_guest.platforms.boot import Boot
from vcpu_guest.platforms.pseries import Pseries
from vcpu_guest.platforms.s390 import S390


def tree(root: Path, files: dict[str, str]) -> Sysfs:
    """A /sys with these files of CPUs; a text that begins with ``->`` is a link."""
    for name, text in files.items():
        path = root / "devices/system/cpu" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("->"):
            path.symlink_to(text[2:])
        else:
            path.write_text(text + "\n")
    return Sysfs(root)


# -- which -------------------------------------------------------------------------------------------------------------


def test_x86_with_acpi_objects_is_acpi_and_without_them_it_keeps_what_it_started_with(
    kernel: FakeKernel, tmp_path: Path
) -> None:
    assert detect("x86_64", Sysfs(kernel.root)).name == "acpi"
    assert detect("x86_64", tree(tmp_path, {"cpu0/topology/core_id": "0"})).name == "boot"


def test_power_is_pseries_under_a_paper_hypervisor_only(tmp_path: Path) -> None:
    assert detect("ppc64le", Sysfs(FakePapr(tmp_path / "a").root)).name == "pseries"
    assert detect("ppc64le", tree(tmp_path / "b", {"present": "0"})).name == "plain"


@pytest.mark.parametrize(
    ("arch", "name"),
    [("s390x", "s390"), ("aarch64", "boot"), ("riscv64", "boot"), ("loongarch64", "acpi"), ("vax", "plain")],
)
def test_the_others_are_told_by_their_architecture(arch: str, name: str, tmp_path: Path) -> None:
    assert detect(arch, Sysfs(tmp_path)).name == name


# -- pseries -----------------------------------------------------------------------------------------------------------


def test_a_power_thread_is_named_by_its_server_and_only_if_it_is_there(tmp_path: Path) -> None:
    papr = FakePapr(tmp_path / "sys", threads=2)
    sysfs = Sysfs(papr.root, papr.write)
    platform = Pseries(sysfs)
    assert platform.present(sysfs) == {0, 1}
    assert [platform.identity(sysfs, number) for number in (0, 1)] == ["papr:0", "papr:1"]
    assert not platform.is_present(sysfs, 2)  # which has a directory, and 0 for its server


def test_a_power_thread_is_on_the_node_that_lists_it_whatever_its_link_says(tmp_path: Path) -> None:
    papr = FakePapr(tmp_path / "sys", threads=2)
    sysfs = Sysfs(papr.root, papr.write)
    (papr.root / "devices/system/cpu/cpu0/node0").mkdir()
    for node, cpus in ((0, ""), (1, "0")):
        (papr.root / f"devices/system/node/node{node}").mkdir(parents=True)
        (papr.root / f"devices/system/node/node{node}/cpulist").write_text(f"{cpus}\n")
    assert [Pseries(sysfs).node(sysfs, number) for number in (0, 1)] == [1, None]


@pytest.mark.parametrize(("modern", "hotplug"), [(True, "kernel"), (False, "rtas")])
def test_who_handles_hotplug_events_follows_from_the_device_tree(tmp_path: Path, modern: bool, hotplug: str) -> None:
    papr = FakePapr(tmp_path / "sys", modern=modern)
    assert Pseries(Sysfs(papr.root)).hotplug == hotplug


@pytest.mark.parametrize(
    ("control", "idle"),
    [
        ("on", []),
        ("notimplemented", []),
        ("notsupported", []),
        ("off", [1, 2, 3]),
        ("forceoff", [1, 2, 3]),
        ("2", [2, 3]),
        ("4", []),
    ],
)
def test_threads_that_the_smt_mode_leaves_idle_are_told(tmp_path: Path, control: str, idle: list[int]) -> None:
    papr = FakePapr(tmp_path / "sys", threads=4)
    papr._put("smt/control", control)
    sysfs = Sysfs(papr.root)
    platform = Pseries(sysfs)
    found = {number: platform.cannot_online(sysfs, number) for number in range(4)}
    assert [number for number, reason in found.items() if reason is not None] == idle
    assert {reason.code for reason in found.values() if reason is not None} <= {"smt-off"}


@pytest.mark.parametrize(
    ("threads", "name", "index"),
    [
        (1, "papr:3", 0x10000003),
        (2, "papr:4", 0x10000004),
        (2, "papr:5", 0x10000004),
        (8, "papr:15", 0x10000008),
        (2, "acpi:4", None),
        (2, "papr:", None),
        (2, "papr:²", None),
    ],
)
def test_a_thread_belongs_to_the_connector_of_its_core(
    tmp_path: Path, threads: int, name: str, index: int | None
) -> None:
    papr = FakePapr(tmp_path / "sys", threads=threads)
    assert Pseries(Sysfs(papr.root)).drc_index(name) == index


def test_power_cpus_that_go_offline_may_be_leaving(tmp_path: Path) -> None:
    assert Pseries(Sysfs(FakePapr(tmp_path / "sys").root)).hints["offline"] is Hint.LEAVING


# -- s390x -------------------------------------------------------------------------------------------------------------


def test_an_s390x_cpu_is_named_by_its_address_once_the_kernel_shows_it(tmp_path: Path) -> None:
    sysfs = tree(tmp_path, {"cpu0/address": "0", "cpu2/address": "7", "cpu3/online": "0"})
    assert {number: S390().identity(sysfs, number) for number in S390().present(sysfs)} == {
        0: "s390:0",
        2: "s390:7",
        3: "",
    }
    assert S390().hints["add"] is Hint.COMING


def test_an_s390x_cpu_in_standby_cannot_be_brought_online(tmp_path: Path) -> None:
    sysfs = tree(tmp_path, {"cpu1/configure": "0", "cpu2/configure": "1"})
    standby, configured = (S390().cannot_online(sysfs, number) for number in (1, 2))
    assert (standby is not None and standby.code, configured) == ("deconfigured", None)


# -- those that keep their CPUs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"cpu0/of_node": "->/base/cpus/cpu@0", "cpu1/of_node": "->/base/cpus/cpu@11"}, ["boot:0", "boot:11"]),
        ({"cpu0/firmware_node/path": r"\_SB_.C000", "cpu1/firmware_node/path": r"\_SB_.C00A"}, ["boot:0", "boot:10"]),
        ({"cpu0/topology/core_id": "0", "cpu1/topology/core_id": "0"}, ["boot:0", "boot:1"]),
        ({"cpu0/of_node": "->/base/cpus/PowerPC@0", "cpu1/firmware_node/path": r"\_PR_.P001"}, ["", ""]),
    ],
    ids=["device tree", "ACPI", "neither", "not QEMU's names"],
)
def test_a_cpu_that_stays_is_named_by_its_place(tmp_path: Path, files: dict[str, str], names: list[str]) -> None:
    sysfs = tree(tmp_path, files)
    assert [Boot().identity(sysfs, number) for number in (0, 1)] == names


# -- x86 ---------------------------------------------------------------------------------------------------------------


def test_on_x86_a_possible_cpu_is_invalid_only_by_its_apic_id(kernel: FakeKernel) -> None:
    sysfs = Sysfs(kernel.root)
    platform = detect("x86_64", sysfs)
    found = platform.would_not_start(sysfs, 3, errno.EINVAL, ())
    assert found is not None
    assert (found.code, found.errno) == ("apic-id", errno.EINVAL)
    assert "-device intel-iommu,intremap=on,eim=on" in found.text
    chosen = platform.would_not_start(sysfs, 3, errno.EINVAL, ("nr_cpus=4", "nox2apic"))
    assert chosen is not None
    assert "boot without nox2apic" in chosen.text
    assert platform.would_not_start(sysfs, kernel.possible, errno.EINVAL, ()) is None
    assert platform.would_not_start(sysfs, 3, errno.EIO, ()) is None


@pytest.mark.parametrize("arch", ["loongarch64", "s390x", "vax"])
def test_other_machines_have_no_apic(kernel: FakeKernel, arch: str) -> None:
    sysfs = Sysfs(kernel.root)
    assert detect(arch, sysfs).would_not_start(sysfs, 3, errno.EINVAL, ()) is None
