# SPDX-License-Identifier: Apache-2.0
"""Each user's server for gRPC: reached again whatever became of its socket, and in nobody's way."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc.aio
import pytest
from kit.until import DEADLINE
from vcpu_host.core import codes
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.local import directory
from vcpu_host.service import rpc as module
from vcpu_host.service.rpc import RpcServers
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
