# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from kit.lab import states
from kit.lab.errors import LabError
from kit.lab.guest import Image
from kit.lab.qemu import Qemu
from kit.lab.spec import SOCKETS, VmSpec, command_line

QEMU = Qemu("10.0", "10.0.13", ("qemu",), ("qemu-img",))
IMAGE = Image("guest", Path("root"), Path("vmlinuz"), Path("initrd"), (), "key")


def _line(spec: VmSpec) -> list[str]:
    return command_line(spec, QEMU, IMAGE, "tcg", Path("disk"), Path("console"), dict.fromkeys(SOCKETS, "fd=0"))


@pytest.mark.parametrize(
    ("smp", "boot", "most"),
    [("1,maxcpus=16,sockets=2,cores=4,threads=2", 1, 16), ("cpus=2,maxcpus=9", 2, 9), ("4", 4, 4)],
)
def test_the_counts_are_read_from_smp(smp: str, boot: int, most: int) -> None:
    assert (VmSpec(smp=smp).boot_vcpus, VmSpec(smp=smp).max_vcpus) == (boot, most)


@pytest.mark.parametrize(
    "change",
    [
        {"machine": "pc"},
        {"smp": "1,maxcpus=64"},
        {"memory_mb": 1024},
        {"cpu": "max"},
        {"kernel_args": "isolcpus=1"},
        {"extra_args": ("-name", "x")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_the_machine_changes_the_command_line(change: dict[str, object]) -> None:
    assert _line(replace(VmSpec(), **change)) != _line(VmSpec())  # type: ignore[arg-type]


def test_the_agents_port_and_both_monitors_are_there() -> None:
    line = " ".join(_line(VmSpec()))
    assert "name=org.vcpuctl.agent.0" in line
    assert "-mon chardev=qmp,mode=control" in line
    assert "-mon chardev=oracle,mode=control" in line


def test_the_packages_of_a_spec_must_each_be_there_just_once(tmp_path: Path) -> None:
    spec = VmSpec(debs=tmp_path)
    (tmp_path / "python3-vcpu-proto_1_all.deb").touch()
    with pytest.raises(LabError, match="one vcpu-guest_"):
        states.debs(spec)
    (tmp_path / "vcpu-guest_1_all.deb").touch()
    (tmp_path / "vcpu-host_1_all.deb").touch()
    assert list(states.debs(spec)) == ["python3-vcpu-proto_1_all.deb", "vcpu-guest_1_all.deb"]
    (tmp_path / "vcpu-guest_2_all.deb").touch()
    with pytest.raises(LabError, match="vcpu-guest_2"):
        states.debs(spec)
    assert len(states.debs(replace(spec, packages=()))) == 4
    assert states.debs(VmSpec()) == {}
