# SPDX-License-Identifier: Apache-2.0
"""Which arguments of the kernel's command line bear on CPUs.

Nothing else of the line leaves the guest: it may hold secrets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Arguments taken, and characters of each.
MAX_ARGUMENTS = 32
MAX_LENGTH = 128

#: As in Documentation/admin-guide/kernel-parameters.txt, "_" for "-" (kernel/params.c takes either). How many CPUs
#: there may be; SMT (mitigations can switch it off too: kernel/cpu.c, cpu_mitigations); interrupt controllers and their
#: remapping; ACPI; nopv, with which no hypervisor is recognised; CPUs that are kept apart.
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
#: A value may be quoted, with spaces in it; an argument may be so as a whole.
_ARGUMENT = re.compile(r'(?:"[^"]*"|[^\s"])+')


def bearing_on_cpus(line: str) -> tuple[str, ...]:
    """The known arguments as they stand in the line, in their order; what follows "--" is init's."""
    found = []
    for match in _ARGUMENT.finditer(line):
        argument = match[0]
        if argument == "--":
            break
        if _name(argument) in _NAMES and argument.isprintable():
            found.append(argument[:MAX_LENGTH])
    return tuple(found[:MAX_ARGUMENTS])


def limiting_possible(arguments: Iterable[str]) -> tuple[str, ...]:
    """Those that say how many CPUs there may be."""
    return tuple(argument for argument in arguments if _name(argument) in _LIMITS)


def against_smt(arguments: Iterable[str]) -> tuple[str, ...]:
    """Those by which simultaneous multithreading is off from the start, as far as the argument itself says so."""
    return tuple(argument for argument in arguments if _is_against_smt(argument))


def _name(argument: str) -> str:
    return argument.strip('"').partition("=")[0].replace("-", "_")


def _is_against_smt(argument: str) -> bool:
    name, value = _name(argument), argument.strip('"').partition("=")[2].strip('"')
    return name == "nosmt" or "nosmt" in value.split(",") or (name == "l1tf" and "full" in value.split(","))
