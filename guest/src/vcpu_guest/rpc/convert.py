# SPDX-License-Identifier: Apache-2.0
"""Makes the wire's messages from the agent's own values. Besides it only `rpc` sees messages.

Strings are cut here to the contract's 1024 bytes, with a mark. Lists of CPUs are not: half a list names other CPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from vcpu_proto.v1 import agent_pb2 as pb

from vcpu_guest.core import cpulist, model, reasons
from vcpu_guest.core import load as loads
from vcpu_guest.core.workload import Threads, Workload

#: Bytes; the host may reject longer strings (agent.proto).
MAX_STRING = 1024
#: At the end of a string that is longer. Reasons are made to be shorter: what to do stands at their end.
_CUT = "..."
#: Bytes of one list of CPUs in a Workload, and of all of them. 8192 scattered CPUs take 20,000.
MAX_CPUS, MAX_ALL_CPUS = 32768, 1 << 20

#: The oldest and the newest version of the protocol that this agent speaks.
PROTOCOL = (1, 1)
CAPABILITIES = ("list-cpus", "watch", "set-online", "wait-for-arrival", "control", "workload", "control-workload")
#: The capability of an agent that keeps the eject gate.
EJECT_GATE = "eject-gate"
#: The capability of an agent that may tell the load.
WATCH_LOAD = "watch-load"


def bounded(text: str) -> str:
    """Return at most MAX_STRING bytes of UTF-8, cut between characters. What is cut ends with "..."."""
    data = text.encode("utf-8", "replace")
    if len(data) <= MAX_STRING:
        return data.decode()
    return data[: MAX_STRING - len(_CUT)].decode("utf-8", "ignore") + _CUT


def whole_entries(cpus: str) -> str:
    """Return the entries at the beginning of a list of CPUs that fit into MAX_STRING bytes: none is cut in two."""
    return bounded(cpus if len(cpus) <= MAX_STRING else cpus[: MAX_STRING + 1].rpartition(",")[0])


def hello(
    agent: model.AgentInfo, environment: model.Environment, *, gated: bool, keeps_affinity: bool = False
) -> pb.HelloResponse:
    """Return the answer to Hello. `gated`: the agent keeps the eject gate; `keeps_affinity`: it puts masks back."""
    message = pb.HelloResponse(
        protocol_min=PROTOCOL[0],
        protocol_max=PROTOCOL[1],
        agent_version=agent.agent_version,
        capabilities=(*CAPABILITIES, EJECT_GATE) if gated else CAPABILITIES,
        arch=bounded(agent.arch),
        kernel=bounded(agent.kernel),
        boot_id=agent.boot_id,
        platform=agent.platform,
        event_source=agent.event_source,
        instance_id=agent.instance_id,
        environment=pb.Environment(
            possible=whole_entries(environment.possible),
            isolated=whole_entries(environment.isolated),
            nohz_full=whole_entries(environment.nohz_full),
            kernel_max=environment.kernel_max,
            smt_control=bounded(environment.smt_control),
            auto_online_rules=[bounded(path) for path in environment.auto_online_rules[:64]],
            clocksource=bounded(environment.clocksource),
            kernel_arguments=[bounded(argument) for argument in environment.kernel_arguments[:64]],
            unwritable=[bounded(path) for path in environment.unwritable[:64]],
            partition_isolated=whole_entries(environment.partition_isolated),
            unhandled_gpes=environment.unhandled_gpes[:64],
        ),
    )
    for name in ("eject_enabled", "hypervisor_flag", "acpi", "writable"):
        value = getattr(environment, name)
        if value is not None:
            setattr(message.environment, name, value)
    if keeps_affinity:
        message.environment.keeps_affinity = True
    return message


def reason(value: model.Reason) -> pb.Reason:
    """Return a reason, with its errno's name."""
    return pb.Reason(
        code=value.code, text=bounded(value.text), errno=value.errno, errno_name=reasons.name_of(value.errno)
    )


def cpu(value: model.Cpu, in_hand: Mapping[str, float] = MappingProxyType({})) -> pb.Cpu:
    """Return one CPU; what is not known stays absent. `in_hand`: see Writer.in_hand."""
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
    value: model.Snapshot, agent: model.AgentInfo, in_hand: Mapping[str, float] = MappingProxyType({})
) -> pb.Snapshot:
    """Return all CPUs, which of them are in hand, and which agent says so."""
    return pb.Snapshot(
        generation=value.generation,
        boot_id=agent.boot_id,
        instance_id=agent.instance_id,
        cpus=[cpu(each, in_hand) for each in value.cpus],
    )


