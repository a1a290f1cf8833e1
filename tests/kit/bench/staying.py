# SPDX-License-Identifier: Apache-2.0
"""What ``vcpuctl serve`` costs while nothing happens, and what others gain or lose beside it."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
from kit.bench.processes import NotDoneError, cpu_of, memory_of, run, started
from kit.bench.real import Say
from kit.fakes.fleet import FakeFleet
from vcpu_host.service import kept
from vcpu_proto.host.v1 import host_pb2 as pb
from vcpu_proto.host.v1.host_pb2_grpc import HostStub

#: So many VMs are kept while nothing happens.
SIZE = 200
#: Seconds for which nothing happens: as long as it takes until the service has looked once at each VM by itself.
_IDLE = kept.INTERVAL
#: In this time the service has to hold all VMs, and each round's readers to be there, in seconds.
_SOON = 120.0
#: Operations in a row, in each round.
_TIMES = 6


def idle(fleet: FakeFleet, say: Say) -> dict[str, float]:
    """Return what the service takes of a core, in percent, and of memory for each VM beyond the first, in megabytes."""
    names = list(fleet.vms)
    files = fleet.folder / "vcpuctl/vms.d"
    others = [files / f"{name}.toml" for name in names[1:]]
    for path in others:
        path.rename(path.with_suffix(".off"))
    with _serving(fleet, 1) as one:
        first = memory_of(one.pid)
    for path in others:
        path.with_suffix(".off").rename(path)
    with _serving(fleet, len(names)) as all_of_them:
        say(f"the service holds {len(names)} VMs")
        _wait(all_of_them, lambda: _is_quiet(all_of_them), "the service does not come to rest")
        used, began = cpu_of(all_of_them.pid), time.monotonic()
        _lives(all_of_them, _IDLE)
        percent = 100 * (cpu_of(all_of_them.pid) - used) / (time.monotonic() - began)
        megabytes = (memory_of(all_of_them.pid) - first) / (len(names) - 1) / 1e6
    say(f"idle: {percent:.3f} % of a core, {megabytes:.3f} MB a VM")
    return {"serve_idle_core_percent": round(percent, 3), "serve_mb_per_vm": round(megabytes, 3)}


def beside(fleet: FakeFleet, old: Path, rounds: int, say: Say) -> dict[str, Any]:
    """Return how much of the CPU of the older ``list`` one beside the service takes, and how operations fare there.

    The operations are those of one VM that the service keeps, that is watched, and whose agent a proxy offers.
    """
    name, other = list(fleet.vms)[:2]
    lists, operations, alone, watched = [], [], [], []
    for number in range(rounds):
        then = [run(fleet, "--vm", other, "-o", "json", "list", old=old).cpu for _ in range(_TIMES)]
        without = _operations(fleet, name)
        with _serving(fleet, len(fleet.vms)), ExitStack() as readers:
            now = [run(fleet, "--vm", other, "-o", "json", "list").cpu for _ in range(_TIMES)]
            readers.enter_context(started(fleet, "--vm", name, "-o", "json", "watch"))
            proxy = fleet.folder / f"proxy{number}"
            offering = readers.enter_context(started(fleet, "--vm", name, "agent-proxy", "--listen", str(proxy)))
            _wait(offering, proxy.exists, "agent-proxy does not listen")
            beside = _operations(fleet, name)
        lists.append(statistics.median(now) / statistics.median(then))
        operations.append(statistics.median(beside) / statistics.median(without))
        alone += without
        watched += beside
        say(f"round {number + 1}: list {lists[-1]:.3f}, an operation {operations[-1]:.3f} of one without readers")
    return {
        "list_with_serve_cpu_ratio": round(statistics.median(lists), 4),
        "watched_operation_ratio": round(statistics.median(operations), 4),
        "seconds_beside": {
            "operation": [round(seconds, 4) for seconds in alone],
            "watched_operation": [round(seconds, 4) for seconds in watched],
        },
    }


def _operations(fleet: FakeFleet, name: str) -> list[float]:
    """Return the seconds of plugs and unplugs of one VM."""
    words = ("plug", "unplug") * _TIMES
    return [run(fleet, "--vm", name, "-o", "json", word).wall for word in words]


@contextmanager
def _serving(fleet: FakeFleet, size: int) -> Iterator[subprocess.Popen[bytes]]:
    """A service that holds all VMs."""
    socket = fleet.folder / "serve.sock"
    with started(fleet, "serve", "--socket", str(socket)) as process:
        _wait(process, socket.exists, "the service does not listen")
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            host = HostStub(channel)  # type: ignore[no-untyped-call] # generated

            def held() -> bool:
                vms = host.ListVms(pb.ListVmsRequest(), timeout=_SOON).vms
                return bool(sum(vm.held for vm in vms) == size)

            _wait(process, held, f"the service does not hold {size} VMs")
        yield process


def _is_quiet(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has looked at all VMs for the first time, and so uses next to nothing of a core."""
    before = cpu_of(process.pid)
    _lives(process, 2.0)
    return cpu_of(process.pid) - before < 0.02


def _wait(process: subprocess.Popen[bytes], condition: Callable[[], bool], otherwise: str) -> None:
    """Wait for something that the process does. Raise NotDoneError."""
    deadline = time.monotonic() + _SOON
    while not condition():
        if time.monotonic() > deadline:
            raise NotDoneError(otherwise)
        _lives(process, 0.05)


def _lives(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Let the process be for so long. Raise NotDoneError if it ends."""
    with suppress(subprocess.TimeoutExpired):
        raise NotDoneError(f"a process has ended, with status {process.wait(seconds)}")
