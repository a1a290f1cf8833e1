# SPDX-License-Identifier: Apache-2.0
"""What differs between machines, one module each; nothing else in the agent asks for the architecture.

A platform says which CPUs are present (on some, cpuN directories exist for all possible CPUs), the firmware identity of
each, what the kernel's events mean, and what is known beforehand about switching a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.acpi import Acpi
from vcpu_guest.platforms.base import Platform
from vcpu_guest.platforms.boot import Boot
from vcpu_guest.platforms.plain import Plain
from vcpu_guest.platforms.pseries import Pseries, is_pseries
from vcpu_guest.platforms.s390 import S390
from vcpu_guest.platforms.x86 import X86, hypervisor_flag


def _x86(sysfs: Sysfs) -> Platform:
    # QEMU's microvm has no objects for its CPUs.
    return X86() if sysfs.read_cpu(0, "firmware_node/path") else Boot()


def _power(sysfs: Sysfs) -> Platform:
    return Pseries(sysfs) if is_pseries(sysfs) else Plain()


#: Machine hardware name (uname) to platform.
_BY_ARCH: Mapping[str, Callable[[Sysfs], Platform]] = {
    "x86_64": _x86,
    "i686": _x86,
    "i586": _x86,
    "loongarch64": lambda _: Acpi(),
    "ppc64le": _power,
    "ppc64": _power,
    "s390x": lambda _: S390(),
    "aarch64": lambda _: Boot(),
    "riscv64": lambda _: Boot(),
}

__all__ = ("Platform", "detect", "hypervisor_flag")


def detect(arch: str, sysfs: Sysfs) -> Platform:
    """Return the platform of a machine that calls itself `arch`; Plain if we do not know it."""
    make = _BY_ARCH.get(arch)
    return Plain() if make is None else make(sysfs)
