# SPDX-License-Identifier: Apache-2.0
"""Watch by gRPC: one view is converted once for all, what is unread is bounded, and an end leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc.aio
import pytest
from kit.until import DEADLINE, until
from vcpu_host.documents import Document
from vcpu_host.local import directory
from vcpu_host.service import rpc as module
from vcpu_host.service.door import Connections, Door
from vcpu_host.service.rpc import RpcServers
from vcpu_host.sharing.answers import Say
from vcpu_host.sharing.calls import Call
from vcpu_host.sharing.shown import Shown
from vcpu_host.sharing.unread import Unread
from vcpu_proto.host.v1 import host_pb2 as pb
from vcpu_proto.host.v1 import host_pb2_grpc

_LARGE = "x" * (16 << 20)  # more than gRPC takes of what is not read


class _Watched:
    """A VM that shows all who watch the same documents."""

    held = None
    trouble = None

    def __init__(self) -> None:
        self.says: list[Say] = []
        self.ended = 0

    def asked(self) -> _Watched:
        return self

    async def answer(self, call: Call, say: Say) -> Document:
        del call
        self.says.append(say)
        try:
            await asyncio.Event().wait()
        finally:
            self.ended += 1
            self.says.remove(say)
        return {}

    def shows(self, number: int, text: str = "") -> None:
        """Show a view."""
        view = Shown({"vm": {"number": number, "text": text}})
        for say in self.says:
            say({"view": view})


@pytest.fixture
def vm() -> _Watched:
    return _Watched()


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the views that were converted."""
    made: list[int] = []
    struct = module._struct

    def counted(document: Document) -> Any:
        made.append(document["vm"]["number"])
        return struct(document)

    monkeypatch.setattr(module, "_struct", counted)
    return made


@asynccontextmanager
async def _door(vm: _Watched, unread: Unread, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Path]:
    """Where the service is."""
    monkeypatch.setattr(directory, "directory", lambda: folder / "run")
    keeper: Any = SimpleNamespace(vms=[], broken={}, named=lambda name: vm)
    connections: Connections = {}
    servers = RpcServers(keeper, unread, connections)
    door = Door(keeper, servers.of_user, unread, connections)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "door"))
    listener.setblocking(False)
    listener.listen()
    await door.open(listener)
    try:
        yield folder / "door"
    finally:
        await door.close()
        await servers.close()
        assert connections == {}


@asynccontextmanager
async def _client(door: Path) -> AsyncIterator[Any]:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(f"unix:{door}", options=options) as channel:
        yield host_pb2_grpc.HostStub(channel)  # type: ignore[no-untyped-call]


async def _number(call: Any) -> int:
    message = await call.read()
    return int(message.document["vm"]["number"])


async def test_a_view_is_converted_once_for_all_that_watch(
    vm: _Watched, conversions: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _door(vm, Unread(), tmp_path, monkeypatch) as door, _client(door) as host, asyncio.timeout(DEADLINE):
        calls = [host.Watch(pb.WatchRequest(vm="web1")) for _ in range(12)]
        await until(lambda: len(vm.says) == len(calls))
        for number in (1, 2, 3):
            vm.shows(number)
            assert [await _number(call) for call in calls] == [number] * len(calls)
        assert conversions == [1, 2, 3]


async def test_what_slow_clients_leave_unread_is_bounded_and_they_get_the_newest_view_after_that(
    vm: _Watched, conversions: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unread = Unread(of_one=40 << 20, patience=1e6)
    async with _door(vm, unread, tmp_path, monkeypatch) as door, _client(door) as host, asyncio.timeout(DEADLINE):
        calls = [host.Watch(pb.WatchRequest(vm="web1")) for _ in range(4)]
        await until(lambda: len(vm.says) == len(calls))
        vm.shows(1, _LARGE)
        await until(unread.held)
        for number in range(2, 30):
            vm.shows(number, _LARGE)
        assert unread.held() <= 40 << 20
        newest = await asyncio.gather(*(_newest(call, 29) for call in calls))
        assert newest == [29] * len(calls)
    assert len(conversions) < 5, "what nobody takes is not converted"


async def _newest(call: Any, number: int) -> int:
    while (shown := await _number(call)) != number:
        pass
    return shown


async def test_a_client_that_takes_nothing_is_cut_off_when_another_waits(
    vm: _Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unread = Unread(of_one=1 << 20, patience=0.05)
    async with _door(vm, unread, tmp_path, monkeypatch) as door, _client(door) as greedy, _client(door) as host:
        stuck = greedy.Watch(pb.WatchRequest(vm="web1"))
        await until(lambda: vm.says)
        vm.shows(1, _LARGE)
        await until(unread.held)
        other = host.Watch(pb.WatchRequest(vm="web1"))
        await until(lambda: len(vm.says) == 2)
        vm.shows(2)
        async with asyncio.timeout(DEADLINE):
            assert await _newest(other, 2) == 2
            with pytest.raises(grpc.aio.AioRpcError):
                await _newest(stuck, 0)


async def test_a_watch_that_its_client_ends_leaves_no_task_and_nothing_unread(
    vm: _Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    unread = Unread()
    async with _door(vm, unread, tmp_path, monkeypatch) as door, _client(door) as host, asyncio.timeout(DEADLINE):
        for number, text in enumerate(("", "", _LARGE)):
            call = host.Watch(pb.WatchRequest(vm="web1"))
            await until(lambda: vm.says)
            vm.shows(number, text)
            if text:
                await until(unread.held)
            else:
                assert await _number(call) == number
            call.cancel()
            await until(lambda number=number: vm.ended == number + 1)  # type: ignore[misc]
            await until(lambda: not unread.held())
            del call
        gc.collect()
        await asyncio.sleep(0)
    gc.collect()
    assert told == [], "nothing is destroyed that is pending"
