# SPDX-License-Identifier: Apache-2.0
"""The JSON documents: every one that vcpuctl writes to stdout is made here, and no other room names their fields.

Each function returns one document, or a part of several, without the schema's version, which ``text`` adds. Their
schemas are docs/json/NAME.schema.json. Fields are only ever added: what is there keeps its name and its meaning for as
long as ``SCHEMA_VERSION`` stays.

What is read back keeps its two directions in one place: a VM's record (``core.intent``), an export's shape
(``core.migration.shape``). Two modules take documents apart that were made here: ``core.log_entry``, which has an
operation's for the system's journal, and ``service.metrics``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..core.finding import Finding
    from ..core.log_entry import LogEntry
    from ..core.migration.compare import Comparison, Difference
    from ..core.migration.export import Arguments
    from ..core.migration.shape import Shape
    from ..core.model import HostView
    from ..core.operation.result import OperationResult, SlotResult
    from ..core.planning.plan import Plan, Request, Step
    from ..core.reason import Outcome, Reason
    from ..core.view import SlotView, ThreadView, VmView
    from ..core.workload.model import Note
    from ..vm.migration_target import Prepared
    from ..vm.numa_assign import Assigned

Document = dict[str, Any]

#: Of all documents together; a document that older programs could not read would get another one.
SCHEMA_VERSION = 1


def text(document: Mapping[str, Any]) -> str:
    """Return the document as it is written: in one line, with the schema's version."""
    return json.dumps({"schema_version": SCHEMA_VERSION, **document})


def of_reason(reason: Reason) -> Document:
    """Return a reason; empty fields are kept, so that readers need no defaults."""
    return {
        "code": reason.code,
        "who": str(reason.who),
        "text": reason.text,
        "hint": reason.hint,
        "errno": reason.errno,
    }


def read_reason(document: Mapping[str, Any]) -> Reason:
    """Return the reason that ``of_reason`` made the document from."""
    from ..core.reason import Origin, Reason

    words = {name: document[name] for name in ("code", "text", "hint", "errno")}
    return Reason(who=Origin(document["who"]), **words)


def or_none(reason: Reason | None) -> Document | None:
    """Return a reason, or None where there is none."""
    return None if reason is None else of_reason(reason)


def of_error(reason: Reason, exit_status: int) -> Document:
    """Return what a command says that ended without a result."""
    return {"error": of_reason(reason), "exit_status": exit_status}


