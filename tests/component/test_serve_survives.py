# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl serve`` is killed at any moment, loses its QEMUs again and again, and has clients that mean it no good.

KILLS and RECONNECTS in the environment make the first two longer.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import pytest
from kit.component.cli import SOON, done, stands, until
from kit.component.many import ForMany, for_many
from kit.component.serving import Serving
from kit.fakes.fleet import FakeFleet, fake_fleet
from kit.fakes.qemu import FakeVm
from vcpu_proto.host.v1 import host_pb2 as pb
from vcpu_proto.host.v1.host_pb2_grpc import HostStub

KILLS = int(os.environ.get("KILLS", "6"))
RECONNECTS = int(os.environ.get("RECONNECTS", "12"))
#: What the service may have had at most, in bytes, whatever its clients do.
MOST_MEMORY = 150e6


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vu", dir="/tmp") as name:
        yield Path(name)


def _asked_for(fleet: FakeFleet) -> int:
    """How often QEMUs were asked to plug or unplug a CPU so far."""
    return sum(len(vm.steer.commands(name)) for vm in fleet.vms.values() for name in ("device_add", "device_del"))


@pytest.mark.crowd
def test_killed_at_any_moment_of_an_apply_the_service_leaves_vms_that_the_next_apply_puts_right(folder: Path) -> None:
    chance = random.Random(7)
    with fake_fleet(folder, ["web1", "web2", "web3"], "--maxcpus", "4") as fleet:
        for number in range(KILLS):
            vcpus = 1 + 2 * (number % 2 == 0)
            goals = str(fleet.goals(vcpus))
            with Serving(fleet.vms) as service:
                for name in fleet.vms:
                    service.holds(name)
                enough = _asked_for(fleet) + chance.randrange(7)
                with ForMany(fleet, "apply", goals) as command:
                    until(lambda enough=enough: _asked_for(fleet) >= enough or command.process.poll() is not None)  # type: ignore[misc]
                    service.process.kill()
                    ended = command.ends_for_each()
            outcomes = {ended.outcome_of(name) for name in fleet.vms}
            assert outcomes <= {"done", "service-lost"}, ended.stdout
            again = for_many(fleet, "apply", goals)
            assert again.status == 0, again.stdout
            for vm in fleet.vms.values():
                stands(vm, set(range(vcpus)))


def _open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _memory(pid: int, what: str) -> int:
    """The process's memory in bytes: "VmRSS" now, or "VmHWM" at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))


def test_a_qemu_that_is_started_anew_again_and_again_leaves_no_descriptor_and_no_memory_behind(folder: Path) -> None:
    held: tuple[int, int] | None = None
    with ExitStack() as ends:
        service = None
        for number in range(RECONNECTS):
            home = folder / "vm"
            home.mkdir()
            with FakeVm(home, "--maxcpus", "4", agent=False) as vm:
                service = service or ends.enter_context(Serving({"web1": vm}))
                service.holds("web1")
                pid = service.process.pid
                if number == 5:
                    held = _open_files(pid), _memory(pid, "VmRSS")
                if held is not None and number == RECONNECTS - 1:
                    # What is under way has some for a moment, the clients of this test, too; what is leaked stays.
                    until(lambda pid=pid, most=held[0] + 2: _open_files(pid) <= most)  # type: ignore[misc]
                    assert _memory(pid, "VmRSS") - held[1] < 4e6
            until(lambda service=service: not service.held("web1"))  # type: ignore[misc]
            shutil.rmtree(home)
    assert held is not None


def _greedy(channel: grpc.Channel) -> list[object]:
    """Calls whose answers nobody takes, and one that is too large."""
    host = HostStub(channel)  # type: ignore[no-untyped-call]
    calls: list[object] = [host.Watch(pb.WatchRequest(vm="web1")) for _ in range(30)]
    calls += [host.List.future(pb.ListRequest(vm="web1")) for _ in range(200)]
    order = pb.Order(operation=pb.Order.OPERATION_PLUG, slots=["x" * 1000] * 3000)
    calls.append(host.Plan.future(pb.PlanRequest(vm="web1", order=order)))
    return calls


def test_clients_that_are_slow_or_greedy_neither_hold_up_others_nor_make_the_service_grow(folder: Path) -> None:
    with FakeVm(folder, "--maxcpus", "200") as vm, Serving({"web1": vm}) as service, ExitStack() as ends:
        service.holds("web1")
        # Without a pool of its own a channel shares the connection of others, and waits in its client's own queue.
        own = [("grpc.use_local_subchannel_pool", 1)]
        channels = [ends.enter_context(grpc.insecure_channel(f"unix:{service.socket}", own)) for _ in range(3)]
        greedy = [call for channel in channels for call in _greedy(channel)]
        for begun in (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"P", b"{", b'{"call": "list", "x": "' + b"x" * 300_000):
            for _ in range(8):
                raw = ends.enter_context(socket.socket(socket.AF_UNIX))
                raw.settimeout(SOON)
                raw.connect(str(service.socket))
                with suppress(OSError):
                    raw.sendall(begun)
        with service.host() as host:
            for vcpus in (3, 1, 3, 1):
                done(vm, set(range(vcpus)), "scale", str(vcpus))
                assert host.List(pb.ListRequest(vm="web1"), timeout=SOON).document["vm"]["online_vcpus"] == vcpus
        assert _memory(service.process.pid, "VmHWM") < MOST_MEMORY
        del greedy  # they were under way until here
