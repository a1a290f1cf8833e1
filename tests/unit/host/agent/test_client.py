# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from kit.sim.views import host
from vcpu_host import ports
from vcpu_host.agent import client
from vcpu_host.agent.bounds import BadMessageError
from vcpu_host.agent.dialer import LinkDialer, obstacle
from vcpu_host.agent.socket_port import SocketPort
from vcpu_host.agent.status import of_link, of_rpc
from vcpu_host.core import codes
from vcpu_host.core.guest import CpuResult, GuestView
from vcpu_host.core.model import Channel, HostView
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.errors import AgentGoneError, RefusedError, UsageError
from vcpu_proto.link import BusyError, EndCode, Ended, LinkError, SessionLostError
from vcpu_proto.v1 import agent_pb2 as pb

_OPEN = Channel("/run/agent.sock", guest_open=True)

# --- why there is no session, told from QEMU's side alone -------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "code"),
    [
        (host(1, channel=_OPEN), None),
        (host(1, channel=_OPEN._replace(socket=None)), "no-socket"),
        (host(1, channel=_OPEN._replace(socket=None, name_withheld=True)), "port-busy"),
        (host(1)._replace(channel=None), "no-channel"),
        (host(1, channel=_OPEN, status="paused"), "vm-not-running"),
        (host(1, channel=_OPEN._replace(guest_open=False)), "agent-absent"),
        (host(1, channel=_OPEN._replace(guest_open=False, acpi_up=True)), "agent-absent"),
        (host(1, channel=_OPEN._replace(guest_open=False, acpi_up=False)), "guest-booting"),
    ],
)
def test_each_obstacle_has_its_own_name_and_remedy(view: HostView, code: str | None) -> None:
    reason = obstacle(view, SocketPort(None, not_ours))
    assert (reason.code if reason else None) == code
    assert reason is None or (reason.text and reason.hint)


def not_ours(view: HostView, path: str, connection: socket.socket | None) -> None:
    """A check that lets a connection be made, and then says that it is none of the agent's."""
    del view, path
    if connection is not None:
        raise UsageError(Reason("not-our-port", Origin.VCPUCTL, "somebody's console"))


async def test_a_named_socket_is_checked_before_it_is_connected_to() -> None:
    def check(view: HostView, path: str, connection: socket.socket | None) -> None:
        del view
        raise RuntimeError(f"{path} {connection}")

    with pytest.raises(RuntimeError, match="/somebodys/console None"):
        await LinkDialer(SocketPort("/somebodys/console", check)).dial(host(1), 1.0)


@pytest.mark.parametrize("named", [True, False])
async def test_not_a_byte_goes_to_what_turns_out_to_be_somebody_elses(tmp_path: Path, named: bool) -> None:
    path = str(tmp_path / "s")
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(60)
        # Nothing is wrong with the user's words if there were none.
        with pytest.raises(UsageError if named else AgentGoneError) as error:
            await LinkDialer(SocketPort(path if named else None, not_ours)).dial(
                host(1, channel=_OPEN._replace(socket=path, bound=path)), 1.0
            )
        assert error.value.reason.code == "not-our-port"
        client, _ = listener.accept()
        with client:
            assert client.recv(100) == b""


@pytest.mark.parametrize(
    ("bound", "word"), [("/nonexistent/agent", "--agent"), ("@vcpuctl-nobody", "network namespace")]
)
async def test_a_socket_that_qemu_has_and_we_have_not_means_that_qemu_lives_elsewhere(bound: str, word: str) -> None:
    at = host(1, channel=_OPEN._replace(socket=bound, bound=bound))
    with pytest.raises(AgentGoneError) as error:
        await LinkDialer(SocketPort(None, not_ours)).dial(at, 1.0)
    assert error.value.reason.code == "port-unreachable"
    assert bound in error.value.reason.text
    assert word in str(error.value.reason)
    if not bound.startswith("@"):
        with pytest.raises(AgentGoneError) as error:
            await LinkDialer(SocketPort(bound, not_ours)).dial(at, 1.0)
        assert "container" not in str(error.value.reason), "it was the user who named that"


async def test_no_session_is_tried_where_it_cannot_be_had() -> None:
    dialer = LinkDialer(SocketPort(None, not_ours))
    with pytest.raises(AgentGoneError) as error:
        await dialer.dial(host(1, channel=_OPEN._replace(socket="/nonexistent", guest_open=False)), 1.0)
    assert error.value.reason.code == "agent-absent"


