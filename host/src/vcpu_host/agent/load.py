# SPDX-License-Identifier: Apache-2.0
"""WatchLoad's messages into the policy's values. The policy bounds what they lead to; here they are bounded in size."""

from __future__ import annotations

from vcpu_proto.v1 import agent_pb2 as pb

from vcpu_host.autoscale.sample import CpuTimes, LoadSample

from .bounds import BadMessageError
from .convert import MAX_CPUS, cpu_number

_MICRO = 1e-6


#: Bytes of one look at the load: those of about 5000 CPUs, which are more than any QEMU has.
MAX_LOOK = 256 * 1024


def bounded(message: bytes) -> bytes:
    """Return it. Raise BadMessageError for one that takes long to read: all VMs of a service wait meanwhile."""
    if len(message) > MAX_LOOK:
        raise BadMessageError(f"more than {MAX_LOOK} bytes in one look at the load")
    return message


def load_sample(message: pb.WatchLoadResponse) -> LoadSample:
    """Return one look at the guest's load. Raise BadMessageError if its CPUs cannot be those of a guest."""
    if len(message.cpus) > MAX_CPUS:
        raise BadMessageError(f"more than {MAX_CPUS} CPUs")
    if len({cpu.number for cpu in message.cpus}) != len(message.cpus):
        raise BadMessageError("a CPU twice in one look at the load")
    return LoadSample(
        guest_time=message.monotonic_seconds,
        boot=(message.boot_id or message.instance_id)[:64],
        cpus=tuple(
            CpuTimes(
                cpu_number(cpu.number),
                cpu.busy * _MICRO,
                cpu.steal * _MICRO,
                cpu.iowait * _MICRO,
                cpu.waited * _MICRO if cpu.HasField("waited") else None,
                cpu.idle * _MICRO if cpu.HasField("idle") else None,
            )
            for cpu in message.cpus
        ),
        runnable=message.runnable if message.HasField("runnable") else None,
        cpu_pressure=message.cpu_pressure * _MICRO if message.HasField("cpu_pressure") else None,
        memory_pressure=message.memory_pressure * _MICRO if message.HasField("memory_pressure") else None,
    )
