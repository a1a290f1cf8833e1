# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import pytest
from vcpu_guest.environment import Observer, auto_online_rules

RULE = 'SUBSYSTEM=="cpu", ACTION=="add", TEST=="online", ATTR{online}=="0", ATTR{online}="1"\n'


def test_reads_the_facts(sysfs, kernel):
    found = Observer(sysfs, ())()
    assert (found.possible, found.kernel_max, found.smt_control) == ("0-15", 8191, "on")
    assert (found.eject_enabled, found.clocksource) == (True, "tsc")
    assert (found.nohz_full, found.isolated, found.auto_online_rules) == ("", "", ())


def test_an_absent_eject_switch_is_absent(sysfs, kernel):
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
def test_rules_that_bring_cpus_online_are_found(tmp_path, rule):
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
def test_other_rules_are_not(tmp_path, rule):
    (tmp_path / "40-cpu.rules").write_text(rule)
    assert auto_online_rules([tmp_path]) == ()


def test_a_file_hides_those_of_the_same_name_in_later_directories(tmp_path):
    for name in ("etc", "lib"):
        (tmp_path / name).mkdir()
    (tmp_path / "lib/40-cpu.rules").write_text(RULE)
    os.symlink("/dev/null", tmp_path / "etc/40-cpu.rules")
    assert auto_online_rules([tmp_path / "etc", tmp_path / "lib", tmp_path / "none"]) == ()
    (tmp_path / "etc/40-cpu.rules").unlink()
    assert auto_online_rules([tmp_path / "etc", tmp_path / "lib"]) == (str(tmp_path / "lib/40-cpu.rules"),)


def test_rules_are_read_again_when_one_is_added(tmp_path, sysfs):
    observe = Observer(sysfs, [tmp_path])
    assert observe().auto_online_rules == ()
    (tmp_path / "40-cpu.rules").write_text(RULE)
    os.utime(tmp_path, ns=(1, 1))
    assert len(observe().auto_online_rules) == 1
