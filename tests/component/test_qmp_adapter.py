# SPDX-License-Identifier: Apache-2.0
"""The adapter on a machine: what it sees, what it asks for, and what becomes of it when QEMU fails."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kit.component.adapter import machine
from kit.fakes.qemu import FakeProcess, Rule
from kit.sim.views import slot as slot_of
from kit.until import DEADLINE
from vcpu_host.core.model import Channel, Ost
from vcpu_host.core.vm_events import DeviceDeleted, OstReported, PortChanged, QemuGone, VmEvent, VmReset, VmStatus
from vcpu_host.errors import QemuError, QemuGoneError, TooLateError
from vcpu_host.qmp import connect
from vcpu_host.qmp.events import EventStream


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="vq", dir="/tmp") as name:
        yield Path(name)


async def take(stream: EventStream, count: int) -> list[VmEvent]:
    async with asyncio.timeout(DEADLINE):
        return [await anext(stream) for _ in range(count)]


async def test_a_look_shows_the_machine_its_slots_and_the_agents_port(folder: Path) -> None:
    async with machine(folder, maxcpus=8, smp=2, sockets=2, cores=2, threads=2, nodes=2, name="web\x1b1") as (
        qemu,
        vmm,
    ):
        view = await vmm.look()
        assert (view.qemu_version, view.machine, view.arch) == ((10, 0, 13), "pc-q35-10.0", "x86_64")
        assert (view.status, view.accel, view.vm_name, view.no_hotplug) == ("running", "tcg", "web?1", None)
        assert [slot.index for slot in view.slots] == list(range(8))
        assert dict(view.slots[5].props) == {"socket-id": 1, "core-id": 0, "thread-id": 1, "node-id": 1}
        assert [slot.index for slot in view.slots if slot.filled] == [0, 1]
        assert [thread.cpu_index for thread in view.slots[1].threads] == [1]
        assert view.slots[1].device_id is None
        socket = str(folder / "agent")
        words = f"disconnected:unix:{socket},server=on"
        assert view.channel == Channel(socket, guest_open=False, device_id="port0", bound=socket, chardev=words)
        assert view.ost == {}
        assert (await vmm.look_slots(view)) == view
        del qemu


@pytest.mark.parametrize(
    ("config", "accel"),
    [({"accel": "kvm"}, "kvm"), ({"accel": "xen", "version": (11, 1, 0)}, "xen"), ({"version": (7, 2, 22)}, "tcg")],
)
async def test_the_accelerator_is_asked_for_in_the_words_of_the_version(
    folder: Path, config: dict[str, object], accel: str
) -> None:
    async with machine(folder, **config) as (_, vmm):
        assert (await vmm.look()).accel == accel


@pytest.mark.parametrize("version", [(7, 2, 22), (10, 0, 13)])
async def test_a_machine_without_hotplug_is_looked_at_all_the_same(folder: Path, version: tuple[int, int, int]) -> None:
    async with machine(folder, hotplug=False, machine="microvm", version=version, port=False) as (_, vmm):
        view = await vmm.look()
        assert (view.machine, view.channel) == ("microvm", None)
        (boot,) = view.slots
        assert (boot.index, boot.vcpus, boot.filled, boot.device_id, len(boot.threads)) == (0, 1, True, None, 1)
        assert view.no_hotplug is not None
        assert view.no_hotplug.code == "no-hotplug"
        assert (await vmm.look_slots(view)).no_hotplug == view.no_hotplug


async def test_a_machine_without_an_empty_slot_is_no_error(folder: Path) -> None:
    async with machine(folder, maxcpus=4, smp=4) as (_, vmm):
        view = await vmm.look()
        assert all(slot.filled for slot in view.slots)
        assert view.no_hotplug is None


async def test_four_thousand_slots_are_seen_whole_and_in_order(folder: Path) -> None:
    async with machine(folder, maxcpus=4096, sockets=16) as (_, vmm):
        view = await vmm.look()
        assert [slot.index for slot in view.slots] == list(range(4096))
        assert view.slots[4095].props["core-id"] == 255


async def test_a_plug_goes_into_the_slot_that_was_meant_under_its_id(folder: Path) -> None:
    async with machine(folder, maxcpus=8, sockets=2, cores=2, threads=2) as (qemu, vmm):
        stream = vmm.events()
        view = await vmm.look()
        for index in (6, 3):
            await vmm.plug(view.slots[index])
        assert await take(stream, 2) == [OstReported(6, Ost(1, 0)), OstReported(3, Ost(1, 0))]
        view = await vmm.look_slots(view)
        assert {slot.index: slot.device_id for slot in view.slots if slot.filled} == {0: None, 3: "vcpu-3", 6: "vcpu-6"}
        assert (await vmm.look()).ost == {3: Ost(1, 0), 6: Ost(1, 0)}
        assert [args["id"] for _, command, args in qemu.log if command == "device_add"] == ["vcpu-6", "vcpu-3"]


@pytest.mark.parametrize(
    ("deleted", "expected"),
    [
        ("tcg", [DeviceDeleted(2)]),
        (
            "kvm",
            [
                DeviceDeleted(2),
                DeviceDeleted(2),
            ],
        ),
        ("none", []),
    ],
)
async def test_an_unplug_empties_the_slot_whatever_events_come(
    folder: Path, deleted: str, expected: list[VmEvent]
) -> None:
    async with machine(folder, maxcpus=4, deleted=deleted) as (_, vmm):
        view = await vmm.look()
        await vmm.plug(view.slots[2])
        stream = vmm.events()
        await take(stream, 1)
        await vmm.unplug(view.slots[2])
        seen = await take(stream, 2 + len(expected))
        assert seen == [OstReported(2, Ost(3, 132)), *expected, OstReported(2, Ost(3, 0))]
        assert not (await vmm.look_slots(view)).slots[2].filled


async def test_a_removal_that_comes_too_late_is_not_sent(folder: Path) -> None:
    async with machine(folder, maxcpus=4, smp=3) as (_, vmm):
        view = await vmm.look()
        stream = vmm.events()
        with pytest.raises(TooLateError):
            await vmm.unplug(view.slots[1], time.monotonic())
        await vmm.unplug(view.slots[2], time.monotonic() + DEADLINE)
        await take(stream, 3)
        assert [slot.filled for slot in (await vmm.look_slots(view)).slots] == [True, True, False, False]


async def test_a_cpu_that_was_there_at_start_goes_by_its_path(folder: Path) -> None:
    async with machine(folder, maxcpus=4, smp=3) as (_, vmm):
        view = await vmm.look()
        stream = vmm.events()
        assert view.slots[1].device_id is None
        await vmm.unplug(view.slots[1])
        await take(stream, 3)
        assert [slot.filled for slot in (await vmm.look_slots(view)).slots] == [True, False, True, False]


async def test_qemus_refusals_come_with_its_words_and_our_code(folder: Path) -> None:
    async with machine(folder, maxcpus=4) as (qemu, vmm):
        view = await vmm.look()
        for slot, code in ((view.slots[0], "slot-occupied"), (view.slots[1], "migrating")):
            qemu.machine.migrating = code == "migrating"
            with pytest.raises(QemuError) as caught:
                await vmm.plug(slot, "x")
            assert caught.value.reason.code == code
        qemu.machine.migrating = False
        nobody = replace(view.slots[1], device_id="nope")
        for slot, code in ((nobody, "device-not-found"), (view.slots[0], "boot-cpu")):
            with pytest.raises(QemuError) as caught:
                await vmm.unplug(slot)
            assert caught.value.reason.code == code


async def test_a_look_that_falls_between_two_plugs_of_somebody_else_is_taken_again(folder: Path) -> None:
    async with machine(folder, maxcpus=4) as (qemu, vmm):
        view = await vmm.look()
        asked = sum(command == "query-cpus-fast" for _, command, _ in qemu.log)
        rule = Rule("before:query-cpus-fast", "hold")
        qemu.faults.add(rule)
        looking = asyncio.create_task(vmm.look_slots(view))
        async with asyncio.timeout(DEADLINE):
            await rule.hit.wait()
        qemu.machine.plug(qemu.config.cpu_type, "theirs", {"socket-id": 0, "core-id": 3, "thread-id": 0})
        rule.released.set()
        seen = await looking
        assert seen.slots[3].device_id == "theirs"
        assert [thread.cpu_index for thread in seen.slots[3].threads] == [3]
        assert sum(command == "query-cpus-fast" for _, command, _ in qemu.log) == asked + 2


async def test_events_that_came_before_anybody_asked_are_kept(folder: Path) -> None:
    async with machine(folder) as (qemu, vmm):
        qemu.machine.stop_vm()
        qemu.machine.cont_vm()
        qemu.set_port(guest_open=True)
        await vmm.look()
        seen = await take(vmm.events(), 3)
        assert seen == [VmStatus("stopped"), VmStatus("running"), PortChanged(open=True)]
        await qemu.machine.reset(guest=True)
        assert await take(vmm.events(), 0) == []


async def test_a_reset_and_a_shutdown_are_told_and_the_end_comes_last(folder: Path) -> None:
    async with machine(folder) as (qemu, vmm):
        stream = vmm.events()
        await qemu.machine.reset(guest=True)
        await qemu.shut_down("guest-shutdown")
        seen = await take(stream, 3)
        assert seen[:2] == [VmReset(), VmStatus("shutdown")]
        assert isinstance(seen[2], QemuGone)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


@pytest.mark.parametrize("at", ["before:device_add", "after:device_add"])
async def test_a_connection_lost_in_the_middle_of_a_command_is_told_at_once(folder: Path, at: str) -> None:
    async with machine(folder) as (qemu, vmm):
        view = await vmm.look()
        stream = vmm.events()
        qemu.faults.add(Rule(at, "close"))
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(QemuGoneError) as caught:
                await vmm.plug(view.slots[1])
        assert caught.value.reason.code == "qemu-gone"
        seen: list[VmEvent] = []
        async with asyncio.timeout(DEADLINE):
            seen = [event async for event in stream]
        assert isinstance(seen[-1], QemuGone)
        with pytest.raises(QemuGoneError):
            await vmm.look()


async def test_qemus_death_is_told_at_once_to_all_who_wait(folder: Path) -> None:
    with FakeProcess(folder, "--dies-on-replug", "on") as fake:
        vmm = await connect(str(fake.qmp))
        stream = vmm.events()
        view = await vmm.look()
        await vmm.plug(view.slots[1])
        await vmm.unplug(view.slots[1])
        await take(stream, 4)
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(QemuGoneError):
                await vmm.plug(view.slots[2])
            assert isinstance((await take(stream, 1))[0], QemuGone)
        assert fake.process.wait(5) == -signal.SIGABRT
        await vmm.close()


async def test_closing_never_hangs_even_if_qemu_is_stopped_and_may_be_repeated(folder: Path) -> None:
    with FakeProcess(folder) as fake:
        vmm = await connect(str(fake.qmp), call_timeout=1)
        fake.process.send_signal(signal.SIGSTOP)
        with pytest.raises(QemuGoneError):
            await vmm.look()
        async with asyncio.timeout(DEADLINE):
            await vmm.close()
            await vmm.close()
        assert isinstance((await take(vmm.events(), 1))[0], QemuGone)
        fake.process.send_signal(signal.SIGCONT)


async def test_closing_does_not_wait_for_a_stopped_qemu_to_take_what_was_written(folder: Path) -> None:
    with FakeProcess(folder) as fake:
        vmm = await connect(str(fake.qmp), call_timeout=1)
        fake.process.send_signal(signal.SIGSTOP)
        with pytest.raises(QemuGoneError):
            await vmm.unplug(slot_of(1, device_id="x" * 8_000_000))  # more than any socket buffer holds
        async with asyncio.timeout(DEADLINE):
            await vmm.close()
        fake.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    "command", ["query-status", "query-target", "query-name", "query-hotpluggable-cpus", "query-cpus-fast"]
)
async def test_a_reply_of_another_shape_is_an_error_and_no_crash(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    async with machine(folder) as (qemu, vmm):
        with monkeypatch.context() as patch:
            patch.setitem(qemu.commands, command, lambda _qemu, _args: 5)
            with pytest.raises(QemuError) as caught:
                await vmm.look()
        assert caught.value.reason.code == "bad-reply"
        assert command in caught.value.reason.text
        assert (await vmm.look()).running


async def test_no_command_that_qemu_calls_unstable_is_ever_sent(folder: Path) -> None:
    async with machine(folder) as (qemu, vmm):
        view = await vmm.look()
        await vmm.plug(view.slots[1])
        await vmm.look_slots(view)
        await vmm.unplug(view.slots[1])
        assert qemu.log
        assert not [command for _, command, _ in qemu.log if command.startswith("x-")]


async def test_many_calls_at_once_are_all_answered(folder: Path) -> None:
    async with machine(folder, maxcpus=64) as (_, vmm):
        view = await vmm.look()
        await asyncio.gather(*(vmm.plug(slot) for slot in view.slots[1:]))
        assert all(slot.filled for slot in (await vmm.look_slots(view)).slots)
