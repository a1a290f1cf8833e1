# SPDX-License-Identifier: Apache-2.0
"""QEMU's own deaths under TCG, told apart from what a test is about.

While a guest with several CPUs sizes its PCI devices' BARs, as every boot does, a vCPU's access may meet the memory map
that another one is just replacing (docs/testing.md). QEMU 10.0.13 then ends in one of two assertions. That says nothing
of vcpuctl, so the test takes another VM, and only if QEMU's last words are these.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import TypeVar

from lab import LabError

from e2e.conftest import Machine

#: hw/pci/msix.c and system/physmem.c
WORDS = ("msix_table_mmio_write: Assertion", "iotlb_to_section: Assertion")
_MOST = 3

T = TypeVar("T")


def outlived(machine: Callable[[], Machine], test: Callable[[Machine], T]) -> T:
    """The test on a VM, or on another one where QEMU died of its race; of three deaths the last one is told."""
    for left in reversed(range(_MOST)):
        vm = machine()
        try:
            return test(vm)
        except (AssertionError, LabError, subprocess.TimeoutExpired):
            died = any(word in line for line in vm.vm.record.messages for word in WORDS)
            if left == 0 or not died:
                raise
    raise AssertionError("not reached")
