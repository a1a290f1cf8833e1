# SPDX-License-Identifier: Apache-2.0
"""Each user's server for gRPC: reached again whatever became of its socket, and in nobody's way."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc.aio
import pytest
from kit.until import DEADLINE
from vcpu_host.core import codes
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.documents import Document
from vcpu_host.local import directory
from vcpu_host.service import rpc as module
from vcpu_host.service.rpc import RpcServers
from vcpu_host.sharing.answers import Say
from vcpu_host.sharing.calls import Call
from vcpu_proto.host.v1 import host_pb2 as pb
from vcpu_proto.host.v1 import host_pb2_grpc


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the service's user."""
    monkeypatch.setattr(directory, "directory", lambda: tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def keeper() -> Any:
    return SimpleNamespace(vms=[], broken={})


@pytest.fixture
async def servers(folder: Path, keeper: Any) -> AsyncIterator[RpcServers]:
    del folder
    made = RpcServers(keeper)
    yield made
    await made.close()


async def _names(servers: RpcServers, uid: int) -> list[str]:
    async with servers.of_user(uid) as path:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as channel:
            host = host_pb2_grpc.HostStub(channel)  # type: ignore[no-untyped-call]
            return [vm.name for vm in (await host.ListVms(pb.ListVmsRequest(), timeout=DEADLINE)).vms]


async def test_a_server_whose_socket_is_gone_is_made_anew_and_who_uses_the_old_one_goes_on(
    servers: RpcServers, folder: Path
) -> None:
    async with servers.of_user(7) as path:
        os.unlink(path)
        assert await _names(servers, 7) == []
        async with servers.of_user(7) as again:
            assert again != path
    assert await _names(servers, 7) == []
    await servers.close()
    assert os.listdir(folder) == []


async def test_a_server_that_could_not_be_made_is_tried_again(servers: RpcServers, folder: Path) -> None:
    os.close(os.open(folder, os.O_CREAT | os.O_WRONLY))
    for _ in range(2):
        with pytest.raises(OSError, match="File exists"):
            await _names(servers, 7)
    os.unlink(folder)
    assert await _names(servers, 7) == []


async def test_one_user_more_takes_the_place_of_one_who_is_away_longest_and_of_nobody_who_is_there(
    servers: RpcServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_USERS", 3)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(servers.of_user(1))
        for uid in (2, 3, 4, 2, 5):
            assert await _names(servers, uid) == []
        assert sorted(servers._servers) == [1, 2, 5]
        assert await stack.enter_async_context(servers.of_user(1)) == first
        for uid in (2, 5):
            await stack.enter_async_context(servers.of_user(uid))
        with pytest.raises(ConnectionError):
            await stack.enter_async_context(servers.of_user(6))
    assert await _names(servers, 6) == []


async def test_a_name_or_a_reason_that_is_no_utf_8_is_told_escaped(servers: RpcServers, keeper: Any) -> None:
    keeper.broken = {"\udcff": Reason(codes.BAD_VM_FILE, Origin.VCPUCTL, "/etc/vcpuctl/vms.d/\udcff.toml")}
    assert await _names(servers, 7) == ["\\udcff"]
    assert module._struct({"text": "na\udce9ve"})["text"] == "na?ve"


class _Faulty:
    """A VM whose every call ends by a mistake in vcpuctl."""

    name = "web1"
    held = None
    trouble = None

    def asked(self) -> _Faulty:
        return self

    async def answer(self, call: Call, say: Say) -> Document:
        if call.changes:
            say({"progress": [0, 1, "the guest"]})
        raise KeyError("scale")

    def interrupt(self) -> None:
        raise AssertionError("it has ended")


_ORDER = pb.Order(operation=pb.Order.OPERATION_PLUG)
_CALLS: dict[str, Callable[[Any], Any]] = {
    "List": lambda host: host.List(pb.ListRequest(vm="web1"), timeout=DEADLINE),
    "Doctor": lambda host: host.Doctor(pb.DoctorRequest(vm="web1"), timeout=DEADLINE),
    "Plan": lambda host: host.Plan(pb.PlanRequest(vm="web1", order=_ORDER), timeout=DEADLINE),
    "Watch": lambda host: _last(host.Watch(pb.WatchRequest(vm="web1"), timeout=DEADLINE)),
    "Apply": lambda host: _last(host.Apply(pb.ApplyRequest(vm="web1", order=_ORDER), timeout=DEADLINE)),
}


async def _last(stream: Any) -> Any:
    return [message async for message in stream][-1]


@pytest.mark.parametrize("call", _CALLS)
async def test_a_fault_that_nobody_foresaw_ends_a_call_in_words_and_is_logged(
    servers: RpcServers, keeper: Any, capsys: pytest.CaptureFixture[str], call: str
) -> None:
    keeper.named = lambda name: _Faulty()
    async with servers.of_user(7) as path, grpc.aio.insecure_channel(f"unix:{path}") as channel:
        host = host_pb2_grpc.HostStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await _CALLS[call](host)
    assert error.value.code() is grpc.StatusCode.INTERNAL
    assert "KeyError('scale')" in str(error.value.details())
    told: Any = error.value.trailing_metadata()
    assert told["vcpuctl-code"] == codes.FAULT
    written = capsys.readouterr().err
    assert "web1: a fault of vcpuctl's own" in written
    assert "Traceback" in written


async def test_an_order_that_no_command_line_could_give_is_refused_as_words_that_do_not_fit(
    servers: RpcServers, keeper: Any
) -> None:
    keeper.named = lambda name: _Faulty()
    order = pb.Order(operation=pb.Order.OPERATION_SCALE, slots=["7"])
    async with servers.of_user(7) as path, grpc.aio.insecure_channel(f"unix:{path}") as channel:
        host = host_pb2_grpc.HostStub(channel)  # type: ignore[no-untyped-call]
        for asked in (
            host.Plan(pb.PlanRequest(vm="web1", order=order), timeout=DEADLINE),
            _last(host.Apply(pb.ApplyRequest(vm="web1", order=order), timeout=DEADLINE)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await asked
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "whole VM" in str(error.value.details())
