# SPDX-License-Identifier: Apache-2.0
"""A real ``vcpuctl agent-proxy`` as a process, and a plain gRPC client of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from kit.fakes.qemu import FakeVm
from vcpu_proto.v1 import agent_pb2 as pb
from vcpu_proto.v1.agent_pb2_grpc import GuestAgentStub

from .cli import SOON, Vcpuctl, until


@dataclass(frozen=True)
class Called:
    """How a call ended: gRPC's name of the status, and its words; how many CPUs the last answer shows."""

    status: str
    details: str = ""
    cpus: int = 0


def _stub(channel: grpc.Channel) -> GuestAgentStub:
    return GuestAgentStub(channel)  # type: ignore[no-untyped-call] # generated


def _listens(path: Path) -> bool:
    """Whether somebody does: the path is there a moment before."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@contextmanager
def proxied(vm: FakeVm) -> Iterator[Path]:
    """Offer the VM's agent, at this path, from when it is there."""
    path = vm.folder / "proxy.sock"
    with Vcpuctl(vm, "agent-proxy", "--listen", str(path)) as command:
        until(lambda: _listens(path) or command.process.poll() is not None)
        assert command.process.poll() is None, command.ends()
        yield path


def list_cpus(path: Path) -> Called:
    """Ask for all CPUs."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        try:
            answer = _stub(channel).ListCpus(pb.ListCpusRequest(request_id="r"), timeout=SOON)
        except grpc.RpcError as error:
            return Called(error.code().name, error.details() or "")
        return Called("OK", cpus=len(answer.snapshot.cpus))


def set_online(path: Path, firmware_id: str) -> Called:
    """Ask for a CPU to be brought online."""
    request = pb.SetOnlineRequest(request_id="r", firmware_ids=[firmware_id], online=True)
    with grpc.insecure_channel(f"unix:{path}") as channel:
        try:
            answers = list(_stub(channel).SetOnline(request, timeout=SOON))
        except grpc.RpcError as error:
            return Called(error.code().name, error.details() or "")
        return Called("OK", cpus=len(answers))
