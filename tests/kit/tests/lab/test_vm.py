# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from kit.lab.vm import homeless, parse_cpus

_DEVICES = "/machine/peripheral"

X86 = r"""cpu cpu0 1 \_SB_.CPUS.C000
cpu cpu1 0 \_SB_.CPUS.C004
present 0-1
processor	: 0
apicid		: 0
"""


def test_a_cpu_has_its_apic_id_while_it_is_online() -> None:
    assert parse_cpus(X86) == {
        "cpu0": {"online": True, "path": r"\_SB_.CPUS.C000", "apicid": 0},
        "cpu1": {"online": False, "path": r"\_SB_.CPUS.C004", "apicid": None},
    }


def test_directories_of_cpus_that_are_not_present_are_none() -> None:
    assert set(parse_cpus("cpu cpu0 1 0\ncpu cpu1 0 1\ncpu cpu2 0 -1\npresent 0-1\n")) == {"cpu0", "cpu1"}


def test_a_cpu_that_comes_online_in_the_middle_of_the_look_is_not_seen_yet() -> None:
    assert set(parse_cpus(X86 + "processor\t: 2\napicid\t\t: 5\n")) == {"cpu0", "cpu1"}


def test_a_vcpu_that_runs_on_in_an_empty_slot_is_homeless() -> None:
    slots = [{}, {"qom-path": f"{_DEVICES}/vcpu-1"}, {"qom-path": "/machine/unattached/device[1]"}]
    homes = ["/machine/unattached/device[1]/thread[0]", f"{_DEVICES}/vcpu-1"]
    assert homeless(slots, [{"qom-path": path} for path in homes]) == []
    left = f"{_DEVICES}/vcpu-12/thread[1]"
    assert homeless(slots, [{"qom-path": path} for path in (*homes, left)]) == [left]
