# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio

import pytest
from kit.fakes.sysfs import FakeKernel, firmware_id
from kit.until import DEADLINE, until
from vcpu_guest import logs
from vcpu_guest.core.model import Arrived, Cpu, CpuEvent
from vcpu_guest.core.request import Request
from vcpu_guest.cpus import inventory as module
from vcpu_guest.cpus.inventory import SETTLE, Inventory
from vcpu_guest.cpus.writer import Writer
from vcpu_guest.kernel.event_source import NoEvents, OnEvent, OnLost, Urgent
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.acpi import Acpi


def seen(inventory: Inventory) -> dict[int, tuple[str, bool]]:
    return {cpu.number: (cpu.firmware_id, cpu.online) for cpu in inventory.snapshot().cpus}


async def test_sees_what_is_there_at_the_start(inventory: Inventory) -> None:
    assert seen(inventory) == {0: (firmware_id(0), True)}
    cpu = inventory.snapshot().cpus[0]
    assert cpu.cannot_offline is not None
    assert cpu.cannot_offline.code == "cpu0"
    assert cpu.detail.node == 0


async def test_finds_cpus_by_identity_whatever_their_numbers(inventory: Inventory, kernel: FakeKernel) -> None:
    numbers = [kernel.add(slot) for slot in (4, 5, 3)]
    await until(lambda: inventory.find(firmware_id(3)) is not None)
    assert [inventory.find(firmware_id(slot)) for slot in (4, 5, 3)] == numbers == [1, 2, 3]


async def test_an_identity_that_comes_late_is_found_at_bind(inventory: Inventory, kernel: FakeKernel) -> None:
    number = kernel.add(5, late=True)
    await until(lambda: number in seen(inventory))
    assert seen(inventory)[number] == ("", False)
    kernel.bind(number)
    await until(lambda: inventory.find(firmware_id(5)) == number)


async def test_an_identity_that_comes_late_is_found_without_any_event(inventory: Inventory, kernel: FakeKernel) -> None:
    number = kernel.add(5, late=True)
    await until(lambda: number in seen(inventory))
    kernel.mute()
    kernel.bind(number)
    await until(lambda: inventory._numbers.get(firmware_id(5)) == number)


async def test_a_cpu_without_identity_is_looked_at_a_bounded_number_of_times(kernel: FakeKernel, sysfs: Sysfs) -> None:
    reads = []

    class Nameless(Acpi):
        def identity(self, sysfs: Sysfs, number: int) -> str:
            reads.append(number)
            return ""

    inventory = Inventory(sysfs, Nameless(), settle=(0.001, 0.001, 0.001))
    inventory.scan()
    await until(lambda: not inventory._timers)
    assert len(reads) == 4
    assert seen(inventory) == {0: ("", True)}
    assert not inventory._timers


async def test_the_remove_event_comes_before_the_directory_goes(inventory: Inventory, kernel: FakeKernel) -> None:
    number = kernel.add(5)
    await until(lambda: inventory.find(firmware_id(5)) == number)
    kernel.remove(number, linger=True)
    await until(lambda: inventory.find(firmware_id(5)) is None)
    assert number not in seen(inventory)
    kernel.reap(number)
    await until(lambda: not inventory._timers)
    assert number not in seen(inventory)


async def test_a_cpu_whose_directory_stays_after_all_is_believed_to_be_there(kernel: FakeKernel, sysfs: Sysfs) -> None:
    inventory = Inventory(sysfs, Acpi(), settle=(0.001, 0.001))
    number = kernel.add(5)
    inventory.scan()
    inventory.on_event(CpuEvent("remove", number))
    assert number not in seen(inventory)
    await until(lambda: number in seen(inventory))


async def test_a_number_that_comes_back_as_another_slot_is_not_mistaken(
    inventory: Inventory, kernel: FakeKernel
) -> None:
    number = kernel.add(5)
    await until(lambda: inventory.find(firmware_id(5)) == number)
    kernel.mute()
    kernel.remove(number)
    kernel.add(9, number)
    assert seen(inventory)[number] == (firmware_id(9), False)
    assert inventory.find(firmware_id(5)) is None


async def test_lost_events_are_made_good_by_a_scan(inventory: Inventory, kernel: FakeKernel) -> None:
    kernel.mute()
    number = kernel.add(5)
    assert inventory.find(firmware_id(5)) is None
    inventory.on_lost("no buffer space")
    assert inventory.find(firmware_id(5)) == number


