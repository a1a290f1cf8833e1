# SPDX-License-Identifier: Apache-2.0
"""Answers that do not come, come late, name no command or are none: each is told in time and as what it is."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.fakes.qemu import Config, FakeQemu, Rule
from vcpu_host.core.vm_events import QemuGone
from vcpu_host.errors import QemuGoneError
from vcpu_host.qmp import connect


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="vq", dir="/tmp") as name:
        yield Path(name)


async def test_a_command_that_is_not_answered_ends_in_time_and_leaves_its_outcome_open(folder: Path) -> None:
    async with FakeQemu(folder) as qemu:
        vmm = await connect(str(qemu.qmp), call_timeout=1.5)
        view = await vmm.look()
        rule = Rule("after:device_add", "hold")
        qemu.faults.add(rule)
        with pytest.raises(QemuGoneError) as caught:
            await vmm.plug(view.slots[1])
        assert caught.value.reason.code == "qemu-silent"
        rule.released.set()
        async with asyncio.timeout(60):
            assert (await vmm.look_slots(view)).slots[1].filled  # it was done, and the late answer disturbs nothing
        await vmm.close()


async def test_an_answer_that_names_no_command_leaves_its_caller_no_longer_than_any_other(folder: Path) -> None:
    async with FakeQemu(folder) as qemu:
        vmm = await connect(str(qemu.qmp), call_timeout=1.5)
        view = await vmm.look()
        qemu.faults.add(Rule("after:device_add", "nameless"))
        adding = asyncio.create_task(vmm.plug(view.slots[1]))
        async with asyncio.timeout(60):
            while not adding.done():  # QEMU goes on answering to everybody else
                view = await vmm.look_slots(view)
        with pytest.raises(QemuGoneError, match="answers to what was asked later") as caught:
            await adding
        assert caught.value.reason.code == "qemu-silent"
        assert view.slots[1].filled
        await vmm.close()


@pytest.mark.parametrize(
    ("deed", "params", "words"),
    [
        ("error", {"desc": "JSON parse error, \x1b[2J"}, "an error to no command in particular"),
        ("flood", {"bytes": (10 << 20) + 1}, "a line of more than 10 MiB"),
    ],
)
async def test_what_is_no_answer_ends_the_connection_and_is_told_as_what_it_is(
    folder: Path, deed: str, params: dict[str, object], words: str
) -> None:
    async with FakeQemu(folder) as qemu:
        vmm = await connect(str(qemu.qmp))
        stream = vmm.events()
        view = await vmm.look()
        qemu.faults.add(Rule("before:query-status", deed, params=params))
        async with asyncio.timeout(60):
            with pytest.raises(QemuGoneError, match=words) as caught:
                await vmm.look_slots(view)
            assert caught.value.reason.code == "qemu-gone"
            assert "\x1b" not in caught.value.reason.text
            last = await anext(stream)
        assert isinstance(last, QemuGone)
        assert words in last.reason.text
        await vmm.close()


async def test_commands_that_wait_for_their_turn_have_as_long_as_qemu_goes_on_answering(folder: Path) -> None:
    async with FakeQemu(folder, Config(maxcpus=16)) as qemu:
        vmm = await connect(str(qemu.qmp), call_timeout=1.5)
        view = await vmm.look()
        qemu.faults.add(Rule("before:device_add", "delay", times=None, params={"seconds": 0.3}))
        async with asyncio.timeout(60):
            await asyncio.gather(*(vmm.plug(view.slots[index]) for index in range(1, 9)))
        assert all(slot.filled for slot in (await vmm.look_slots(view)).slots[:9])
        qemu.faults.clear()
        rule = Rule("before:device_add", "hold")
        qemu.faults.add(rule)
        async with asyncio.timeout(60):
            ended = await asyncio.gather(*(vmm.plug(view.slots[index]) for index in (9, 10)), return_exceptions=True)
        assert [isinstance(end, QemuGoneError) for end in ended] == [True, True]
        rule.released.set()
        await vmm.close()
