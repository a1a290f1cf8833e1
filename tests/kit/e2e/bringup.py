# SPDX-License-Identifier: Apache-2.0
"""When a CPU of the guest was online, by its kernel's own trace.

The kernel's word on the console ("Booting Node 0 Processor 1 APIC 0x3") comes when a start begins. Until it ends, which
takes tens of milliseconds under TCG, the CPU is offline for everybody who looks. The trace has both: cpuhp_enter of the
step that says the word, bringup_cpu, and cpuhp_exit of the same step, which comes when the CPU has reached the highest
state of all (include/trace/events/cpuhp.h, kernel/cpu.c; so in Linux 6.1). The trace's clock is not the console's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from kit.lab import Vm

from .guestfirst import Violation

_TRACING = "/sys/kernel/tracing"
_BEGIN = """mountpoint -q {0} || mount -t tracefs none {0}
cd {0}/events/cpuhp
echo 'target > 200 && idx > 80 && idx < 120' >cpuhp_enter/filter
echo 'state > 200 && idx < 120' >cpuhp_exit/filter
echo >{0}/trace
echo 1 >cpuhp_enter/enable
echo 1 >cpuhp_exit/enable
"""
_END = "cd {0}/events/cpuhp; echo 0 >cpuhp_enter/enable; echo 0 >cpuhp_exit/enable; grep cpuhp_ {0}/trace || true"
_TRACED = re.compile(r" (?P<when>\d+\.\d+): cpuhp_(?P<what>enter|exit): +cpu: (?P<cpu>\d+) .*step: +(?P<step>\d+) ")
_BOOTING = re.compile(r"Booting Node \d+ Processor (?P<cpu>\d+) ")


@dataclass(frozen=True)
class Start:
    """The start of a CPU that the kernel numbers so; how long it took, in seconds."""

    cpu: int
    took: float


class Bringups:
    """``starts`` are those that the block has seen, in the order of their ends; there at its end."""

    def __init__(self) -> None:
        self.starts: list[Start] = []

    def online_for(self, violation: Violation, kernel: Sequence[tuple[float, str]]) -> float:
        """How long the CPU had been online when its device_del came, in seconds; negative if it was not yet.

        ``kernel`` is the record that the violation was found in.
        """
        booting = [(when, int(match["cpu"])) for when, line in kernel if (match := _BOOTING.search(line))]
        cpu = next(number for when, number in booting if when == violation.since)
        later = sum(number == cpu and when > violation.since for when, number in booting)
        start = [each for each in self.starts if each.cpu == cpu][-1 - later]
        return violation.when - violation.since - start.took


@contextmanager
def bringups(vm: Vm) -> Iterator[Bringups]:
    """Trace the starts of CPUs in the guest as long as the block lasts."""
    vm.shell(_BEGIN.format(_TRACING), 60.0)
    found = Bringups()
    yield found
    found.starts = read(vm.shell(_END.format(_TRACING), 60.0))


def read(trace: str) -> list[Start]:
    """The starts that a trace shows from their begin to their end."""
    begun: dict[tuple[str, str], float] = {}
    starts = []
    for match in _TRACED.finditer(trace):
        key, when = (match["cpu"], match["step"]), float(match["when"])
        if match["what"] == "enter":
            begun[key] = when
        elif key in begun:
            starts.append(Start(int(match["cpu"]), when - begun.pop(key)))
    return starts