# --- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("theirs", "agreed"), [((1, 1), 1), ((1, 9), 1), ((0, 1), 1)])
def test_the_highest_common_protocol_is_spoken(theirs: tuple[int, int], agreed: int) -> None:
    assert client.agree(*theirs) == agreed


@pytest.mark.parametrize(
    ("theirs", "code", "package"), [((2, 3), "host-too-old", "vcpu-host"), ((0, 0), "agent-too-old", "vcpu-guest")]
)
def test_without_a_common_protocol_the_side_to_update_is_named(
    theirs: tuple[int, int], code: str, package: str
) -> None:
    with pytest.raises(AgentGoneError) as error:
        client.agree(*theirs)
    assert error.value.reason.code == code
    assert package in error.value.reason.hint


# --- what a failure means ---------------------------------------------------------------------------------------------


def _rpc(code: grpc.StatusCode, details: str = "words") -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details, debug_error_string="")


@pytest.mark.parametrize(
    ("status", "code", "gone"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "agent-rejected", False),
        (grpc.StatusCode.FAILED_PRECONDITION, "agent-rejected", False),
        (grpc.StatusCode.UNIMPLEMENTED, "agent-too-old", False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "agent-slow", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "agent-bad-message", True),
        (grpc.StatusCode.UNAVAILABLE, "agent-lost", True),
        (grpc.StatusCode.CANCELLED, "agent-lost", True),
        (grpc.StatusCode.INTERNAL, "agent-lost", True),
        (grpc.StatusCode.UNKNOWN, "agent-lost", True),
    ],
)
def test_each_status_says_whether_the_session_is_still_good(status: grpc.StatusCode, code: str, gone: bool) -> None:
    error = of_rpc(_rpc(status))
    assert error.reason.code == code
    assert isinstance(error, AgentGoneError) is gone


def test_a_failed_calls_words_come_escaped() -> None:
    assert of_rpc(_rpc(grpc.StatusCode.UNKNOWN, "\x1b[2J")).reason.text.isprintable()


def test_a_busy_port_is_a_refusal_and_any_other_link_trouble_is_not() -> None:
    busy = of_link(BusyError("another program is connected"))
    assert isinstance(busy, RefusedError)
    assert busy.reason.who is Origin.VCPUCTL
    assert isinstance(of_link(LinkError("silence")), AgentGoneError)
    assert of_link(SessionLostError(Ended(b"", EndCode.REPLACED))).reason.code == codes.AGENT_LOST


# --- answers ----------------------------------------------------------------------------------------------------------


def _result(name: str = "a") -> dict[str, Any]:
    cpu = pb.Cpu(number=1, firmware_id=name, online=True)
    return {"result": pb.CpuResult(firmware_id=name, status=pb.CpuResult.STATUS_DONE, observed=cpu)}


def _read(*answers: dict[str, Any], request_id: str = "r") -> list[object]:
    unanswered, unseen = {"a", "b"}, {"a", "b"}
    return [
        client._answer(pb.SetOnlineResponse(request_id=request_id, **answer), "r", unanswered, unseen)
        for answer in answers
    ]


def test_every_kind_of_answer_is_told_apart() -> None:
    arrived = {"arrived": pb.Cpu(number=1, firmware_id="a")}
    kinds = [type(answer) for answer in _read(arrived, _result(), {"final": pb.Snapshot()})]
    assert kinds == [ports.Arrived, CpuResult, GuestView]


@pytest.mark.parametrize(
    "answers",
    [
        [_result("c")],
        [_result(), _result()],
        [{"arrived": pb.Cpu(number=1, firmware_id="c")}],
        [{"arrived": pb.Cpu(number=1, firmware_id="a")}, {"arrived": pb.Cpu(number=1, firmware_id="a")}],
        [{}],
    ],
)
def test_an_answer_that_was_not_asked_for_or_comes_twice_is_refused(answers: list[dict[str, Any]]) -> None:
    with pytest.raises(BadMessageError):
        _read(*answers)


def test_the_answer_to_another_request_is_refused() -> None:
    with pytest.raises(BadMessageError):
        _read(_result(), request_id="another")
