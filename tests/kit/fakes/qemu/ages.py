# SPDX-License-Identifier: Apache-2.0
"""Commands that not every QEMU has, and those of before the machine is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kit.fakes.qemu.commands import COMMANDS, Arguments, Handler
from kit.fakes.qemu.errors import QmpError

if TYPE_CHECKING:
    from kit.fakes.qemu.qemu import FakeQemu

Version = tuple[int, int, int]

#: What is permitted in preconfig (allow-preconfig in qapi/*.json), as far as the fake has it.
EARLY = frozenset(
    {
        "query-hotpluggable-cpus",
        "set-numa-node",
        "x-exit-preconfig",
        "query-status",
        "query-commands",
        "query-version",
        "qom-list",
        "qom-get",
        "quit",
    }
)
#: qapi/qmp-dispatch.c, qmp_command_available.
NOT_YET = "The command '{}' is permitted only after machine initialization has completed"


def _accelerators(qemu: FakeQemu, args: Arguments) -> Any:
    args.done()
    return {"enabled": qemu.config.accel, "present": ["kvm", "mshv", "qtest", "tcg"]}


def _set_numa_node(qemu: FakeQemu, args: Arguments) -> Any:
    """hw/core/numa.c, set_numa_options, then hw/core/machine.c, machine_set_cpu_numa_node: the node comes first."""
    machine = qemu.machine
    if machine.made:
        raise QmpError("GenericError", "The command is permitted only before the machine has been created")
    props = dict(args.given)
    if props.pop("type", None) != "cpu":
        raise QmpError("GenericError", "the fake sets nodes of CPUs alone")
    node = props.pop("node-id", None)
    if node is None:
        raise QmpError("GenericError", "Missing mandatory node-id property")
    if not 0 <= node < qemu.config.nodes:
        text = f"Invalid node-id={node}, NUMA node must be defined with -numa node,nodeid=ID before it's used with "
        raise QmpError("GenericError", f"{text}-numa cpu,node-id=ID")
    matching = [
        slot
        for slot in machine.slots
        if all(slot.props(qemu.config).get(name) == value for name, value in props.items())
    ]
    if not matching:
        raise QmpError("GenericError", "no match found")
    for slot in matching:
        if slot.node not in (None, node):
            raise QmpError("GenericError", f"CPU is already assigned to node-id: {slot.node}")
        slot.node = node
    qemu.show_slots()
    return {}


def _exit_preconfig(qemu: FakeQemu, args: Arguments) -> Any:
    args.done()
    if qemu.machine.made:
        raise QmpError("GenericError", "The command is permitted only before machine initialization")
    qemu.machine.make()
    qemu.show_slots()
    return {}


def _old(_qemu: FakeQemu, _args: Arguments) -> Any:
    raise QmpError("GenericError", "the fake lists this command and does not have it")


#: Command, handler, first version with it, first version without it.
_AGES: tuple[tuple[str, Handler, Version, Version], ...] = (
    ("query-hotpluggable-cpus", COMMANDS["query-hotpluggable-cpus"], (2, 7, 0), (99, 0, 0)),
    ("query-cpus-fast", COMMANDS["query-cpus-fast"], (2, 12, 0), (99, 0, 0)),
    ("query-cpus", _old, (0, 14, 0), (6, 0, 0)),
    ("cpu-add", _old, (1, 5, 0), (5, 2, 0)),
    ("set-numa-node", _set_numa_node, (3, 0, 0), (99, 0, 0)),
    ("x-exit-preconfig", _exit_preconfig, (3, 0, 0), (99, 0, 0)),
    # query-kvm is deprecated since 11.0
    ("query-accelerators", _accelerators, (10, 2, 0), (99, 0, 0)),
)


def commands_of(version: Version) -> dict[str, Handler]:
    """Those of that version."""
    found = dict(COMMANDS)
    for name, handler, first, last in _AGES:
        found.pop(name, None)
        if first <= version < last:
            found[name] = handler
    return found
