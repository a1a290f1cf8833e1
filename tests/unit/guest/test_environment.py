# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest
from fakes.sysfs import FakeKernel
from vcpu_guest.environment import Observer, auto_online_rules
from vcpu_guest.sysfs import Sysfs

RULE = 'SUBSYSTEM=="cpu", ACTION=="add", TEST=="online", ATTR{online}=="0", ATTR{online}="1"\n'


def test_reads_the_facts(sysfs: Sysfs, kernel: FakeKernel) -> None:
    found = Observer(sysfs, ())()
    assert (found.possible, found.kernel_max, found.smt_control) == ("0-15", 8191, "on")
    assert (found.eject_enabled, found.clocksource) == (True, "tsc")
    assert (found.nohz_full, found.isolated, found.auto_online_rules) == ("", "", ())


def test_an_absent_eject_switch_is_absent(sysfs: Sysfs, kernel: FakeKernel) -> None:
    (kernel.root / "firmware/acpi/hotplug/processor/enabled").unlink()
    assert Observer(sysfs, ())().eject_enabled is None


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
    observe = Observer(sysfs, [tmp_path])
    assert observe().auto_online_rules == ()
    (tmp_path / "40-cpu.rules").write_text(RULE)
    os.utime(tmp_path, ns=(1, 1))
    assert len(observe().auto_online_rules) == 1
