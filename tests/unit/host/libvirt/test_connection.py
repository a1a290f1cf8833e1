# SPDX-License-Identifier: Apache-2.0
"""Connections to libvirt: shared where they can be, bounded in time and number, whatever the other end does."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextlib import suppress

import pytest
from kit.clock import Clock
from kit.fakes.libvirt_module import FakeLibvirt
from kit.fakes.libvirt_stream import LibvirtError
from kit.until import DEADLINE, until
from vcpu_host.core import codes
from vcpu_host.errors import QemuGoneError, VcpuctlError
from vcpu_host.libvirt import binding, shared
from vcpu_host.libvirt.connection import Connection

URI = "qemu+ssh://root@host1/system?keyfile=/secret"


@pytest.fixture(name="libvirt")
def _libvirt(monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
    fake = FakeLibvirt()
    monkeypatch.setattr(binding, "module", lambda: fake)
    return fake


async def _open(
    uri: str = URI, *, timeout: float = DEADLINE, call_timeout: float = DEADLINE, alone: bool = False
) -> Connection:
    return await Connection.open(uri, timeout=timeout, call_timeout=call_timeout, alone=alone)


async def test_vms_of_one_libvirt_share_a_connection_which_ends_with_the_last_of_them(libvirt: FakeLibvirt) -> None:
    users = await asyncio.gather(*(_open() for _ in range(20)))
    users.append(await _open("qemu:///system"))
    assert len(libvirt.opened) == 2
    for user in users[1:]:
        await user.close()
    assert [connect.closed for connect in libvirt.opened] == [0, 1]
    assert await users[0].call("answer", lambda: 7) == 7
    await users[0].close()
    await users[0].close()
    assert [connect.closed for connect in libvirt.opened] == [1, 1]
    await (await _open()).close()
    assert len(libvirt.opened) == 3, "one that was ended is not used again"


async def test_what_may_hang_a_connection_has_one_alone(libvirt: FakeLibvirt) -> None:
    one, other = await _open(), await _open(alone=True)
    assert len(libvirt.opened) == 2
    await other.close()
    assert [connect.closed for connect in libvirt.opened] == [0, 1]
    await one.close()


async def test_a_call_that_hangs_is_the_trouble_of_its_own_user_alone(libvirt: FakeLibvirt) -> None:
    one, other = await _open(), await _open()
    goes_on, begun = threading.Event(), threading.Event()

    def hangs() -> None:
        begun.set()
        goes_on.wait(60)

    calling = asyncio.ensure_future(one.call("plug vCPU 3", hangs))
    with pytest.raises(QemuGoneError) as error:
        await Clock().ends(calling, begun.is_set)
    assert error.value.reason.code == codes.LIBVIRT_SILENT
    assert "plug vCPU 3" in error.value.reason.text
    assert "/secret" not in error.value.reason.text
    assert one.lost
    assert await other.call("answer", lambda: 7) == 7
    third = await _open()
    assert len(libvirt.opened) == 2, "who comes next does not share what hangs"
    goes_on.set()
    for user in (one, other, third):
        await user.close()
    assert [connect.closed for connect in libvirt.opened] == [1, 1]


async def test_calls_in_line_have_their_time_from_the_answer_before(libvirt: FakeLibvirt) -> None:
    user, clock, begun = await _open(), Clock(), 0
    answer = threading.Semaphore(0)

    def slow() -> bool:
        nonlocal begun
        begun += 1
        return answer.acquire(timeout=DEADLINE)

    calls = asyncio.gather(*(user.call("wait", slow) for _ in range(5)))
    for number in range(1, 6):
        await until(lambda number=number: begun == number)  # type: ignore[misc]
        clock.goes_on(40)  # of 60
        answer.release()
    assert await calls == [True] * 5
    assert len(libvirt.opened) == 1
    await user.close()


async def test_a_lost_connection_is_told_to_all_its_users_and_not_used_again(libvirt: FakeLibvirt) -> None:
    one, other = await _open(), await _open()
    told: list[str] = []
    one.on_loss(lambda reason: told.append(str(reason.code)))
    await asyncio.to_thread(libvirt.opened[0].lose)
    for user in (one, other):
        with pytest.raises(QemuGoneError, match="restarted"):
            await user.call("answer", lambda: 7)
    assert told == [codes.LIBVIRT_GONE]
    again = await _open()
    assert len(libvirt.opened) == 2
    for user in (one, other, again):
        await user.close()


async def test_a_daemon_that_hangs_costs_one_attempt_however_often_it_is_tried(libvirt: FakeLibvirt) -> None:
    libvirt.hang = True
    for alone in (False, True) * 5:
        with pytest.raises(QemuGoneError) as error:
            await _open(timeout=0.05, alone=alone)
        assert error.value.reason.code == codes.LIBVIRT_SILENT
    assert libvirt.attempts == 2, "one that is shared, and one alone"
    libvirt.goes_on.set()
    users = [await _open(), await _open(alone=True)]
    assert libvirt.attempts == 2
    for user in users:
        await user.close()


async def test_an_error_keeps_no_object_of_libvirts_alive_since_that_keeps_its_connection(libvirt: FakeLibvirt) -> None:
    class Domain:
        def fails(self) -> None:
            raise LibvirtError("no", 9, 10)

    user = await _open()
    domain = Domain()
    left = weakref.ref(domain)
    gc.disable()
    try:
        with suppress(VcpuctlError):
            await user.call("fail", domain.fails)
        del domain
        await until(lambda: left() is None)
    finally:
        gc.enable()
    await user.close()
    assert [connect.closed for connect in libvirt.opened] == [1]


async def test_few_are_opened_at_once_and_who_is_turned_away_by_chance_comes_again(libvirt: FakeLibvirt) -> None:
    libvirt.hang, libvirt.turns_away = True, 3
    opening = [asyncio.ensure_future(_open(alone=True)) for _ in range(20)]
    await until(lambda: libvirt.opening == 4)
    libvirt.goes_on.set()
    users = await asyncio.gather(*opening)
    assert (libvirt.most, len(libvirt.opened), libvirt.attempts) == (4, 20, 23)
    for user in users:
        await user.close()


async def test_who_is_turned_away_and_has_no_time_left_for_another_try_says_so(
    libvirt: FakeLibvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "_PAUSE", 3600.0)
    libvirt.turns_away = 1
    with pytest.raises(QemuGoneError, match="kex_exchange_identification"):
        await _open(alone=True)
    assert libvirt.attempts == 1


async def test_a_spare_connection_that_was_lost_meanwhile_is_given_to_nobody(libvirt: FakeLibvirt) -> None:
    for told in (True, False):
        libvirt.hang = True
        libvirt.goes_on.clear()
        with pytest.raises(QemuGoneError):
            await _open(timeout=0.05, alone=True)
        libvirt.hang = False
        libvirt.goes_on.set()
        (raw,) = shared._POOLS[asyncio.get_running_loop()].spare[URI, False]
        await raw.opened()
        spare = libvirt.opened[-1]
        if told:
            await asyncio.to_thread(spare.lose)
        spare.alive = False
        user = await _open(alone=True)
        assert user.raw is libvirt.opened[-1] is not spare
        assert not spare.open
        await user.close()


async def test_few_calls_of_one_connection_are_under_way_at_once_and_waiting_for_them_is_nobodys_silence(
    libvirt: FakeLibvirt,
) -> None:
    users = [await _open() for _ in range(10)]
    last = await _open(call_timeout=DEADLINE)
    assert len(libvirt.opened) == 1
    under_way, most, counting, goes_on = 0, 0, threading.Lock(), threading.Event()

    def waits() -> None:
        nonlocal under_way, most
        with counting:
            under_way += 1
            most = max(most, under_way)
        assert goes_on.wait(60)
        with counting:
            under_way -= 1

    calls = [asyncio.ensure_future(user.call("wait for the domain", waits)) for user in users]
    await until(lambda: under_way == 4)
    answer = asyncio.ensure_future(last.call("answer", lambda: 7))
    await asyncio.sleep(0)
    Clock().goes_on(50)  # of the 60 that each call under way has: longer than the last one may take
    await asyncio.sleep(0)
    goes_on.set()
    assert await answer == 7
    await asyncio.gather(*calls)
    assert most == 4
    for user in (*users, last):
        await user.close()


async def test_a_daemon_that_is_not_there_is_tried_anew_each_time(libvirt: FakeLibvirt) -> None:
    libvirt.refuse = True
    for alone in (False, True):
        with pytest.raises(VcpuctlError):
            await _open(alone=alone)
    libvirt.refuse = False
    for alone in (False, True):
        await (await _open(alone=alone)).close()
    assert libvirt.attempts == 4
