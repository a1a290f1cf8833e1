# SPDX-License-Identifier: Apache-2.0
"""``agent-proxy``: plain gRPC clients in other processes, several at once, across a restart of the agent."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.e2e.lines import JsonLines
from kit.e2e.machine import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SLOT = 4
IDENTITY = "acpi:\\_SB_.CPUS.C004"

#: Nothing of vcpuctl: grpc and the contract's generated code, as anybody would use them.
CLIENT = """
import json, sys, grpc
from google.protobuf.json_format import MessageToDict
from vcpu_proto.v1 import agent_pb2 as pb, agent_pb2_grpc

def show(message):
    print(json.dumps(MessageToDict(message, preserving_proto_field_name=True)), flush=True)

path, method, *args = sys.argv[1:]
with grpc.insecure_channel("unix:" + path) as channel:
    agent = agent_pb2_grpc.GuestAgentStub(channel)
    grpc.channel_ready_future(channel).result(60)
    try:
        if method == "hello":
            show(agent.Hello(pb.HelloRequest(protocol_min=1, protocol_max=1), timeout=30))
        elif method == "list":
            show(agent.ListCpus(pb.ListCpusRequest(request_id="r"), timeout=30))
        elif method == "control":
            requests = [pb.ControlRequest(list_cpus=pb.ListCpusRequest(request_id=name)) for name in args]
            answers = [answer for message in agent.Control(iter(requests), timeout=30) for answer in message.answers]
            show(pb.ControlResponse(answers=answers))
        elif method == "set":
            request = pb.SetOnlineRequest(request_id="r", firmware_ids=args[1:], online=args[0] == "online")
            for answer in agent.SetOnline(request, timeout=60):
                show(answer)
        elif method == "watch":
            for answer in agent.Watch(pb.WatchRequest(request_id="w")):
                show(answer)
    except grpc.RpcError as error:
        print(json.dumps({"status": error.code().name, "details": error.details()}), flush=True)
"""


def client(path: Path, *words: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", CLIENT, str(path), *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def ask(path: Path, *words: str) -> list[dict[str, Any]]:
    """What a client of its own prints."""
    process = client(path, *words)
    stdout, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return [json.loads(line) for line in stdout.splitlines()]


def cpu_of(answer: dict[str, Any]) -> dict[str, Any]:
    """The CPU with our identity in a snapshot."""
    cpus: list[dict[str, Any]] = answer.get("snapshot", {}).get("cpus", [])
    return next((cpu for cpu in cpus if cpu["firmware_id"] == IDENTITY), {})


def shows(*, online: bool) -> Callable[[dict[str, Any]], bool]:
    """Whether a snapshot has our CPU so."""
    return lambda answer: cpu_of(answer).get("online", False) is online


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vp", dir="/tmp") as name:
        yield Path(name)


def test_two_clients_share_the_port_and_outlive_the_agent(machine: Machine, folder: Path) -> None:
    before = machine.state()
    assert machine.vcpuctl("plug", "--slot", str(SLOT)).status == 0
    path = folder / "agent.sock"
    proxy = machine.vcpuctl.start("agent-proxy", "--listen", str(path))
    (hello,) = ask(path, "hello")
    mode = path.stat().st_mode
    assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)
    assert hello["boot_id"] == machine.vm.shell("cat /proc/sys/kernel/random/boot_id").strip()

    watcher = client(path, "watch")
    watched = JsonLines(watcher)
    assert cpu_of(watched.until(lambda _: True))["online"] is True
    (listed,) = ask(path, "list")
    assert (cpu_of(listed)["number"], listed["request_id"]) == (1, "r")
    (messages,) = ask(path, "control", "a", "b")
    assert [cpu_of(answer["list_cpus"])["number"] for answer in messages["answers"] if "list_cpus" in answer] == [1, 1]
    assert [answer["ended"]["request_id"] for answer in messages["answers"] if "ended" in answer] == ["a", "b"]

    for word in ("offline", "online"):
        result, final = ask(path, "set", word, IDENTITY)
        assert result["result"]["status"] == "STATUS_DONE"
        assert (SLOT in machine.online()) == (word == "online")
        assert any(cpu["firmware_id"] == IDENTITY for cpu in final["final"]["cpus"])
        watched.until(shows(online=word == "online"))
    # the agent's own refusals come through as they are
    (refusal,) = ask(path, "set", "online", IDENTITY, IDENTITY)
    assert refusal["status"] == "INVALID_ARGUMENT"

    # a command that changes the VM gets the port: streams end, and new calls are passed on, whoever holds it
    assert machine.vcpuctl("plug", "--slot", "5").outcome == "done"
    assert watched.until(lambda answer: "status" in answer)["status"] in {"UNAVAILABLE", "CANCELLED"}
    assert watched.finish(30) == 0
    assert machine.vcpuctl("unplug", "--slot", "5").outcome == "done"

    watched = JsonLines(client(path, "watch"))
    watched.until(shows(online=True))
    machine.vm.shell("systemctl restart vcpud", timeout=90)
    ended = watched.until(lambda answer: "status" in answer)
    assert ended["status"] in {"UNAVAILABLE", "CANCELLED"}
    assert watched.finish(30) == 0
    given_up = time.monotonic() + 300
    while "status" in (again := ask(path, "hello")[0]):
        assert again["status"] == "UNAVAILABLE", again
        assert time.monotonic() < given_up
    assert again["instance_id"] != hello["instance_id"]
    assert again["boot_id"] == hello["boot_id"]
    assert cpu_of(ask(path, "list")[0])["online"] is True

    proxy.send_signal(signal.SIGTERM)
    assert machine.vcpuctl.wait(proxy, 20).status == 0
    assert not path.exists()
    assert machine.vcpuctl("scale", "1").status == 0
    assert machine.state() == before


def test_the_proxy_takes_nobodys_file_and_says_when_there_is_no_agent(machine: Machine, folder: Path) -> None:
    mine = folder / "mine"
    mine.write_text("not yours")
    refused = machine.vcpuctl("agent-proxy", "--listen", str(mine))
    assert (refused.status, refused.outcome) == (2, "bad-socket")
    assert mine.read_text() == "not yours"

    machine.vm.shell("systemctl stop vcpud", timeout=30)
    path = folder / "agent.sock"
    proxy = machine.vcpuctl.start("agent-proxy", "--listen", str(path))
    (answer,) = ask(path, "hello")
    assert answer["status"] == "UNAVAILABLE"
    assert "systemctl start vcpud" in answer["details"]
    proxy.send_signal(signal.SIGINT)
    assert machine.vcpuctl.wait(proxy, 20).status == 0
