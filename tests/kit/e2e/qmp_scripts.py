# SPDX-License-Identifier: Apache-2.0
"""What is said to QEMU, and to the fake one, to see whether they answer alike."""

from __future__ import annotations

from typing import Any

CPU = "qemu64-x86_64-cpu"


def place(socket_id: int, core: int, thread: int, **more: Any) -> dict[str, Any]:
    return {"socket-id": socket_id, "core-id": core, "thread-id": thread, **more}


def add(device_id: Any, driver: Any = CPU, **props: Any) -> tuple[str, dict[str, Any]]:
    named = {name.replace("_", "-"): value for name, value in props.items()}
    return "device_add", {"driver": driver, "id": device_id, **named}


SCRIPT: tuple[tuple[str, dict[str, Any]], ...] = (
    ("query-status", {}),
    ("query-hotpluggable-cpus", {}),
    ("query-cpus-fast", {}),
    ("query-target", {}),
    ("query-name", {}),
    ("query-kvm", {}),
    ("query-accelerators", {}),
    ("query-acpi-ospm-status", {}),
    ("query-current-machine", {}),
    ("query-migrate", {}),
    ("query-status", {"a": 1}),
    ("no-such-command", {}),
    ("qmp_capabilities", {}),
    ("qom-get", {"path": "/machine", "property": "type"}),
    ("qom-get", {"path": "/machine", "property": "nope"}),
    ("qom-get", {"path": "/machine/nope", "property": "type"}),
    ("qom-get", {"path": "/machine"}),
    ("qom-list", {"path": "/machine/nope"}),
    ("qom-list", {"path": "/machine/peripheral"}),
    ("qom-get", {"path": "/machine/peripheral/port0", "property": "name"}),
    ("qom-get", {"path": "/machine/peripheral/port0", "property": "chardev"}),
    ("qom-get", {"path": "/machine/peripheral/port0", "property": "parent_bus"}),
    ("qom-get", {"path": "/machine/peripheral/port0", "property": "nope"}),
    ("qom-get", {"path": "/machine/peripheral/root-disk", "property": "num-queues"}),
    # occupied, out of range, missing, of another type, twice
    add("vcpu-0", **place(0, 0, 0)),
    add("vcpu-1", **place(0, 0, 1)),
    add("vcpu-9", **place(2, 0, 0)),
    add("vcpu-9", **place(0, 2, 0)),
    add("vcpu-9", **place(0, 0, 2)),
    add("vcpu-9", **place(9, 9, 9)),
    add("vcpu-9"),
    add("vcpu-9", socket_id=0),
    add("vcpu-9", socket_id=0, core_id=1),
    add("vcpu-9", socket_id=5, core_id=9),
    add("vcpu-9", **place(0, 1, -1)),
    add("vcpu-9", **place(0, 1, 0, node_id=3)),
    add("vcpu-9", **place(0, 1, 0, die_id=3)),
    add("vcpu-9", **place(0, 1, 0, module_id=3)),
    add("vcpu-9", **place(0, 1, 0, foo=3)),
    add("vcpu-9", **place("a", 1, 0)),  # type: ignore[arg-type]
    add("vcpu-9", **place(0, True, 0)),
    add("vcpu-9", "max-x86_64-cpu", **place(0, 1, 0)),
    add("vcpu-9", "nope-x86_64-cpu-not", **place(0, 1, 0)),
    ("device_add", {"id": "vcpu-9"}),
    add("vcpu-2", **place(0, 1, 0)),
    add("vcpu-2", **place(0, 1, 0)),
    add("vcpu-2", **place(0, 1, 1)),
    add("port0", **place(0, 1, 1)),
    add("root-disk", **place(0, 1, 1)),
    add("vcpu-9", **place(0, 1, 0)),
    add("vcpu-7", **place(1, 1, 1)),
    ("device_add", {"driver": CPU, **place(1, 0, 0)}),
    ("query-hotpluggable-cpus", {}),
    ("query-cpus-fast", {}),
    ("qom-list", {"path": "peripheral"}),
    *(
        ("qom-get", {"path": "/machine/peripheral/vcpu-7", "property": name})
        for name in ("core-id", "apic-id", "x2apic", "hypervisor", "kvm")
    ),
    ("qom-get", {"path": "/machine", "property": "acpi"}),
    ("qom-get", {"path": "/machine", "property": "smp"}),
    # nothing can be unplugged before the guest's ACPI is up
    ("device_del", {"id": "vcpu-2"}),
    ("device_del", {"id": "/machine/peripheral/vcpu-7"}),
    ("device_del", {"id": "/machine/unattached/device[0]"}),
    ("device_del", {"id": "vcpu-9"}),
    ("device_del", {"id": "/machine/peripheral/nope"}),
    ("device_del", {"id": "/machine"}),
    ("device_del", {"id": ""}),
    ("device_del", {}),
    ("device_del", {"id": 3}),
    ("device_del", {"id": "vcpu-2", "foo": 1}),
    ("query-acpi-ospm-status", {}),
    ("cont", {}),
    ("cont", {}),
    ("query-status", {}),
    ("stop", {}),
    ("stop", {}),
    ("query-status", {}),
    ("system_reset", {}),
    ("query-status", {}),
    ("system_powerdown", {}),
)