async def test_the_generation_counts_changes_and_nothing_else(inventory: Inventory, kernel: FakeKernel) -> None:
    first = inventory.snapshot().generation
    assert inventory.snapshot().generation == first
    inventory.on_event(CpuEvent("change", 0))
    assert inventory.snapshot().generation == first
    kernel.add(5)
    await until(lambda: inventory.find(firmware_id(5)) is not None)
    assert inventory.snapshot().generation > first


async def test_who_waits_for_a_cpu_is_told_once_and_others_are_not(inventory: Inventory, kernel: FakeKernel) -> None:
    told: list[Cpu] = []
    inventory.wait_for(frozenset({firmware_id(5)}), told.append)
    kernel.add(4)
    kernel.add(5)
    await until(lambda: bool(told))
    inventory.scan()
    inventory.wait_no_more(told.append)
    kernel.add(6)
    await until(lambda: inventory.find(firmware_id(6)) is not None)
    assert [cpu.firmware_id for cpu in told] == [firmware_id(5)]


async def test_changes_wake_who_watches(inventory: Inventory, kernel: FakeKernel) -> None:
    with inventory.changes() as changed:
        assert not changed.is_set()
        kernel.add(5)
        await asyncio.wait_for(changed.wait(), DEADLINE)
    assert not inventory._watches


async def test_topology_is_read_again_at_online(inventory: Inventory, kernel: FakeKernel, sysfs: Sysfs) -> None:
    number = kernel.add(5)
    assert inventory.snapshot().cpus[1].detail.core_id is None
    sysfs.write_online(number, online=True)
    assert inventory.snapshot().cpus[1].detail.core_id == 5
    assert inventory.snapshot().cpus[1].detail.package_id == 0


async def test_the_only_online_cpu_cannot_go_offline(inventory: Inventory, kernel: FakeKernel, sysfs: Sysfs) -> None:
    number = kernel.add(5)
    sysfs.write_online(number, online=True)
    assert inventory.snapshot().cpus[1].cannot_offline is None
    kernel.online.discard(0)
    kernel._lists()
    found = inventory.snapshot().cpus[1].cannot_offline
    assert found is not None
    assert found.code == "last-cpu"


def test_looks_grow_apart_and_end() -> None:
    assert list(SETTLE) == sorted(SETTLE)
    assert sum(SETTLE) < 5


@pytest.mark.parametrize("action", ["add", "remove", "bind", "unbind", "online", "offline", "change", ""])
async def test_an_event_about_a_cpu_that_is_not_there_changes_nothing(inventory: Inventory, action: str) -> None:
    before = inventory.snapshot()
    inventory.on_event(CpuEvent(action, 9))
    await until(lambda: not inventory._timers)
    assert inventory.snapshot() == before


