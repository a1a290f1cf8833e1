# SPDX-License-Identifier: Apache-2.0
"""POWER guests by their device tree, which says of each core which of QEMU's slots it is in, whatever its number is.

A node of ``cpus`` has in ``ibm,ppc-interrupt-server#s`` the number that KVM and the kernel (``physical_id``) have for
its first thread, and in ``ibm,my-drc-index`` the connector that the core is in: 0x10000000 and the number of its place
(hw/ppc/spapr.c, spapr_dt_cpu; hw/ppc/spapr_drc.c, spapr_drc_index). With cores of one thread that is the core-id.
"""

from __future__ import annotations

from kit.lab import GuestCpu, Vm

_CONNECTOR = 0x10000000
#: Shell in the guest: the interrupt server and the connector of each core, in hexadecimal.
_NODES = """for node in /proc/device-tree/cpus/*@*; do
    [ ! -e "$node/ibm,my-drc-index" ] || echo $(for name in ppc-interrupt-server#s my-drc-index; do
        od -An -v -tx1 "$node/ibm,$name" | tr -d ' \\n'; echo; done)
done"""


def parse(text: str) -> dict[int, int]:
    """By interrupt server, the place of its core."""
    found = {}
    for line in text.splitlines():
        servers, connector = line.split()
        place = int(connector, 16) - _CONNECTOR
        assert place >= 0, line
        found[int(servers[:8], 16)] = place
    return found


def cores(vm: Vm) -> dict[int, int]:
    """By interrupt server (``physical_id``), the place of its core, as the guest's device tree has it now."""
    return parse(vm.shell(_NODES, 60.0))


def cpus(vm: Vm) -> dict[str, GuestCpu]:
    """The guest's CPUs, each under the place of its core. For cores of one thread."""
    places = cores(vm)
    return {name: {**cpu, "path": str(places[int(cpu["path"])])} for name, cpu in vm.guest_cpus().items()}
