# SPDX-License-Identifier: Apache-2.0
"""QEMU's own deaths and hangs under TCG, told apart from what a test is about (docs/testing.md).

While a guest with several CPUs sizes its PCI devices' BARs, as every boot does, a vCPU's access may meet the memory map
that another one is just replacing. QEMU 10.0.13 then ends in one of two assertions. That says nothing
of vcpuctl, so the test takes another VM, and only if QEMU's last words are these.

On POWER the vCPU that gives a core back waits, inside QEMU, for the end of that core's vCPUs; these may wait for one
that wants all to stand still for a flush of the TLB; and that one waits for the first. Such a QEMU is known by what it
says of itself: the slot is empty, and its vCPU is there.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from kit.e2e.journey import Journey
from kit.e2e.machine import Machine
from kit.lab import LabError, Vm

#: hw/pci/msix.c and system/physmem.c
WORDS = ("msix_table_mmio_write: Assertion", "iotlb_to_section: Assertion")
_MOST = 3
#: On a machine that is busy with other work, several removals of cores at once hang more often than not.
_MOST_HANGS = 6
#: Seconds for which QEMU contradicts itself before that is called a hang; a removal takes a few hundredths of one.
_HUNG = 5.0

T = TypeVar("T")


def died_of_it(vm: Vm) -> bool:
    """Whether QEMU's last words are those of its race."""
    return any(word in line for line in vm.record.messages for word in WORDS)


def outlived(machine: Callable[[], Machine], test: Callable[[Machine], T]) -> T:
    """The test on a VM, or on another one where QEMU died of its race; of three deaths the last one is told."""
    for left in reversed(range(_MOST)):
        vm = machine()
        try:
            return test(vm)
        except (AssertionError, LabError, subprocess.TimeoutExpired):
            if left == 0 or not died_of_it(vm.vm):
                raise
    raise AssertionError("not reached")


def removal_hangs(vm: Vm) -> bool:
    """Whether QEMU keeps showing a vCPU of which no slot is filled."""
    until = time.monotonic() + _HUNG
    while time.monotonic() < until:
        if not vm.homeless():
            return False
    return True


def unhung(start: Callable[[], AbstractContextManager[Journey]], test: Callable[[Journey], None]) -> None:
    """The test on a VM that may migrate, or on another one where QEMU hung in a removal; of six the last is told."""
    for left in reversed(range(_MOST_HANGS)):
        with start() as trip:
            try:
                test(trip)
                return
            except (AssertionError, LabError, subprocess.TimeoutExpired):
                if left == 0 or not removal_hangs(trip.here.vm):
                    raise
        print("QEMU hung in a removal: once more, on another VM", file=sys.stderr)