def node(value: int | None, **props: Any) -> tuple[str, dict[str, Any]]:
    named = {name.replace("_", "-"): value for name, value in props.items()}
    return "set-numa-node", {"type": "cpu", **named, **({} if value is None else {"node-id": value})}


#: With --preconfig: two nodes, and slots that are of none; the last of them stays so.
EARLY: tuple[tuple[str, dict[str, Any]], ...] = (
    ("query-status", {}),
    ("query-hotpluggable-cpus", {}),
    ("query-cpus-fast", {}),
    ("query-target", {}),
    ("query-migrate", {}),
    ("device_add", {"driver": CPU, "id": "vcpu-1", **place(0, 0, 1)}),
    ("device_del", {"id": "vcpu-1"}),
    ("cont", {}),
    ("qom-get", {"path": "/machine", "property": "type"}),
    node(2, **place(0, 0, 0)),
    node(127, socket_id=1 << 30),
    node(1, socket_id=1 << 30, core_id=1 << 30, thread_id=1 << 30),
    node(None, socket_id=0),
    node(1, **place(0, 0, 0)),
    node(1, **place(0, 0, 0)),
    node(0, **place(0, 0, 0)),
    node(0, socket_id=0, core_id=1),
    node(1, socket_id=1, core_id=0),
    node(1, **place(1, 1, 0)),
    ("query-hotpluggable-cpus", {}),
    ("x-exit-preconfig", {}),
    ("x-exit-preconfig", {}),
    node(1, **place(0, 0, 0)),
    ("query-status", {}),
    ("query-hotpluggable-cpus", {}),
    ("query-cpus-fast", {}),
)
TWO_NODES = (
    *("-object", "memory-backend-ram,id=m0,size=32M", "-numa", "node,nodeid=0,memdev=m0"),
    *("-object", "memory-backend-ram,id=m1,size=32M", "-numa", "node,nodeid=1,memdev=m1"),
)

RAW: tuple[bytes, ...] = (
    b'{"execute":"query-status","id":1}',
    b'{"execute":"qmp_capabilities","arguments":{"enable":["nope"]},"id":1}',
    b'{"execute":"qmp_capabilities","arguments":{"enable":["oob"]},"id":{"a":1}}',
    b'{"execute":"query-name","id":null}',
    b'{"exec-oob":"query-name","id":"z"}',
    b'{"execute":5}',
    b'{"id":2}',
    b"{}",
    b'{"execute":"query-name","foo":1,"id":7}',
    b'{"execute":"query-name","arguments":5}',
    b"[1]",
    b'{"execute":"nope","id":3}',
    b'{"a":}',
    b'{"execute":\n\n"query-name", "id": "\\" } {"}',
)

#: Without ACPI, which q35 notices as little as its guest.
NO_ACPI: tuple[tuple[str, dict[str, Any]], ...] = (
    ("qom-get", {"path": "/machine", "property": "acpi"}),
    add("vcpu-2", **place(0, 1, 0)),
    ("query-hotpluggable-cpus", {}),
    ("query-acpi-ospm-status", {}),
    ("device_del", {"id": "vcpu-2"}),
    ("query-hotpluggable-cpus", {}),
)
