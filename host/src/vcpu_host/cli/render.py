# SPDX-License-Identifier: Apache-2.0
"""The JSON documents that go to stdout. What people read is in ``tables``."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from vcpu_host.core.view import SlotView, VmView

SCHEMA_VERSION = 1


def emit_json(document: dict[str, object]) -> None:
    """One JSON document on stdout, and nothing else."""
    print(json.dumps({"schema_version": SCHEMA_VERSION, **document}), flush=True)  # noqa: T201 - stdout is the product


def view_document(view: VmView) -> dict[str, object]:
    """``vcpuctl list -o json``, without the schema's version."""
    agent = view.agent
    return {
        "vm": {
            "name": view.host.vm_name,
            "qemu_version": view.host.version_text,
            "machine": view.host.machine,
            "arch": view.host.arch,
            "accel": view.host.accel,
            "status": view.host.status,
            "possible_vcpus": view.possible_vcpus,
            "plugged_vcpus": view.plugged_vcpus,
            "online_vcpus": view.online_vcpus,
            "migration": view.host.migration or None,
            "no_hotplug": view.host.no_hotplug.to_json() if view.host.no_hotplug else None,
        },
        "agent": None
        if agent is None
        else {
            "connected": True,
            "version": agent.version,
            "kernel": agent.kernel,
            "boot_id": agent.boot_id,
            "platform": agent.platform,
            "eject_gate": agent.eject_gate,
        },
        "agent_trouble": view.agent_trouble.to_json() if view.agent_trouble else None,
        "record_trouble": view.record_trouble.to_json() if view.record_trouble else None,
        "slots": [_slot_document(slot) for slot in view.slots],
        "unexplained_guest_cpus": [cpu.number for cpu in view.strangers],
    }


def _slot_document(view: SlotView) -> dict[str, object]:
    return {
        "slot": view.index,
        "props": dict(view.slot.props),
        "type": view.slot.type,
        "vcpus": view.slot.vcpus,
        "state": str(view.state),
        "id": view.slot.device_id,
        "qom_path": view.slot.path,
        "pending": None
        if view.pending is None
        else {
            "operation": str(view.pending.kind),
            "id": view.pending.device_id,
            "since": datetime.fromtimestamp(view.pending.since, UTC).isoformat(timespec="seconds"),
        },
        "removable": view.not_removable is None,
        "not_removable": view.not_removable.to_json() if view.not_removable else None,
        "node": node_of(view),
        "threads": [
            {
                "guest_cpu": thread.cpu.number if thread.cpu else None,
                "online": thread.online,
                "host_tid": thread.host_tid,
                "firmware_id": thread.firmware_id or None,
                "guest_node": thread.cpu.node if thread.cpu else None,
            }
            for thread in view.threads
        ],
    }


def node_of(view: SlotView) -> int | None:
    """The slot's NUMA node: QEMU's word, or else the guest's."""
    if view.slot.node is not None:
        return view.slot.node
    return next((t.cpu.node for t in view.threads if t.cpu is not None and t.cpu.node is not None), None)
