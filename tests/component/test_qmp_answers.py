# SPDX-License-Identifier: Apache-2.0
"""Answers that do not come, come late, name no command or are none: each is told in time and as what it is."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from kit.clock import Clock
from kit.fakes.qemu import Config, FakeQemu, Rule
from kit.until import DEADLINE, until
from vcpu_host.core.vm_events import QemuGone
from vcpu_host.errors import QemuGoneError
from vcpu_host.qmp import connect


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="vq", dir="/tmp") as name:
        yield Path(name)


def asked(qemu: FakeQemu) -> list[Mapping[str, Any]]:
    """What device_add was asked for."""
    return [arguments for _, command, arguments in qemu.log if command == "device_add"]


async def test_a_command_that_is_not_answered_ends_in_time_and_leaves_its_outcome_open(folder: Path) -> None:
    async with FakeQemu(folder) as qemu:
        vmm = await connect(str(qemu.qmp), timeout=60, call_timeout=60)
        view = await vmm.look()
        rule = Rule("after:device_add", "hold")
        qemu.faults.add(rule)
        adding = asyncio.ensure_future(vmm.plug(view.slots[1]))
        with pytest.raises(QemuGoneError) as caught:
            await Clock().ends(adding, lambda: len(asked(qemu)) == 1)
        assert caught.value.reason.code == "qemu-silent"
        rule.released.set()
        async with asyncio.timeout(DEADLINE):
            assert (await vmm.look_slots(view)).slots[1].filled  # it was done, and the late answer disturbs nothing
        await vmm.close()


async def test_an_answer_that_names_no_command_leaves_its_caller_no_longer_than_any_other(folder: Path) -> None:
    async with FakeQemu(folder) as qemu:
        vmm = await connect(str(qemu.qmp), timeout=60, call_timeout=60)
        view = await vmm.look()
        qemu.faults.add(Rule("after:device_add", "nameless"))
        adding = asyncio.create_task(vmm.plug(view.slots[1]))
        await until(lambda: asked(qemu))
        clock = Clock()
        while not adding.done():  # QEMU goes on answering to everybody else
            clock.goes_on(10)
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
        async with asyncio.timeout(DEADLINE):
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
        vmm = await connect(str(qemu.qmp), timeout=60, call_timeout=60)
        view = await vmm.look()
        clock, rules = Clock(), [Rule("before:device_add", "hold") for _ in range(8)]
        for rule in rules:
            qemu.faults.add(rule)
        adding = asyncio.gather(*(vmm.plug(view.slots[index]) for index in range(1, 9)))
        for number, rule in enumerate(rules, 1):
            await until(lambda number=number: len(asked(qemu)) == number)  # type: ignore[misc]
            clock.goes_on(40)
            rule.released.set()
        await adding
        assert all(slot.filled for slot in (await vmm.look_slots(view)).slots[:9])
        qemu.faults.clear()
        rule = Rule("before:device_add", "hold")
        qemu.faults.add(rule)
        last = asyncio.gather(*(vmm.plug(view.slots[index]) for index in (9, 10)), return_exceptions=True)
        ended = await clock.ends(last, lambda: len(asked(qemu)) == 9)
        assert [isinstance(end, QemuGoneError) for end in ended] == [True, True]
        rule.released.set()
        await vmm.close()
