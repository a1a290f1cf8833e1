# SPDX-License-Identifier: Apache-2.0
"""A service, a watch and a proxy's client on one real VM, beside a command line that plugs and unplugs."""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kit.component.serving import Serving
from kit.e2e.lines import JsonLines
from kit.e2e.load import rounds
from kit.e2e.machine import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

#: Room for many plugs: under TCG a QEMU has a budget.
WIDE = "1,maxcpus=64,sockets=2,cores=16,threads=2"
#: Asks for the list again and again, through the proxy; prints the status of whatever is not answered.
CLIENT = """
import sys, threading, grpc
from vcpu_proto.v1 import agent_pb2 as pb, agent_pb2_grpc

answered = 0
with grpc.insecure_channel("unix:" + sys.argv[1]) as channel:
    agent = agent_pb2_grpc.GuestAgentStub(channel)
    while True:
        try:
            agent.ListCpus(pb.ListCpusRequest(request_id="r"), timeout=60)
            answered += 1
            print("answered", flush=True)
        except grpc.RpcError as error:
            print(error.code().name, flush=True)
        threading.Event().wait(0.5)  # as a program that looks now and then
"""


def _resized(machine: Machine, times: int, after: Callable[[int], object] = lambda vcpus: None) -> list[float]:
    """Plug a vCPU and unplug it, so many times. Return the seconds of each command, from its start to its end."""
    seconds = []
    for _ in range(times):
        for word, vcpus in (("plug", 2), ("unplug", 1)):
            began = time.monotonic()
            ended = machine.vcpuctl(word)
            seconds.append(time.monotonic() - began)
            assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
            after(vcpus)
    return seconds


@contextmanager
def _client(path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", CLIENT, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_nobody_is_refused_and_the_watch_shows_every_state(machines: Callable[..., Machine]) -> None:
    machine = machines(smp=WIDE)
    times = rounds(3)
    alone = _resized(machine, times - times // 2)
    target: Any = SimpleNamespace(qmp=machine.vm.qmp_socket)
    with tempfile.TemporaryDirectory(prefix="vb", dir="/tmp") as name, Serving({"web1": target}) as service:
        service.holds("web1")
        watching = machine.vcpuctl.start("watch")
        watched = JsonLines(watching)
        watched.until(lambda view: view["vm"]["online_vcpus"] == 1, 60)
        proxy = machine.vcpuctl.start("agent-proxy", "--listen", f"{name}/agent")
        until = time.monotonic() + 60
        while not Path(name, "agent").exists():
            assert time.monotonic() < until
        with _client(Path(name, "agent")) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "answered\n"
            beside = _resized(
                machine, times, lambda vcpus: watched.until(lambda view: view["vm"]["online_vcpus"] == vcpus, 60)
            )
            client.kill()
            said = client.stdout.read().split()
        assert "answered" in said
        assert set(said) <= {"answered", "UNAVAILABLE", "CANCELLED"}, "its calls may only be cut by a change of hands"
        for process in (proxy, watching):
            process.send_signal(signal.SIGTERM)
        assert watched.finish(30) == 0
        assert machine.vcpuctl.wait(proxy, 30).status == 0
        assert service.held("web1")
    alone += _resized(machine, times // 2)  # half of them before and half after: the guest changes, too
    ratio = statistics.median(beside) / statistics.median(alone)
    print(f"{2 * times} operations beside others: {ratio:.3f} of the time alone", file=sys.stderr)
