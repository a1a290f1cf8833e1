# SPDX-License-Identifier: Apache-2.0
"""Messages of vcpu.v1 into the model's values: the only place where a guest's words come in, parsed by ``bounds``.

Everything is bounded and checked here (promise 6): a message that is out of bounds or contradicts itself is a
:class:`BadMessageError`, and every string is made printable.
"""

from __future__ import annotations

from vcpu_proto.v1 import agent_pb2 as pb

from vcpu_host.core.guest import (
    AgentInfo,
    CpuResult,
    CpuStatus,
    Environment,
    GuestCpu,
    GuestView,
    LoadSupport,
)
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.text import printable
from vcpu_host.core.workload.cpus import LIMIT

from .bounds import BadMessageError

#: No number of a CPU is larger than the sets of them allow for, so there are no more CPUs either.
MAX_CPUS = LIMIT
MAX_TEXT = 1024
MAX_ITEMS = 64
#: What the codes of reasons begin with that are of the agent, not of the guest's kernel (agent.proto).
AGENTS_OWN = "agent-"

_STATUS = {
    pb.CpuResult.STATUS_DONE: CpuStatus.DONE,
    pb.CpuResult.STATUS_ALREADY: CpuStatus.ALREADY,
    pb.CpuResult.STATUS_REFUSED: CpuStatus.REFUSED,
    pb.CpuResult.STATUS_ABSENT: CpuStatus.ABSENT,
}


def _text(value: str, field: str, limit: int = MAX_TEXT) -> str:
    if len(value.encode()) > limit:
        raise BadMessageError(f"{field} is longer than {limit} bytes")
    return printable(value, limit)


def reason(message: pb.Reason) -> Reason:
    """Return a refusal in the guest's words."""
    code = _text(message.code, "reason.code", 64)
    if not code or not all(c.isascii() and (c.isalnum() or c == "-") for c in code):
        raise BadMessageError("reason.code is no code")
    return Reason(
        code,
        Origin.AGENT if code.startswith(AGENTS_OWN) else Origin.GUEST,
        _text(message.text, "reason.text"),
        errno=_text(message.errno_name, "reason.errno_name", 32),
    )


def cpu_number(number: int) -> int:
    """Return the number of a guest CPU. It becomes a bit of a set, so a large one would take memory and time."""
    if number >= MAX_CPUS:
        raise BadMessageError(f"a CPU has the number {number}, and no kernel has one above {MAX_CPUS - 1}")
    return number


def cpu(message: pb.Cpu) -> GuestCpu:
    """Return one guest CPU."""

    def number(name: str) -> int | None:
        return int(getattr(message, name)) if message.HasField(name) else None

    switching = message.switching_seconds if message.HasField("switching_seconds") else None
    if switching is not None and not 0 <= switching < 1e6:
        raise BadMessageError("switching_seconds is out of range")
    return GuestCpu(
        cpu_number(message.number),
        _text(message.firmware_id, "firmware_id", 256),
        message.online,
        cannot_offline=reason(message.cannot_offline) if message.HasField("cannot_offline") else None,
        cannot_online=reason(message.cannot_online) if message.HasField("cannot_online") else None,
        package_id=number("package_id"),
        die_id=number("die_id"),
        core_id=number("core_id"),
        node=number("node"),
        switching=switching,
    )


def snapshot(message: pb.Snapshot) -> GuestView:
    """Return a whole snapshot; numbers and identities must be unique."""
    if len(message.cpus) > MAX_CPUS:
        raise BadMessageError(f"more than {MAX_CPUS} CPUs")
    cpus = tuple(sorted(map(cpu, message.cpus), key=lambda item: item.number))
    if len({item.number for item in cpus}) != len(cpus):
        raise BadMessageError("two CPUs have one number")
    identities = [item.firmware_id for item in cpus if item.firmware_id]
    if len(set(identities)) != len(identities):
        raise BadMessageError("two CPUs have one firmware identity")
    return GuestView(
        message.generation,
        _text(message.boot_id, "boot_id", 64),
        _text(message.instance_id, "instance_id", 64),
        cpus,
    )


def result(message: pb.CpuResult) -> CpuResult:
    """Return the answer for one CPU."""
    status = _STATUS.get(message.status)
    if status is None:
        raise BadMessageError(f"result.status {message.status} is unknown")
    observed = cpu(message.observed) if message.HasField("observed") else None
    if observed is not None and observed.firmware_id != message.firmware_id:
        raise BadMessageError("a result observes another CPU than it is about")
    if status in (CpuStatus.DONE, CpuStatus.ALREADY) and observed is None:
        raise BadMessageError("a result of success without what was read back")
    if status is CpuStatus.ABSENT and observed is not None:
        raise BadMessageError("a result observes a CPU that it says is absent")
    if not 0 <= message.seconds < 1e6:
        raise BadMessageError("result.seconds is out of range")
    return CpuResult(
        _text(message.firmware_id, "firmware_id", 256),
        status,
        reason(message.reason) if message.HasField("reason") else None,
        observed,
        message.seconds,
    )


def environment(message: pb.Environment) -> Environment:
    """Return what in the guest bears on hotplug."""

    def texts(name: str) -> tuple[str, ...]:
        values = getattr(message, name)
        if len(values) > MAX_ITEMS:
            raise BadMessageError(f"more than {MAX_ITEMS} items in {name}")
        return tuple(_text(value, name) for value in values)

    def flag(name: str) -> bool | None:
        return bool(getattr(message, name)) if message.HasField(name) else None

    if len(message.unhandled_gpes) > MAX_ITEMS:
        raise BadMessageError(f"more than {MAX_ITEMS} items in unhandled_gpes")
    return Environment(
        possible=_text(message.possible, "possible"),
        isolated=_text(message.isolated, "isolated"),
        nohz_full=_text(message.nohz_full, "nohz_full"),
        kernel_max=message.kernel_max,
        smt_control=_text(message.smt_control, "smt_control", 64),
        auto_online_rules=texts("auto_online_rules"),
        eject_enabled=flag("eject_enabled"),
        clocksource=_text(message.clocksource, "clocksource", 64),
        kernel_arguments=texts("kernel_arguments"),
        hypervisor_flag=flag("hypervisor_flag"),
        acpi=flag("acpi"),
        writable=flag("writable"),
        unwritable=texts("unwritable"),
        partition_isolated=_text(message.partition_isolated, "partition_isolated"),
        keeps_affinity=flag("keeps_affinity"),
        unhandled_gpes=tuple(message.unhandled_gpes),
    )


def agent_info(message: pb.HelloResponse, protocol: int) -> AgentInfo:
    """Return who answers; ``protocol`` is the version agreed on."""
    if len(message.capabilities) > MAX_ITEMS:
        raise BadMessageError(f"more than {MAX_ITEMS} capabilities")
    return AgentInfo(
        version=_text(message.agent_version, "agent_version", 64),
        protocol=protocol,
        kernel=_text(message.kernel, "kernel", 256),
        arch=_text(message.arch, "arch", 64),
        boot_id=_text(message.boot_id, "boot_id", 64),
        instance_id=_text(message.instance_id, "instance_id", 64),
        platform=_text(message.platform, "platform", 64),
        event_source=_text(message.event_source, "event_source", 64),
        capabilities=tuple(_text(item, "capabilities", 64) for item in message.capabilities),
        environment=environment(message.environment),
        load=load_support(message.load) if message.HasField("load") else None,
    )


def load_support(message: pb.LoadSupport) -> LoadSupport:
    """Return what the agent would tell of the guest's load."""
    return LoadSupport(message.allowed, message.pressure, message.run_queues, message.triggers)
