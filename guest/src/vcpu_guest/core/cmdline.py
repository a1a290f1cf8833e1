# SPDX-License-Identifier: Apache-2.0
"""Picks the arguments of the kernel's command line that bear on CPUs.

Nothing else of the line leaves the guest: it may hold secrets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

#: The most arguments that are taken, and the most characters of each ("..." marks a cut).
MAX_ARGUMENTS = 32
MAX_LENGTH = 128

#: As in Documentation/admin-guide/kernel-parameters.txt, with "_" for "-" (kernel/params.c takes either). They concern:
#: how many CPUs there may be; SMT (mitigations can turn it off too: kernel/cpu.c, cpu_mitigations); interrupt
#: controllers and their remapping; ACPI; nopv, with which the kernel recognises no hypervisor; isolated CPUs.
_NAMES = frozenset(
    {
        *("nr_cpus", "possible_cpus", "additional_cpus", "maxcpus", "nosmp", "cpu0_hotplug", "disable_cpu_apicid"),
        *("nosmt", "smt", "smt_enabled", "mitigations", "l1tf", "mds", "tsx_async_abort", "mmio_stale_data"),
        *("apic", "noapic", "lapic", "nolapic", "nox2apic", "x2apic_phys"),
        *("intremap", "iommu", "intel_iommu", "amd_iommu"),
        *("acpi", "nopv", "numa", "isolcpus", "nohz_full", "rcu_nocbs"),
    }
)
_LIMITS = frozenset({"nr_cpus", "possible_cpus", "additional_cpus", "maxcpus", "nosmp"})
#: A value may be quoted, with spaces in it, and so may a whole argument.
_ARGUMENT = re.compile(r'(?:"[^"]*"|[^\s"])+')


def bearing_on_cpus(line: str) -> tuple[str, ...]:
    """Return the arguments that bear on CPUs, as they stand in the line. Those after "--" are for init."""
    found = []
    for match in _ARGUMENT.finditer(line):
        argument = match[0]
        if argument == "--":
            break
        if _name(argument) in _NAMES and argument.isprintable():
            found.append(argument if len(argument) <= MAX_LENGTH else argument[: MAX_LENGTH - 3] + "...")
    return tuple(found[:MAX_ARGUMENTS])


def limiting_possible(arguments: Iterable[str]) -> tuple[str, ...]:
    """Return those that limit how many CPUs there may be."""
    return tuple(argument for argument in arguments if _name(argument) in _LIMITS)


def against_smt(arguments: Iterable[str]) -> tuple[str, ...]:
    """Return those that turn simultaneous multithreading off from the start, as far as the argument shows it."""
    return tuple(argument for argument in arguments if _is_against_smt(argument))


def _name(argument: str) -> str:
    return argument.strip('"').partition("=")[0].replace("-", "_")


def _is_against_smt(argument: str) -> bool:
    name, value = _name(argument), argument.strip('"').partition("=")[2].strip('"')
    return name == "nosmt" or "nosmt" in value.split(",") or (name == "l1tf" and "full" in value.split(","))
