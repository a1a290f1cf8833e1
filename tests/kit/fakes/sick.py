# SPDX-License-Identifier: Apache-2.0
"""VMs of a fleet that hang, refuse, die or lie when they are to grow."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from kit.fakes.fleet import FleetVm
from kit.fakes.hostile import Answer, Hostile, Script, identity
from vcpu_proto.v1 import agent_pb2 as pb


class Liar(Script):
    """Says that every CPU is online, and proves it by the CPU of slot 0; it does nothing.

    (Of a guest that lies about its own CPU alone nobody outside it could know.)
    """

    async def switched(self, request: pb.SetOnlineRequest) -> AsyncIterator[Answer]:
        """See Script."""
        for name in request.firmware_ids:
            observed = pb.Cpu(number=0, firmware_id=identity(0), online=True)
            result = pb.CpuResult(firmware_id=name, status=pb.CpuResult.STATUS_DONE, observed=observed)
            yield pb.SetOnlineResponse(request_id=request.request_id, result=result)
        yield pb.SetOnlineResponse(request_id=request.request_id, final=self.snapshot())


def lies(vm: FleetVm) -> AbstractContextManager[object]:
    """An agent at the VM's port that lies: the VM has to have none."""
    return Hostile(vm, Liar(vm.folder))


@contextmanager
def hangs(vm: FleetVm) -> Iterator[None]:
    """Its QEMU does nothing any more."""
    os.kill(vm.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(vm.pid, signal.SIGCONT)


@contextmanager
def loses(vm: FleetVm) -> Iterator[None]:
    """Its guest never hears of the CPU."""
    vm.steer.rule("guest:insert", "hold")
    yield


@contextmanager
def refuses(vm: FleetVm) -> Iterator[None]:
    """Its QEMU takes no CPU."""
    vm.steer.rule("before:device_add", "fail", times=None, **{"class": "GenericError", "desc": "no room"})
    yield


@contextmanager
def dies(vm: FleetVm) -> Iterator[None]:
    """Its QEMU ends as soon as it has taken the CPU."""
    vm.steer.rule("after:device_add", "die")
    yield


@contextmanager
def dead(vm: FleetVm) -> Iterator[None]:
    """Its QEMU has ended, and is gone."""
    os.kill(vm.pid, signal.SIGKILL)
    while Path(f"/proc/{vm.pid}").exists():  # until its parent has seen it
        os.sched_yield()
    yield


#: What may be wrong, and which exit status a VM then has where it is to grow.
SICK: Mapping[str, tuple[Callable[[FleetVm], AbstractContextManager[object]], int]] = {
    "hang": (hangs, 3),
    "lose": (loses, 4),
    "refuse": (refuses, 3),
    "die": (dies, 5),
    "lie": (lies, 4),
}