def answer(value: model.Arrived | model.CpuResult, request_id: str) -> pb.SetOnlineResponse:
    """Return one step of a SetOnline call."""
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


class _Lists:
    """Lists of CPUs on their way into one message. One that has no room is left out with all that it belongs to."""

    def __init__(self) -> None:
        self._left = MAX_ALL_CPUS
        self.left_out = 0

    def take(self, *lists: str) -> bool:
        """Say whether there is room for these."""
        size = sum(map(len, lists))
        if size > self._left or any(len(each) > MAX_CPUS for each in lists):
            self.left_out += 1
            return False
        self._left -= size
        return True

    def alone(self, cpus: str) -> str:
        """Return the list, "" if it has no room."""
        return cpus if self.take(cpus) else ""


def workload(value: Workload) -> pb.Workload:
    """Return what a look at the guest's programs has found."""
    lists = _Lists()
    message = pb.Workload(
        online=lists.alone(_cpus(value.online)),
        isolated=lists.alone(value.isolated),
        nohz_full=lists.alone(value.nohz_full),
        partition_isolated=lists.alone(value.partition_isolated),
        root_effective=lists.alone(value.root_effective),
        pinned=[
            pb.Pinned(cpus=cpus, threads=_threads(each.threads))
            for each in value.pinned
            if lists.take(cpus := _cpus(each.cpus))
        ],
        cpusets=[
            pb.Cpuset(
                cgroup=each.cgroup,
                cpus=each.cpus,
                effective=each.effective,
                partition=bounded(each.partition),
                populated=each.populated,
            )
            for each in value.cpusets
            if lists.take(each.cpus, each.effective)
        ],
        units=[
            pb.Unit(name=each.name, cpus=cpus, active=each.active)
            for each in value.units
            if lists.take(cpus := _cpus(each.cpus))
        ],
        deadline=_threads(value.deadline),
        forgotten=_threads(value.forgotten),
        broken=[
            pb.Broken(cpus=cpus, fate=f"FATE_{each.fate.name}", threads=_threads(each.threads))
            for each in value.broken
            if lists.take(cpus := _cpus(each.cpus))
        ],
        network=[
            pb.NetworkDevice(
                name=each.name,
                driver=each.driver,
                queue_pairs=each.queue_pairs,
                most_queue_pairs=each.most_queue_pairs,
            )
            for each in value.network
        ],
        quotas=[pb.Quota(cgroup=each.cgroup, unit=each.unit, cpus=each.cpus) for each in value.quotas],
        kdump_reloads=value.kdump_reloads,
        unseen=[bounded(each) for each in value.unseen],
    )
    if lists.left_out:
        message.unseen.append(f"lists of CPUs: {lists.left_out} have no room in the answer")
    return message


def _cpus(numbers: frozenset[int]) -> str:
    return cpulist.render(numbers)


def _threads(value: Threads) -> pb.Threads:
    return pb.Threads(
        count=value.count,
        some=[
            pb.Thread(pid=each.pid, tid=each.tid, comm=each.comm, unit=each.unit, cgroup=each.cgroup)
            for each in value.some
        ],
    )


def tell_load(message: pb.HelloResponse, support: loads.LoadSupport | None, *, allowed: bool) -> None:
    """Add to the answer to Hello what is told of the load; `support` is None if the kernel tells nothing."""
    message.load.allowed = allowed
    if support is not None:
        message.capabilities.append(WATCH_LOAD)
        message.load.pressure = support.pressure
        message.load.run_queues = support.run_queues
        message.load.triggers = support.triggers


def load(value: loads.Load, request_id: str, agent: model.AgentInfo, pause: float) -> pb.WatchLoadResponse:
    """Return one look at the load; the next one comes within `pause` seconds."""
    return pb.WatchLoadResponse(
        request_id=request_id,
        monotonic_seconds=value.seconds,
        boot_id=agent.boot_id,
        instance_id=agent.instance_id,
        cpus=[_cpu_load(cpu) for cpu in value.cpus],
        cpu_pressure=value.cpu_pressure,
        memory_pressure=value.memory_pressure,
        runnable=value.runnable,
        next_within=pause,
    )


def _cpu_load(cpu: loads.CpuTimes) -> pb.CpuLoad:
    return pb.CpuLoad(
        number=cpu.number, busy=cpu.busy, steal=cpu.steal, iowait=cpu.iowait, idle=cpu.idle, waited=cpu.waited
    )
