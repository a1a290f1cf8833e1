# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from kit.fakes.sysfs import FakeKernel
from vcpu_guest.core.model import Environment
from vcpu_guest.kernel.environment import EnvironmentReader, auto_online_rules
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms import hypervisor_flag

RULE = 'SUBSYSTEM=="cpu", ACTION=="add", TEST=="online", ATTR{online}=="0", ATTR{online}="1"\n'


def test_reads_the_facts(sysfs: Sysfs, kernel: FakeKernel) -> None:
    found = EnvironmentReader(sysfs, hypervisor_flag, ())()
    assert (found.possible, found.kernel_max, found.smt_control) == ("0-15", 8191, "on")
    assert (found.eject_enabled, found.clocksource) == (True, "tsc")
    assert (found.nohz_full, found.isolated, found.auto_online_rules) == ("", "", ())


def test_what_linux_knows_of_the_hypervisor_and_of_acpi_is_told(sysfs: Sysfs, kernel: FakeKernel) -> None:
    found = EnvironmentReader(sysfs, hypervisor_flag, ())()
    assert (found.hypervisor_flag, found.acpi) == (True, True)
    kernel.set_list("modalias", "cpu:type:x86,ven0002fam0019mod0001:feature:,0000,0068,00C0")
    shutil.rmtree(kernel.root / "firmware/acpi")
    found = EnvironmentReader(sysfs, hypervisor_flag, ())()
    assert (found.hypervisor_flag, found.acpi) == (False, False)


@pytest.mark.parametrize(
    "modalias",
    [
        "cpu:type:aarch64:feature:,0000,009F",
        "cpu:type:x86,ven0002fam0019mod0001",
        "of:NcpuT(null)Cpowerpc",
        "",
    ],
)
def test_other_machines_have_no_hypervisor_flag(sysfs: Sysfs, kernel: FakeKernel, modalias: str) -> None:
    kernel.set_list("modalias", modalias)
    assert EnvironmentReader(sysfs, hypervisor_flag, ())().hypervisor_flag is None


def test_where_no_firmware_is_shown_nothing_is_said_of_acpi(sysfs: Sysfs, kernel: FakeKernel) -> None:
    shutil.rmtree(kernel.root / "firmware")
    (kernel.cpu_dir / "modalias").unlink()
    found = EnvironmentReader(sysfs, hypervisor_flag, ())()
    assert (found.hypervisor_flag, found.acpi) == (None, None)


def test_of_the_command_line_only_what_bears_on_cpus_is_told(sysfs: Sysfs) -> None:
    line = "BOOT_IMAGE=/vmlinuz root=UUID=1 ro nr_cpus=4 password=acpi=off acpi=off quiet -- maxcpus=1\n"
    assert EnvironmentReader(sysfs, hypervisor_flag, (), lambda: line)().kernel_arguments == ("nr_cpus=4", "acpi=off")


@pytest.mark.parametrize("boot", [(0,), (0, 1)])
def test_what_the_agent_may_not_write_is_known_beforehand(tmp_path: Path, boot: tuple[int, ...]) -> None:
    kernel = FakeKernel(tmp_path / "sys", boot=boot)
    observe = EnvironmentReader(Sysfs(kernel.root, kernel.write, kernel.attempt), hypervisor_flag, ())
    assert (observe().writable, observe().unwritable) == (True, ())
    kernel.deny(errno.EROFS)
    tried = kernel.cpu_dir / ("uevent" if len(boot) == 1 else "cpu1/online")
    assert (observe().writable, observe().unwritable) == (False, (f"{tried}: EROFS",))
    assert kernel.writes == []


def test_where_there_is_no_file_to_try_nothing_is_said_of_writing(kernel: FakeKernel, sysfs: Sysfs) -> None:
    (kernel.cpu_dir / "uevent").unlink()
    assert observed(sysfs).writable is None
    assert observed(sysfs, denials=lambda: ("f: EACCES",)).writable is False


def observed(sysfs: Sysfs, **options: Any) -> Environment:
    return EnvironmentReader(sysfs, hypervisor_flag, (), **options)()


def test_a_real_file_is_tried_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "sys/devices/system/cpu/cpu1/online"
    path.parent.mkdir(parents=True)
    path.write_text("1\n")
    assert observed(Sysfs(tmp_path / "sys")).writable is True
    assert path.read_text() == "1\n"
    path.unlink()
    path.mkdir()  # which nobody can open for writing, whoever he is
    assert observed(Sysfs(tmp_path / "sys")).unwritable == (f"{path}: EISDIR",)


def test_an_event_of_acpis_that_nobody_handles_is_told(sysfs: Sysfs, kernel: FakeKernel) -> None:
    assert observed(sysfs).unhandled_gpes == ()
    kernel.deafen()
    assert observed(sysfs, pause=lambda _seconds: None).unhandled_gpes == (2,)


def test_an_absent_eject_switch_is_absent(sysfs: Sysfs, kernel: FakeKernel) -> None:
    (kernel.root / "firmware/acpi/hotplug/processor/enabled").unlink()
    assert EnvironmentReader(sysfs, hypervisor_flag, ())().eject_enabled is None


@pytest.mark.parametrize(
    "rule",
    [
        RULE,
        'SUBSYSTEM=="cpu", ACTION=="add", \\\n  ATTR{online}="1"\n',
        'ACTION=="add", SUBSYSTEM=="cpu", RUN+="/bin/sh -c \'echo 1 > /sys%p/online\'"\n',
    ],
)
def test_rules_that_bring_cpus_online_are_found(tmp_path: Path, rule: str) -> None:
    (tmp_path / "40-cpu.rules").write_text(rule)
    assert auto_online_rules([tmp_path]) == (str(tmp_path / "40-cpu.rules"),)


@pytest.mark.parametrize(
    "rule",
    [
        "# " + RULE,
        RULE.replace('"cpu"', '"memory"'),
        'SUBSYSTEM=="cpu", ACTION=="add", ATTR{online}=="1", TAG+="x"\n',
    ],
)
def test_other_rules_are_not(tmp_path: Path, rule: str) -> None:
    (tmp_path / "40-cpu.rules").write_text(rule)
    assert auto_online_rules([tmp_path]) == ()


def test_a_file_hides_those_of_the_same_name_in_later_directories(tmp_path: Path) -> None:
    for name in ("etc", "lib"):
        (tmp_path / name).mkdir()
    (tmp_path / "lib/40-cpu.rules").write_text(RULE)
    os.symlink("/dev/null", tmp_path / "etc/40-cpu.rules")
    assert auto_online_rules([tmp_path / "etc", tmp_path / "lib", tmp_path / "none"]) == ()
    (tmp_path / "etc/40-cpu.rules").unlink()
    assert auto_online_rules([tmp_path / "etc", tmp_path / "lib"]) == (str(tmp_path / "lib/40-cpu.rules"),)


def test_rules_are_read_again_when_one_is_added(tmp_path: Path, sysfs: Sysfs) -> None:
    observe = EnvironmentReader(sysfs, hypervisor_flag, [tmp_path])
    assert observe().auto_online_rules == ()
    (tmp_path / "40-cpu.rules").write_text(RULE)
    os.utime(tmp_path, ns=(1, 1))
    assert len(observe().auto_online_rules) == 1
