# SPDX-License-Identifier: Apache-2.0
"""An interrupt that QEMU has lost is told from one that is being handled, by QEMU's own words (10.0.13)."""

from __future__ import annotations

from typing import Any

import pytest
from kit.chaos import lapic

ASLEEP, AWAKE = "RFL=00000216 [----AP-] CPL=0 II=0 A20=1 SMM=0 HLT=1\n", "RFL=00000246 CPL=0 II=0 A20=1 SMM=0 HLT=0\n"
STUCK = "dumping local APIC state for CPU 1\n\nESR\t 0x00000000\nISR\t 236 \nIRR\t 34 236 \n\nAPR 0x01 TPR 0x10\n"
FREE = "dumping local APIC state for CPU 0\n\nESR\t 0x00000000\nISR\t (none)\nIRR\t (none)\n\nAPR 0x00 TPR 0x10\n"


class Words:
    """A monitor: ``looks`` are the words on CPU 1's registers and interrupts at each look at it; CPU 0 is well."""

    def __init__(self, target: str, *looks: tuple[str, str]) -> None:
        self.target = target
        self.looks = list(looks)

    def execute(self, command: str, /, **arguments: Any) -> Any:
        if command == "query-cpus-fast":
            self.now = self.looks.pop(0)
            return [{"cpu-index": index, "target": self.target} for index in (0, 1)]
        registers = arguments["command_line"] == "info registers"
        return (self.now if arguments["cpu_index"] else (ASLEEP, FREE))[not registers]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lapic, "AGAIN", 0.0)


def test_an_interrupt_that_stays_in_service_of_a_sleeping_cpu_is_lost() -> None:
    words = Words("x86_64", (ASLEEP, STUCK), (ASLEEP, STUCK))
    assert lapic.lost(words) == "CPU 1 sleeps with interrupt 236 in service"


@pytest.mark.parametrize(
    "looks",
    [
        [(ASLEEP, FREE)],
        [(AWAKE, STUCK)],
        [(ASLEEP, STUCK), (ASLEEP, FREE)],
        [(ASLEEP, STUCK), (AWAKE, STUCK)],
        [(ASLEEP, STUCK), (ASLEEP, STUCK.replace("ISR\t 236", "ISR\t 34 236"))],
    ],
)
def test_one_that_is_handled_is_not(looks: list[tuple[str, str]]) -> None:
    assert lapic.lost(Words("x86_64", *looks)) == ""


def test_other_machines_are_not_asked() -> None:
    assert lapic.lost(Words("ppc64", (ASLEEP, STUCK))) == ""
