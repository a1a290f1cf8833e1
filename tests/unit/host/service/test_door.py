# SPDX-License-Identifier: Apache-2.0
"""The service's socket: one user who comes too often, or with words of any length, is in nobody else's way."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from kit.until import DEADLINE
from vcpu_host.documents import Document
from vcpu_host.errors import RefusedError, UsageError
from vcpu_host.service import door as module
from vcpu_host.service.door import Door
from vcpu_host.sharing import wire
from vcpu_host.sharing.answers import Say
from vcpu_host.sharing.calls import Call, Kind
from vcpu_host.sharing.remote import Asking, connected

_RUN = Call.from_json({"call": "run", "request": {"operation": "plug", "count": 1, "slots": []}})


class _Asked:
    """Questions are never answered, orders at once."""

    async def answer(self, call: Call, say: Say) -> Document:
        del say
        if not call.changes:
            await asyncio.Event().wait()
        return {"outcome": "done"}

    def interrupt(self) -> None:
        """Nobody waits for long."""


class _Kept:
    """A VM."""

    name = "web1"

    def asked(self) -> _Asked:
        return _Asked()


class _Keeper:
    """One VM, at /qmp."""

    def at(self, told: str) -> _Kept | None:
        return _Kept() if told == "/qmp" else None


@asynccontextmanager
async def _no_rpc(uid: int) -> AsyncIterator[str]:
    if uid >= 0:
        raise FileNotFoundError(uid)
    yield ""


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Path]:
    """Where the door is open."""
    keeper: Any = _Keeper()
    door = Door(keeper, _no_rpc)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "door"))
    listener.listen(1000)
    listener.setblocking(False)
    await door.open(listener)
    yield tmp_path / "door"
    await door.close()


def _nobody_hears(message: wire.Message) -> None:
    del message


async def test_one_users_questions_leave_places_for_orders_and_for_other_users(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncExitStack() as stack, asyncio.timeout(DEADLINE):
        refused = 0
        for _ in range(module._OF_ONE):
            streams = await stack.enter_async_context(connected(place))
            assert streams is not None
            reader, writer = streams
            writer.write(wire.line({**Call(Kind.WATCH).to_json(), "monitor": "/qmp"}))
            refused += "error" in (await wire.receive(reader) or {})
        assert 0 < refused < module._OF_ONE / 2
        with pytest.raises(RefusedError) as error:
            await Asking(place, Call(Kind.LIST), monitor="/qmp").answer(_nobody_hears)
        assert error.value.reason.code == "too-many"
        assert await Asking(place, _RUN, monitor="/qmp").answer(_nobody_hears) == {"outcome": "done"}
        monkeypatch.setattr(module, "peer_user", lambda connection: os.geteuid() + 1)
        for _ in range(2):
            other = await stack.enter_async_context(connected(place))
            assert other is not None
            other[1].write(wire.line({**Call(Kind.WATCH).to_json(), "monitor": "/qmp"}))
            assert await wire.receive(other[0]) == {"heard": True}


@pytest.mark.parametrize("monitor", ["", "/a\0b", "/" + "a/" * 100_000, 7, None], ids=repr)
async def test_what_can_be_no_monitor_is_refused_in_words(place: Path, monitor: object) -> None:
    with pytest.raises(UsageError) as refused:
        await Asking(place, Call(Kind.LIST), monitor=monitor).answer(_nobody_hears)  # type: ignore[arg-type]
    assert refused.value.reason.code == "bad-call"


@pytest.mark.parametrize("monitor", ["/\ud800", "/na\udce9ve", "/" + "usr/../" * 500 + "qmp", "relative"], ids=repr)
async def test_a_monitor_that_no_vm_has_is_unknown_whatever_its_name(place: Path, monitor: str) -> None:
    asking = Asking(place, Call(Kind.LIST), monitor=monitor)
    assert await asking.answer(_nobody_hears) is None
    assert asking.unknown


async def test_a_users_server_that_cannot_be_had_costs_that_connection_alone(place: Path) -> None:
    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, what: faults.append(what))
    async with connected(place) as streams, asyncio.timeout(DEADLINE):
        assert streams is not None
        streams[1].write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        with suppress(ConnectionError):
            assert await streams[0].read() == b""
    assert await Asking(place, _RUN, monitor="/qmp").answer(_nobody_hears) == {"outcome": "done"}
    assert faults == []