def of_view(view: VmView) -> Document:
    """Return what ``list`` shows, and ``watch`` at each change."""
    agent, host = view.agent, view.host
    return {
        "vm": {
            "name": host.vm_name,
            "qemu_version": host.version_text,
            "machine": host.machine,
            "arch": host.arch,
            "accel": host.accel,
            "status": host.status,
            "possible_vcpus": view.possible_vcpus,
            "plugged_vcpus": view.plugged_vcpus,
            "online_vcpus": view.online_vcpus,
            "migration": host.migration or None,
            "migrating": host.migrating,
            "no_hotplug": or_none(host.no_hotplug),
            "descriptors": _of_descriptors(host),
            "owner": _of_owner(host),
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
        "agent_trouble": or_none(view.agent_trouble),
        "guest_trouble": or_none(view.guest_trouble),
        "record_trouble": or_none(view.record_trouble),
        "slots": [_of_slot(slot) for slot in view.slots],
        "unexplained_guest_cpus": [cpu.number for cpu in view.strangers],
    }


def _of_descriptors(host: HostView) -> Document | None:
    from ..core import descriptors

    has = host.descriptors
    if has is None:
        return None
    few = descriptors.found(has, host.accel) if descriptors.are_few(has, host.accel) else None
    return {
        "open": has.open,
        "limit": has.limit,
        "vcpus_left": descriptors.vcpus_left(has, host.accel),
        "few": None if few is None else of_finding(few),
    }


def without_descriptors(document: Document) -> Document:
    """Return what ``of_view`` made, without what changes when somebody just looks."""
    return {**document, "vm": {**document["vm"], "descriptors": None}}


def _of_owner(host: HostView) -> Document | None:
    owner = host.owner
    if owner is None:
        return None
    return {"name": owner.name, "definition": owner.definition, "record_alone": owner.record_alone}


def _of_slot(view: SlotView) -> Document:
    return {
        "slot": view.index,
        "props": dict(view.slot.props),
        "type": view.slot.type,
        "vcpus": view.slot.vcpus,
        "state": str(view.state),
        "filled": view.slot.filled,
        "id": view.slot.device_id,
        "qom_path": view.slot.path,
        "pending": _of_pending(view),
        "removable": view.not_removable is None,
        "not_removable": or_none(view.not_removable),
        "recorded": str(view.slot.recorded),
        "node": view.node,
        "threads": [_of_thread(thread) for thread in view.threads],
    }


def _of_pending(view: SlotView) -> Document | None:
    if view.pending is None:
        return None
    from datetime import UTC, datetime

    return {
        "operation": str(view.pending.kind),
        "id": view.pending.device_id,
        "since": datetime.fromtimestamp(view.pending.since, UTC).isoformat(timespec="seconds"),
    }


def _of_thread(thread: ThreadView) -> Document:
    return {
        "guest_cpu": thread.cpu.number if thread.cpu else None,
        "online": thread.online,
        "parked": thread.parked,
        "host_tid": thread.host_tid,
        "firmware_id": thread.firmware_id or None,
        "guest_node": thread.cpu.node if thread.cpu else None,
    }


def of_request(request: Request) -> Document:
    """Return what was asked for: of options only those that were given."""
    from ..core.planning.placement import Placement
    from ..core.planning.plan import FLAGS

    document: Document = {"count": request.count, "slots": list(request.selectors)}
    if request.placement is not Placement.LOWEST or request.strict_placement:
        document["policy"] = str(request.placement)
    if request.workload is not None:
        document["workload"] = str(request.workload)
    if request.node is not None:
        document["node"] = request.node
    return document | {name: True for name in FLAGS if getattr(request, name)}


def of_plan(plan: Plan) -> Document:
    """Return what ``plan`` and ``--dry-run`` show."""
    return {
        "operation": str(plan.request.operation),
        "requested": of_request(plan.request),
        "recover": [_of_step(step, step.on_failure) for step in plan.recover],
        "steps": [_of_step(step, plan.on_failure(step)) for step in plan.steps],
        "refusals": [
            {"slot": each.slot, "reason": of_reason(each.reason), "unreachable": each.unreachable}
            for each in plan.refusals
        ],
        "already": [view.index for view in plan.already],
        "one_at_a_time": plan.one_at_a_time,
        "notes": _of_notes(plan.notes),
    }


def _of_step(step: Step, on_failure: str) -> Document:
    return {
        "step": str(step.kind),
        "slot": step.slot.index,
        "id": step.device_id,
        "props": dict(step.slot.props),
        "vcpus": step.slot.vcpus,
        "firmware_ids": list(step.firmware_ids),
        "why": step.why,
        "on_failure": on_failure,
    }


def of_result(result: OperationResult) -> Document:
    """Return how an operation ended; times are in seconds."""
    return {
        "operation": str(result.request.operation),
        "outcome": str(result.outcome),
        "requested": of_request(result.request),
        "reason": or_none(result.reason),
        "slots": [_of_slot_result(slot) for slot in result.slots],
        "recovered": [_of_slot_result(slot) for slot in result.recovered],
        "elapsed": round(result.elapsed, 6),
        "notes": _of_notes(result.notes),
    }


def _of_notes(notes: Sequence[Note]) -> list[Document]:
    if not notes:
        return []
    from .programs import of_notes

    return of_notes(notes)


def _of_slot_result(slot: SlotResult) -> Document:
    return {
        "slot": slot.slot,
        "id": slot.device_id,
        "outcome": str(slot.outcome),
        "reason": or_none(slot.reason),
        "phases": {name: round(seconds, 6) for name, seconds in slot.phases.items()},
        "guest_cpus": list(slot.guest_cpus),
    }


def of_findings(findings: Iterable[Finding]) -> Document:
    """Return what ``doctor`` found."""
    return {"findings": [of_finding(finding) for finding in findings]}


def of_finding(finding: Finding) -> Document:
    """Return one finding."""
    return {"level": str(finding.level), "code": finding.code, "text": finding.text, "fix": finding.fix}


def of_member(
    name: str, vcpus: int | None, answer: Document | None, error: Reason | None, exit_status: int
) -> Document:
    """Return how a command for several VMs ended for one: with the document that it has for one VM, or an error."""
    return {
        "vm": name,
        "vcpus": vcpus,
        "exit_status": exit_status,
        "document": None if answer is None else {"schema_version": SCHEMA_VERSION, **answer},
        "error": or_none(error),
    }


def of_fleet(command: str, members: Iterable[Document], exit_status: int, elapsed: float, *, dry_run: bool) -> Document:
    """Return how a command for several VMs ended; ``members`` are by ``of_member``."""
    return {
        "command": command,
        "dry_run": dry_run,
        "vms": list(members),
        "exit_status": exit_status,
        "elapsed": round(elapsed, 6),
    }


def of_export(shape: Shape, arguments: Arguments) -> Document:
    """Return what ``export`` writes: the shape, which is read back, and how another QEMU gets it."""
    from ..core.migration.export import device_add

    return {
        **shape.to_json(),
        "initial_vcpus": arguments.initial,
        "arguments": arguments.argv,
        "device_add": [device_add(place) for place in arguments.devices],
    }


def of_comparison(comparison: Comparison, outcome: Outcome) -> Document:
    """Return what ``migrate check`` found."""
    return {
        "operation": "migrate-check",
        "outcome": str(outcome),
        "differences": [of_difference(difference) for difference in comparison.differences],
    }


def of_prepared(prepared: Prepared) -> Document:
    """Return how ``migrate prepare`` ended."""
    return {
        "operation": "migrate-prepare",
        "outcome": str(prepared.outcome),
        "plugged": [{"slot": place.index, "id": place.name} for place in prepared.plugged],
        "reason": or_none(prepared.reason),
        "differences": [of_difference(difference) for difference in prepared.comparison.differences],
    }


def of_difference(difference: Difference) -> Document:
    """Return one difference between a migration's source and its destination."""
    return {
        **of_finding(difference.finding),
        "slot": difference.slot,
        "source": difference.source,
        "destination": difference.destination,
        "curable": difference.curable,
    }


def of_assigned(assigned: Assigned) -> Document:
    """Return how ``numa assign`` ended."""
    return {
        "operation": "numa-assign",
        "outcome": str(assigned.outcome),
        "dry_run": assigned.dry_run,
        "slots": [
            {"slot": slot.index, "props": dict(slot.props), "node": assigned.nodes.get(slot.index)}
            for slot in assigned.slots
        ],
        "arguments": [word for line in assigned.lines for word in line.split(" ", 1)],
        "reason": or_none(assigned.reason),
    }


def of_log(entries: Iterable[LogEntry], skipped: int, *, complete: bool) -> Document:
    """Return what ``log`` shows; with ``--follow`` it is one document an entry."""
    return {"entries": [_of_entry(entry) for entry in entries], "skipped": skipped, "complete": complete}


def _of_entry(entry: LogEntry) -> Document:
    from datetime import UTC, datetime

    subject, caller = entry.subject, entry.caller
    plugged, online = entry.plugged, entry.online
    return {
        "time": datetime.fromtimestamp(entry.time, UTC).isoformat(timespec="milliseconds"),
        "vm": {"name": subject.name, "socket": subject.socket, "qemu_pid": subject.pid},
        "caller": {
            "uid": caller.uid,
            "user": caller.user,
            "for_uid": caller.for_uid,
            "login_uid": entry.login_uid,
            "command": caller.command,
        },
        "operation": str(entry.operation),
        "requested": entry.requested,
        "outcome": str(entry.outcome),
        "reasons": [{**of_reason(told.reason), "slots": told.slots} for told in entry.reasons],
        "slots": entry.slots,
        "before": {"plugged_vcpus": plugged[0], "online_vcpus": online[0]},
        "after": {"plugged_vcpus": plugged[1], "online_vcpus": online[1]},
        "phases": dict(entry.phases),
        "elapsed": entry.elapsed,
    }