async def test_states_of_cpus_are_looked_at_only_while_somebody_watches(
    inventory: Inventory, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.add(5)
    await until(lambda: inventory.find(firmware_id(5)) == 1)
    looks: list[int] = []
    look = inventory._look

    def counting(number: int, online: bool) -> bool:
        looks.append(number)
        return look(number, online)

    monkeypatch.setattr(inventory, "_look", counting)
    inventory.on_event(CpuEvent("online", 1))
    assert (looks, inventory.has_listeners) == ([], False)
    with inventory.changes():
        assert inventory.has_listeners
        inventory.on_event(CpuEvent("online", 1))
    assert looks == [1]


async def test_who_waits_for_arrivals_costs_no_looks_at_those_that_have_arrived(
    inventory: Inventory, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Cpu] = []
    inventory.wait_for(frozenset({firmware_id(5), firmware_id(6)}), told.append)
    kernel.add(5)
    await until(lambda: bool(told))
    kernel.mute()
    kernel.add(6)  # nothing is heard of it but that it is online
    looks: list[int] = []
    look = inventory._look

    def counting(number: int, online: bool) -> bool:
        looks.append(number)
        return look(number, online)

    monkeypatch.setattr(inventory, "_look", counting)
    for number in (1, 2):
        inventory.on_event(CpuEvent("online", number))
    assert looks == [2]
    assert [cpu.number for cpu in told] == [1, 2]


async def test_a_cpu_that_said_who_it_is_is_not_looked_at_once_more(inventory: Inventory, kernel: FakeKernel) -> None:
    number = kernel.add(5, late=True)
    await until(lambda: number in inventory._timers)
    kernel.bind(number)
    await until(lambda: inventory._numbers.get(firmware_id(5)) == number)
    assert not inventory._timers


class Putting:
    """A source of events that has put some off, in all ways but that."""

    name = "putting off"
    alive = True

    def __init__(self) -> None:
        self.put_off = True

    def start(self, on_event: OnEvent, on_lost: OnLost, urgent: Urgent) -> None:
        self.on_lost, self.urgent = on_lost, urgent

    def catch_up(self) -> None:
        if self.put_off:
            self.put_off = False
            self.on_lost("put off")

    def close(self) -> None:
        pass

    hearing = True


async def test_who_watches_is_told_of_changes_that_no_event_tells_of(kernel: FakeKernel, sysfs: Sysfs) -> None:
    for source, ticks in ((Putting(), (3600.0, 0.01)), (NoEvents(), (0.01, 3600.0)), (None, (0.01, 3600.0))):
        inventory = Inventory(sysfs, Acpi(), ticks=ticks)
        if source is not None:
            inventory.hear(source)
        inventory.scan()
        with inventory.changes() as changed:
            kernel.add(len(kernel.slots))
            async with asyncio.timeout(DEADLINE):
                await changed.wait()
        assert inventory._tick is None, "nobody watches any more"


async def test_a_cpu_that_another_brings_online_is_told_to_who_watches_by_its_own_event(
    kernel: FakeKernel, sysfs: Sysfs
) -> None:
    inventory, loop = Inventory(sysfs, Acpi(), ticks=(3600.0, 3600.0)), asyncio.get_running_loop()
    number = kernel.add(5)
    inventory.scan()
    kernel.listen(lambda action, number: loop.call_soon_threadsafe(inventory.on_event, CpuEvent(action, number)))
    for goal in (b"1", b"0", b"1"):
        with inventory.changes() as changed:
            kernel.write(f"{kernel.cpu_dir}/cpu{number}/online", goal)
            async with asyncio.timeout(DEADLINE):
                await changed.wait()
        assert inventory._known[number].online == (goal == b"1")


async def test_a_look_that_fails_is_said_seldom_and_made_up_for(
    kernel: FakeKernel, sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "RETRY", 0.001)
    monkeypatch.setattr(module, "LONGEST_RETRY", 0.01)
    logs.configure("info", "text")
    looks = 0

    class Failing(Acpi):
        def present(self, sysfs: Sysfs) -> frozenset[int]:
            nonlocal looks
            looks += 1
            if looks > 1 and 5 not in kernel.slots.values():
                raise OSError(24, "Too many open files")
            return super().present(sysfs)

    inventory = Inventory(sysfs, Failing())
    inventory.scan()
    inventory.on_lost("no buffer space")
    inventory.rescan()
    await until(lambda: looks > 20)
    assert len(capsys.readouterr().err.splitlines()) in (2, 3), "the first time, the tenth, perhaps the hundredth"
    kernel.add(5)
    await until(lambda: inventory.find(firmware_id(5)) is not None)
    logs.configure("info", "text")


async def test_events_are_urgent_while_somebody_waits_and_at_no_other_time(inventory: Inventory) -> None:
    source = Putting()
    inventory.hear(source)
    assert not source.urgent()
    with inventory.changes():
        assert source.urgent()
    assert not source.urgent()

    def arrived(cpu: Cpu) -> None:
        raise AssertionError(cpu)

    inventory.wait_for(frozenset({firmware_id(5)}), arrived)
    assert source.urgent()
    inventory.wait_no_more(arrived)
    assert not source.urgent()


async def test_a_request_is_served_from_what_was_put_off_before_it(kernel: FakeKernel, sysfs: Sysfs) -> None:
    inventory, source = Inventory(sysfs, Acpi()), Putting()
    inventory.hear(source)
    inventory.scan()
    kernel.add(5)
    writer = Writer(sysfs, Acpi(), inventory)
    answers = writer.run(Request((firmware_id(5),), online=True, wait=True))
    async with asyncio.timeout(DEADLINE):
        assert isinstance(await anext(answers), Arrived)
    assert not source.put_off
    await answers.aclose()
    assert await writer.close(DEADLINE)


async def test_what_was_just_read_of_a_cpu_is_taken_over_and_told(inventory: Inventory, kernel: FakeKernel) -> None:
    kernel.add(5)
    await until(lambda: inventory.find(firmware_id(5)) == 1)
    with inventory.changes() as changed:
        inventory.note(Cpu(1, firmware_id(5), online=False))
        inventory.note(Cpu(1, firmware_id(6), online=True))
        inventory.note(Cpu(9, firmware_id(9), online=True))
        assert not changed.is_set()
        inventory.note(Cpu(1, firmware_id(5), online=True))
        assert changed.is_set()
    assert inventory._known[1].online
