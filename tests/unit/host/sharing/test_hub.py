# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from kit.until import DEADLINE
from vcpu_host.core import codes
from vcpu_host.documents import Document
from vcpu_host.errors import FaultError, OutcomeLostError, RefusedError, VcpuctlError
from vcpu_host.sharing import wire
from vcpu_host.sharing.answers import Say
from vcpu_host.sharing.calls import Call, Kind, Part
from vcpu_host.sharing.hub import Hub
from vcpu_host.sharing.interruption import Interruption
from vcpu_host.sharing.remote import Asking, asked_to_give_way, connected


async def _answer(call: Call, say: Say, interruption: Interruption) -> Document:
    del interruption
    say({"holder": "said"})
    return {"asked": str(call.kind)}


def _hub(part: Part) -> Hub:
    return Hub(part, "vcpuctl test", _answer)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Longer than sun_path has room for."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    return folder / "vm.sock"


@pytest.mark.parametrize("part", list(Part))
async def test_a_question_is_answered_whatever_the_vm_is_held_for(place: Path, part: Part) -> None:
    hub = _hub(part)
    await hub.listen(place)
    said: list[wire.Message] = []
    assert await Asking(place, Call(Kind.LIST)).answer(said.append) == {"asked": "list"}
    assert said == [{"holder": "said"}]
    await hub.close()


async def test_an_order_is_carried_out_only_by_who_keeps_the_vm(place: Path) -> None:
    hub = _hub(Part.WRITES)
    await hub.listen(place)
    with pytest.raises(RefusedError) as refused:
        await Asking(place, Call.from_json(_PLUG)).answer(lambda message: None)
    assert refused.value.reason.code == "vm-busy"
    await hub.close()
    keeper = _hub(Part.KEEPS)
    await keeper.listen(place)
    assert await Asking(place, Call.from_json(_PLUG)).answer(lambda message: None) == {"asked": "run"}
    with keeper.operation(), pytest.raises(RefusedError):
        await Asking(place, Call.from_json(_PLUG)).answer(lambda message: None)
    await keeper.close()


_PLUG = {"call": "run", "request": {"operation": "plug", "count": 1, "slots": []}}


@pytest.mark.parametrize(
    ("held", "wanted", "insists", "yields"),
    [
        (Part.READS, Part.READS, False, False),
        (Part.READS, Part.WRITES, False, True),
        (Part.READS, Part.KEEPS, False, True),
        (Part.WRITES, Part.WRITES, True, False),
        (Part.KEEPS, Part.WRITES, False, False),
        (Part.KEEPS, Part.WRITES, True, True),
        (Part.KEEPS, Part.READS, True, False),
    ],
)
async def test_who_gives_way_to_whom(place: Path, held: Part, wanted: Part, insists: bool, yields: bool) -> None:
    hub = _hub(held)
    await hub.listen(place)
    async with asked_to_give_way(place, wanted, 10.0, insists=insists) as other:
        assert other is not None
        assert (other.part, other.gives_way, other.at_once, hub.asked.is_set()) == (str(held), yields, yields, yields)
        assert other.name.endswith(" vcpuctl test")
    await hub.close()


async def test_a_process_that_changes_the_vm_for_another_gives_way_only_after_that(place: Path) -> None:
    hub = _hub(Part.KEEPS)
    await hub.listen(place)
    with hub.operation():
        async with asked_to_give_way(place, Part.WRITES, 10.0, insists=True) as other:
            assert other is not None
            assert (other.gives_way, other.at_once, hub.asked.is_set()) == (True, False, False)
    assert hub.asked.is_set()
    await hub.close()


async def test_a_vm_that_is_let_go_has_the_operation_end_and_its_caller_answered_and_none_begin(place: Path) -> None:
    begun = asyncio.Event()

    async def until_interrupted(call: Call, say: Say, interruption: Interruption) -> Document:
        del call, say
        begun.set()
        await interruption.asked.wait()
        return {"outcome": "unknown"}

    hub = Hub(Part.KEEPS, "vcpuctl test", until_interrupted)
    await hub.listen(place)
    asking = asyncio.ensure_future(Asking(place, Call.from_json(_PLUG)).answer(lambda message: None))
    async with asyncio.timeout(DEADLINE):
        await begun.wait()
        await hub.leave()
        assert await asking == {"outcome": "unknown"}
    with pytest.raises(RefusedError), hub.operation():
        raise AssertionError("it is let go")
    await hub.close()


async def _flood(writer: asyncio.StreamWriter) -> None:
    """Write half of what an answer may have, and no end of a line."""
    for _ in range(wire.LONGEST // 2 // 65536):
        writer.write(b"x" * 65536)
        await writer.drain()


async def test_a_call_that_does_not_end_is_cut_off_before_it_takes_memory(place: Path) -> None:
    hub = _hub(Part.KEEPS)
    await hub.listen(place)
    async with connected(place) as streams, asyncio.timeout(30):
        assert streams is not None
        _, writer = streams
        with pytest.raises(ConnectionError):
            await _flood(writer)
        assert await Asking(place, Call(Kind.LIST)).answer(lambda message: None) == {"asked": "list"}
    await hub.close()


async def test_the_socket_goes_while_the_lock_is_held_and_is_left_alone_after_that(place: Path) -> None:
    first, second = _hub(Part.READS), _hub(Part.WRITES)
    await first.listen(place)
    await second.listen(place)  # the lock has gone to another process
    await first.close()
    assert await Asking(place, Call(Kind.LIST)).answer(lambda message: None) == {"asked": "list"}
    await second.leave()
    async with connected(place) as streams:
        assert streams is None
    assert list(place.parent.iterdir()) == []
    await second.close()


@pytest.mark.parametrize(("call", "status"), [({"call": "list"}, FaultError), (_PLUG, OutcomeLostError)])
async def test_who_asks_is_told_of_a_fault_that_nobody_foresaw_and_the_log_has_it(
    place: Path, capsys: pytest.CaptureFixture[str], call: dict[str, object], status: type[VcpuctlError]
) -> None:
    async def answer(call: Call, say: Say, interruption: Interruption) -> Document:
        raise KeyError("scale")

    hub = Hub(Part.KEEPS, "vcpuctl test", answer)
    await hub.listen(place)
    with pytest.raises(status) as error:
        await Asking(place, Call.from_json(call)).answer(lambda message: None)
    assert error.value.reason.code == codes.FAULT
    assert "KeyError('scale')" in error.value.reason.text
    assert ("not known how far" in error.value.reason.text) is (call is _PLUG)
    written = capsys.readouterr().err
    assert "vcpuctl test: a fault of vcpuctl's own" in written
    assert "Traceback" in written
    await hub.close()
