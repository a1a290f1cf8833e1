# SPDX-License-Identifier: Apache-2.0
"""What a program is told by lines: one that does not read makes nobody hold more than a view, and gets the newest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from kit.until import DEADLINE, until
from vcpu_host.sharing import shown as shown_module
from vcpu_host.sharing import telling, wire
from vcpu_host.sharing.shown import Shown
from vcpu_host.sharing.telling import Teller
from vcpu_host.sharing.unread import Unread

_LARGE = "x" * (2 << 20)  # more than what lies between two sockets

_NUMBERS = count()


@asynccontextmanager
async def _told(folder: Path, unread: Unread, user: int = 7) -> AsyncIterator[tuple[Teller, asyncio.StreamReader]]:
    """A teller, and the other end of its connection."""
    made: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    path = folder / f"told{next(_NUMBERS)}"
    server = await asyncio.start_unix_server(lambda reader, writer: made.set_result(writer), path)
    reader, other = await asyncio.open_unix_connection(path, limit=wire.LONGEST)
    writer = await made
    teller = Teller(writer, unread, user)
    try:
        yield teller, reader
    finally:
        await teller.close()
        writer.transport.abort()
        other.close()
        server.close()


def _view(number: int) -> Shown:
    return Shown({"vm": {"number": number}, "slots": _LARGE})


async def test_who_does_not_read_gets_the_newest_view_and_none_in_between_is_made_into_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    line = wire.line

    def counted(message: wire.Message) -> bytes:
        made.append(message["view"]["vm"]["number"])
        return line(message)

    monkeypatch.setattr(wire, "line", counted)
    unread = Unread()
    async with _told(tmp_path, unread) as (teller, reader), asyncio.timeout(DEADLINE):
        teller.say({"view": _view(0)})
        await until(unread.held)
        for number in range(1, 100):
            teller.say({"view": _view(number)})
        assert unread.held() < 2 * len(_LARGE)
        shown = [json.loads(await reader.readuntil())["view"]["vm"]["number"] for _ in range(2)]
        await teller.sent()
    assert shown == made == [0, 99]
    assert unread.held() == 0


async def test_one_view_is_made_into_bytes_once_for_all_that_are_shown_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[wire.Message] = []
    line = wire.line

    def counted(message: wire.Message) -> bytes:
        made.append(message)
        return line(message)

    monkeypatch.setattr(wire, "line", counted)
    view = Shown({"vm": {}})
    async with _told(tmp_path, Unread()) as (one, first), _told(tmp_path, Unread()) as (two, second):
        for teller, reader in ((one, first), (two, second)):
            teller.say({"view": view})
            assert json.loads(await reader.readuntil()) == {"view": {"vm": {}}}
    assert len(made) == 1


async def test_programs_that_do_not_read_hold_no_more_than_their_user_may(tmp_path: Path) -> None:
    unread = Unread(of_one=2 * len(_LARGE), patience=1e6)
    async with _told(tmp_path, unread) as (one, _), _told(tmp_path, unread) as (two, first):
        one.say({"view": _view(0)})
        await until(unread.held)
        two.say({"view": _view(1)})
        two.say({"heard": True})
        two.say({"view": _view(2)})
        async with _told(tmp_path, unread, 8) as (other, reader), asyncio.timeout(DEADLINE):
            other.say({"view": _view(3)})
            assert json.loads(await reader.readuntil())["view"]["vm"]["number"] == 3
        assert len(_LARGE) < unread.held() < 2 * len(_LARGE)
        await one.close()
        async with asyncio.timeout(DEADLINE):
            told = [json.loads(await first.readuntil()) for _ in range(2)]
    assert "heard" in told[0]
    assert told[1]["view"]["vm"]["number"] == 2


async def test_the_last_words_of_an_operation_come_after_all_else_whether_that_is_read_or_not(tmp_path: Path) -> None:
    async with _told(tmp_path, Unread()) as (teller, reader), asyncio.timeout(DEADLINE):
        teller.say({"log": _LARGE})
        teller.say({"log": "more"})
        await teller.last_words(wire.line({"answer": {}}))
        told: list[Any] = [json.loads(await reader.readuntil()) for _ in range(3)]
    assert told == [{"log": _LARGE}, {"log": "more"}, {"answer": {}}]


async def test_who_leaves_an_operations_log_unread_is_cut_off(tmp_path: Path) -> None:
    async with _told(tmp_path, Unread()) as (teller, _), asyncio.timeout(DEADLINE):
        for _ in range(telling._UNREAD // len(_LARGE) + 3):
            teller.say({"log": _LARGE})
        await teller.sent()


def test_the_same_view_is_the_same_object_whoever_sees_it() -> None:
    views = shown_module.Views()
    first = views.shown({"vm": {"descriptors": 1}, "slots": [{"slot": 0}]})
    assert views.shown({"vm": {"descriptors": 1}, "slots": [{"slot": 0}]}) is first
    other = views.shown({"vm": {"descriptors": 2}, "slots": [{"slot": 0}]})
    assert other is not first
    assert other["slots"] is first["slots"]
