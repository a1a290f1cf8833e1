# SPDX-License-Identifier: Apache-2.0
"""The model as the wire's messages. Nothing else in the agent sees them, but for service.py.

Strings are cut to the contract's 1024 bytes here, at the edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from vcpu_proto.v1 import agent_pb2 as pb

from vcpu_guest.core import model, reasons

#: Bytes; the contract (agent.proto) lets the host reject more.
MAX_STRING = 1024

#: The versions of the protocol that this agent speaks, both ends included.
PROTOCOL = (1, 1)
CAPABILITIES = ("list-cpus", "watch", "set-online", "wait-for-arrival", "control")
#: Of an agent that keeps the gate (gate.py).
EJECT_GATE = "eject-gate"


def bounded(text: str) -> str:
    """At most MAX_STRING bytes of UTF-8, cut between characters."""
    return text.encode("utf-8", "replace")[:MAX_STRING].decode("utf-8", "ignore")


def hello(identity: model.AgentInfo, environment: model.Environment, *, gated: bool) -> pb.HelloResponse:
    """The answer to Hello; `gated` says whether the agent keeps the eject gate."""
    message = pb.HelloResponse(
        protocol_min=PROTOCOL[0],
        protocol_max=PROTOCOL[1],
        agent_version=identity.agent_version,
        capabilities=(*CAPABILITIES, EJECT_GATE) if gated else CAPABILITIES,
        arch=bounded(identity.arch),
        kernel=bounded(identity.kernel),
        boot_id=identity.boot_id,
        platform=identity.platform,
        event_source=identity.event_source,
        instance_id=identity.instance_id,
        environment=pb.Environment(
            possible=bounded(environment.possible),
            isolated=bounded(environment.isolated),
            nohz_full=bounded(environment.nohz_full),
            kernel_max=environment.kernel_max,
            smt_control=bounded(environment.smt_control),
            auto_online_rules=[bounded(path) for path in environment.auto_online_rules[:64]],
            clocksource=bounded(environment.clocksource),
            kernel_arguments=[bounded(argument) for argument in environment.kernel_arguments[:64]],
            unwritable=[bounded(path) for path in environment.unwritable[:64]],
        ),
    )
    for name in ("eject_enabled", "hypervisor_flag", "acpi", "writable"):
        value = getattr(environment, name)
        if value is not None:
            setattr(message.environment, name, value)
    return message


def reason(value: model.Reason) -> pb.Reason:
    """A reason with its errno's name."""
    return pb.Reason(
        code=value.code, text=bounded(value.text), errno=value.errno, errno_name=reasons.name_of(value.errno)
    )


def cpu(value: model.Cpu, in_hand: Mapping[str, float] = MappingProxyType({})) -> pb.Cpu:
    """One CPU; what is not known stays absent. `in_hand`: see Switch.in_hand."""
    return pb.Cpu(
        number=value.number,
        firmware_id=bounded(value.firmware_id),
        online=value.online,
        cannot_offline=None if value.cannot_offline is None else reason(value.cannot_offline),
        cannot_online=None if value.cannot_online is None else reason(value.cannot_online),
        package_id=value.detail.package_id,
        die_id=value.detail.die_id,
        core_id=value.detail.core_id,
        node=value.detail.node,
        switching_seconds=in_hand.get(value.firmware_id),
    )


def snapshot(
    value: model.Snapshot, identity: model.AgentInfo, in_hand: Mapping[str, float] = MappingProxyType({})
) -> pb.Snapshot:
    """All CPUs, which of them are in hand, and who says so."""
    return pb.Snapshot(
        generation=value.generation,
        boot_id=identity.boot_id,
        instance_id=identity.instance_id,
        cpus=[cpu(each, in_hand) for each in value.cpus],
    )


def answer(value: model.Arrived | model.CpuResult, request_id: str) -> pb.SetOnlineResponse:
    """One step of a SetOnline call."""
    if isinstance(value, model.Arrived):
        return pb.SetOnlineResponse(request_id=request_id, arrived=cpu(value.cpu))
    result = pb.CpuResult(
        firmware_id=value.firmware_id,
        status=f"STATUS_{value.status.name}",
        seconds=value.seconds,
        reason=None if value.reason is None else reason(value.reason),
        observed=None if value.observed is None else cpu(value.observed),
    )
    return pb.SetOnlineResponse(request_id=request_id, result=result)
