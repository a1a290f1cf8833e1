# SPDX-License-Identifier: Apache-2.0
"""The lab's own promises, on a real QEMU and a real guest."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.lab import Lab, ShellError, Vm, VmDiedError, VmSpec

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SLOT = 3


@pytest.fixture(params=["q35", "pc"])
def vm(request: pytest.FixtureRequest) -> Iterator[Vm]:
    with Lab(progress=print) as lab, lab.vm(VmSpec(machine=request.param)) as running:
        yield running


def _slot(vm: Vm) -> dict[str, object]:
    # the reply comes highest slot first
    slot: dict[str, object] = vm.qmp.execute("query-hotpluggable-cpus")[-1 - SLOT]
    return slot


def test_a_restored_vm_takes_a_cpu_up_and_down_and_its_record_shows_the_order(vm: Vm) -> None:
    before = vm.guest_cpus()
    slot = _slot(vm)
    props = slot["props"]
    assert isinstance(props, dict)
    assert "qom-path" not in slot
    assert vm.plugs_left == 15

    vm.qmp.execute("device_add", driver=slot["type"], id="vcpu-3", **props)
    vm.qmp.wait_event("ACPI_DEVICE_OST", slot=str(SLOT), source=1, status=0)
    vm.shell("echo 1 > /sys/devices/system/cpu/cpu1/online", timeout=20)
    assert vm.guest_cpus()["cpu1"] == {"online": True, "path": "\\_SB_.CPUS.C003", "apicid": 3}
    assert vm.plugs_left == 14

    vm.shell("echo 0 > /sys/devices/system/cpu/cpu1/online", timeout=20)
    assert vm.guest_cpus()["cpu1"] == {"online": False, "path": "\\_SB_.CPUS.C003", "apicid": None}
    offline, _ = vm.wait_kernel(r"CPU 1 is now offline")
    vm.qmp.execute("device_del", id="vcpu-3")
    vm.qmp.wait_event("ACPI_DEVICE_OST", slot=str(SLOT), source=3, status=0)

    assert "qom-path" not in _slot(vm)
    assert vm.guest_cpus() == before
    deleted = [when for when, command in vm.qmp_commands() if command["execute"] == "device_del"]
    assert len(deleted) == 1
    online, _ = vm.wait_kernel(r"Will online and init hotplugged CPU: 1|Booting Node 0 Processor 1")
    added = next(when for when, command in vm.qmp_commands() if command["execute"] == "device_add")
    assert added < online < offline < deleted[0]


def test_two_copies_of_one_state_do_not_see_each_other() -> None:
    with Lab(progress=print) as lab:
        with lab.vm(VmSpec()) as first:
            first.shell("echo mine > /root/mark && sync")
        with lab.vm(VmSpec()) as second, pytest.raises(ShellError) as refused:
            second.shell("cat /root/mark")
    assert refused.value.status == 1


def test_packages_are_installed_once_and_are_there_in_every_copy(tmp_path: Path) -> None:
    control = tmp_path / "tree" / "DEBIAN" / "control"
    control.parent.mkdir(parents=True)
    control.write_text(
        "Package: lab-probe\nVersion: 1\nArchitecture: all\nMaintainer: The lab <lab@localhost>\nDescription: nothing\n"
    )
    debs = tmp_path / "debs"
    debs.mkdir()
    subprocess.run(["dpkg-deb", "--build", "tree", debs / "lab-probe_1_all.deb"], cwd=tmp_path, check=True)
    said: list[str] = []
    spec = VmSpec(debs=debs, packages=("lab-probe",), ready="dpkg -s lab-probe")
    with Lab(progress=said.append) as lab:
        for _ in range(2):
            with lab.vm(spec) as vm:
                assert "install ok installed" in vm.shell("dpkg -s lab-probe")
    assert len([text for text in said if "lab-probe" in text]) == 1


def test_a_file_put_into_the_guest_arrives_unchanged(vm: Vm) -> None:
    data = bytes(range(256)) * 400
    vm.put(data, "/run/data")
    assert vm.shell("stat -c %s /run/data; od -An -tu1 -N4 -j 102396 /run/data").split() == [
        "102400",
        *("252", "253", "254", "255"),
    ]


def test_a_dead_qemu_is_said_to_be_dead_and_not_waited_for(vm: Vm) -> None:
    vm.qmp.execute("quit")
    vm.qmp.wait_closed(10.0)
    with pytest.raises(VmDiedError):
        vm.wait_kernel("never said", timeout=60.0)
    with pytest.raises(VmDiedError):
        vm.shell("true")


def test_what_a_failure_leaves_behind_tells_the_story(vm: Vm, tmp_path: Path) -> None:
    dest = tmp_path / "kept"
    vm.shell("echo a word to the kernel > /dev/kmsg")
    vm.wait_kernel("a word to the kernel")
    vm.collect(dest)
    assert "a word to the kernel" in (dest / "console.log").read_text()
    assert "a word to the kernel" in (dest / "kernel.log").read_text()
    assert "a word to the kernel" in (dest / "journal.log").read_text()
    assert "migrate-incoming" in (dest / "qmp.log").read_text()
