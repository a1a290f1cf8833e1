# SPDX-License-Identifier: Apache-2.0
"""Live migration: slots filled in any order arrive as they were, and what would go wrong is told before."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kit.e2e import races
from kit.e2e.journey import Journey, journey
from kit.e2e.machine import SPEC, Machine
from kit.e2e.operation import Operation
from kit.lab import Lab, LabError
from kit.lab.lives import plugged

from e2e.test_power import CORES

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

#: A machine type that QEMU 7.2 and the newer ones have in common, with boot CPUs to remove.
_COMMON = "pc-q35-7.2"
_SMP = "4,maxcpus=16,sockets=2,cores=4,threads=2"
#: XICS, since QEMU does not load a VM with XIVE from which a core went that was not the last one to come.
_XICS = "pseries,x-vof=on,ic-mode=xics"
_CORES_SMP = "4,maxcpus=16,sockets=1,cores=8,threads=2"
#: Slow enough for a migration to last until it is told otherwise, in bytes a second.
_CRAWL = 1 << 16


@pytest.fixture
def journeys(lab: Lab, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Journey]]:
    """Makes VMs that can migrate; ``others`` names further QEMU versions."""

    def failed() -> bool:
        return bool(getattr(request.node, "failed_in_call", False))

    with ExitStack() as stack:

        def make(*others: str, **changes: Any) -> Journey:
            spec = replace(SPEC, **{"smp": _SMP, **changes})
            return stack.enter_context(journey(lab, spec, *others, kept=tmp_path, failed=failed))

        yield make


def _ok(machine: Machine, *words: str) -> None:
    ended = machine.vcpuctl(*words)
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr


def test_slots_in_any_order_without_some_boot_cpus_arrive_as_they_were_and_come_back_under_load(
    journeys: Callable[..., Journey],
) -> None:
    trip = journeys()
    _ok(trip.here, "plug", "--slot", "9")
    _ok(trip.here, "plug", "--slot", "6")
    _ok(trip.here, "unplug", "--slot", "2")
    trip.load()
    counts = trip.counts()
    trip.travel()
    trip.loaded_on(counts)
    # the same commands work there, on CPUs that came along and on new ones
    _ok(trip.here, "plug", "--slot", "12")
    _ok(trip.here, "unplug", "--slot", "9", "1")
    assert trip.online() == {0, 3, 6, 12}
    counts = trip.counts()
    trip.travel()
    trip.loaded_on(counts)
    assert trip.online() == {0, 3, 6, 12}
    _ok(trip.here, "scale", "2")
    assert trip.online() == {0, 3}


@pytest.mark.slow
def test_between_seven_two_and_a_newer_one_of_the_same_machine_type(journeys: Callable[..., Journey]) -> None:
    trip = journeys("7.2", machine=_COMMON)
    _ok(trip.here, "plug", "--slot", "11")
    _ok(trip.here, "unplug", "--slot", "1")
    trip.load()
    counts = trip.counts()
    trip.travel(qemu="7.2")
    assert trip.here.vcpuctl("list").json["vm"]["qemu_version"].startswith("7.2.")
    # nothing is unplugged there: under TCG 7.2 dies of what comes after, a plug or a migration
    _ok(trip.here, "plug", "--slot", "5")
    trip.travel(qemu="10.0")
    trip.loaded_on(counts)
    _ok(trip.here, "unplug", "--slot", "11")
    _ok(trip.here, "plug", "--slot", "1")
    assert trip.online() == {0, 1, 2, 3, 5}


def test_what_check_finds_is_what_a_migration_without_it_fails_of(journeys: Callable[..., Journey]) -> None:
    trip = journeys()
    _ok(trip.here, "plug", "--slot", "9")
    arguments = trip.export()["arguments"]
    lacking = trip.waiting(arguments=arguments[:-2])
    checked = trip.check(lacking)
    assert checked.status == 3, checked.stdout
    found = [(d["code"], d["slot"]) for d in checked.json["differences"] if d["level"] == "problem"]
    assert found == [("cpu-missing", 9)]
    with pytest.raises(LabError, match="Unknown savevm section or instance"):
        trip.road.go(lacking)
    # the destination is dead; the source may have sent all before that, and then stands still, too
    if trip.here.vm.qmp.execute("query-status")["status"] == "postmigrate":
        trip.here.vm.qmp.execute("cont")
    assert trip.online() == {0, 1, 2, 3, 9}
    # and prepare is the cure
    ready = trip.waiting(arguments=arguments[:-2])
    prepared = trip.check(ready, "prepare")
    assert (prepared.status, prepared.json["plugged"]) == (0, [{"slot": 9, "id": "vcpu-9"}]), prepared.stdout
    before = trip.shape()
    trip.road.go(ready)
    trip.arrived(ready)
    assert trip.shape() == before


#: As export has it for a VM that was started with four CPUs: what goes wrong is then the CPUs' own.
_QUEUES = ("-global", "virtio-blk-device.num-queues=4")
#: Other destinations than the one that is needed, with what has to be said of each; no slot stands for "any".
_WRONG: dict[str, tuple[str, dict[str, str], set[tuple[str, int | None]]]] = {
    "one too many": ("cpus=5,sockets=2,cores=4,threads=2,maxcpus=16", {}, {("cpu-too-many", 4), ("queues", None)}),
    "topology": ("cpus=4,sockets=4,cores=2,threads=2,maxcpus=16", {}, {("topology", None)}),
    "slots": ("cpus=4,sockets=2,cores=4,threads=1,maxcpus=8", {}, {("topology", None)}),
    "type": ("cpus=4,sockets=2,cores=4,threads=2,maxcpus=16", {"cpu": "Nehalem"}, {("cpu-type", None)}),
    "machine": ("cpus=4,sockets=2,cores=4,threads=2,maxcpus=16", {"machine": "pc-q35-9.0"}, {("machine-type", None)}),
}


def test_every_other_difference_is_said_exactly(journeys: Callable[..., Journey]) -> None:
    trip = journeys()
    for name, (smp, changes, codes) in _WRONG.items():
        destination = trip.waiting(arguments=["-smp", smp], **changes)
        checked = trip.check(destination)
        assert (checked.status, checked.outcome) == (3, "refused"), f"{name}: {checked.stdout}"
        wide = {code for code, slot in codes if slot is None}
        problems = [d for d in checked.json["differences"] if d["level"] == "problem"]
        said = {(d["code"], None if d["code"] in wide else d["slot"]) for d in problems}
        assert said == codes, f"{name}: {checked.stdout}"
        prepared = trip.check(destination, "prepare")
        assert (prepared.status, prepared.json["plugged"]) == (3, []), f"{name}: {prepared.stdout}"
        destination.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["slots", "machine"])
def test_some_wrong_destinations_end_the_migration(journeys: Callable[..., Journey], name: str) -> None:
    trip = journeys()
    smp, changes, _ = _WRONG[name]
    destination = trip.waiting(arguments=["-smp", smp, *_QUEUES], **changes)
    with pytest.raises(LabError, match=r"load of migration failed|Machine type received"):
        trip.road.go(destination)


@pytest.mark.slow
def test_a_cpu_too_many_arrives_as_one_that_no_guest_knows_and_scale_mends_it(
    journeys: Callable[..., Journey],
) -> None:
    trip = journeys()
    smp, _, _ = _WRONG["one too many"]
    destination = trip.waiting(arguments=["-smp", smp, *_QUEUES])
    trip.road.go(destination)
    trip.arrived(destination)
    assert trip.here.vcpuctl.map()[4]["state"] == "plugged"
    assert len(trip.here.vm.guest_cpus()) == 4
    _ok(trip.here, "scale", "4")
    assert trip.online() == {0, 1, 2, 3}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["topology", "type"])
def test_qemu_lets_other_wrong_destinations_pass_without_a_word(journeys: Callable[..., Journey], name: str) -> None:
    trip = journeys()
    smp, changes, _ = _WRONG[name]
    destination = trip.waiting(arguments=["-smp", smp, *_QUEUES], **changes)
    trip.road.go(destination)
    trip.arrived(destination)
    assert trip.online() == {0, 1, 2, 3}


@pytest.mark.slow
def test_while_the_vm_is_on_its_way_operations_are_refused_and_then_go_on_there(
    journeys: Callable[..., Journey],
) -> None:
    trip = journeys()
    before = trip.here.state()
    destination = trip.waiting()
    trip.load()
    trip.road.begin(destination, bandwidth=_CRAWL)
    for words in (("plug", "--slot", "9"), ("scale", "2"), ("offline", "1")):
        ended = trip.here.vcpuctl(*words)
        assert (ended.status, ended.json["reason"]["code"]) == (3, "migrating"), ended.stdout
    assert trip.here.state() == before
    trip.here.vm.qmp.execute("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
    trip.road.arrive(destination)
    left = trip.here.vcpuctl("scale", "6")
    assert (left.status, left.json["reason"]["code"]) == (3, "vm-moved"), left.stdout
    trip.arrived(destination)
    _ok(trip.here, "scale", "6")
    assert len(trip.online()) == 6


def test_a_migration_that_begins_in_the_middle_of_an_unplug_has_the_cpu_back_online(
    journeys: Callable[..., Journey],
) -> None:
    trip = journeys()
    destination = trip.waiting()
    with Operation(trip.here, "unplug", "--slot", "2", "3") as under_way:
        under_way.offline(3)
        trip.road.begin(destination, bandwidth=_CRAWL)
        ended = trip.here.vcpuctl.wait(under_way.process)
    # QEMU takes no device_del any more, and what the guest had let go of is brought back
    assert ended.status in (1, 6), ended.stdout
    assert {slot["reason"]["code"] for slot in ended.json["slots"]} == {"migrating"}, ended.stdout
    assert trip.online() == {0, 1, 2, 3}
    trip.here.vm.qmp.execute("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
    trip.road.arrive(destination)
    trip.arrived(destination)
    _ok(trip.here, "scale", "2")


def test_an_operation_whose_vm_moves_away_ends_as_unknown_and_converges_where_it_lives(
    journeys: Callable[..., Journey],
) -> None:
    trip = journeys()
    arguments = trip.export()["arguments"]
    with Operation(trip.here, "--timeout", "120", "plug", "--slot", "9") as under_way:
        under_way.told("device_add", 9)
        trip.here.vm.qmp.execute("stop")  # it takes the guest a tenth of a second, at the least, to bring a CPU online
        # the VM is that command's own as long as it runs, so it cannot be exported
        (device,) = plugged(trip.here.vm.qmp.execute("query-hotpluggable-cpus"))
        destination = trip.waiting(arguments=[*arguments, "-device", device])
        trip.road.go(destination)
        ended = trip.here.vcpuctl.wait(under_way.process, 30.0)
    assert (ended.status, ended.outcome, ended.json["reason"]["code"]) == (4, "unknown", "vm-moved"), ended.stdout
    trip.arrived(destination)
    trip.here.vm.qmp.execute("cont")
    trip.here.vm.wait_shell(60.0)
    _ok(trip.here, "scale", "5")
    assert trip.online() == set(trip.here.filled()) == {0, 1, 2, 3, 9}


@pytest.mark.slow
def test_a_removal_that_is_pending_travels_and_ends_on_the_other_side(journeys: Callable[..., Journey]) -> None:
    trip = journeys()
    _ok(trip.here, "plug", "--slot", "9")
    with Operation(trip.here, "unplug", "--slot", "9") as under_way:
        under_way.told("device_del", 9)
        trip.here.vm.qmp.execute("stop")
        under_way.process.kill()
    assert 9 in trip.here.filled(), "the guest was quicker than the lab: nothing is pending"
    exported = trip.export()
    assert [intent["slot"] for intent in exported["pending"]] == [9]
    destination = trip.waiting(arguments=exported["arguments"])
    prepared = trip.check(destination, "prepare")
    assert prepared.status == 0, prepared.stdout
    assert "pending" in {d["code"] for d in prepared.json["differences"]}
    trip.road.go(destination)
    trip.arrived(destination)
    pending = trip.here.vcpuctl("list").slots[9]["pending"]
    assert pending["operation"] == "unplug"
    trip.here.vm.qmp.execute("cont")
    trip.here.vm.wait_shell(60.0)
    _ok(trip.here, "scale", "4")
    assert trip.online() == set(trip.here.filled()) == {0, 1, 2, 3}


def _round(trip: Journey, chance: random.Random, boot: int, slots: int, *patience: str) -> None:
    """There and back, with a random shape of ``slots`` slots, of which the first ``boot`` are filled by -smp."""
    new = chance.sample(range(boot, slots), chance.randint(1, 3))
    for slot in new:
        _ok(trip.here, "plug", "--slot", str(slot))
    removable = [*range(1, boot), *new]
    gone = chance.sample(removable, min(chance.randint(0, 3), len(removable)))
    if gone:
        _ok(trip.here, "unplug", *patience, "--slot", *map(str, gone))
    there = {*range(boot), *new} - set(gone)
    trip.load()
    counts = trip.counts()
    trip.travel()
    trip.loaded_on(counts)
    assert trip.online() == there
    fresh = chance.choice(sorted(set(range(1, slots)) - there))
    _ok(trip.here, "plug", "--slot", str(fresh))
    last = chance.choice(sorted((there | {fresh}) - {0}))
    _ok(trip.here, "unplug", *patience, "--slot", str(last))
    counts = trip.counts()
    trip.travel()
    trip.loaded_on(counts)
    assert trip.online() == (there | {fresh}) - {last}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_random_shape_arrives_as_it_was_and_comes_back(journeys: Callable[..., Journey], seed: int) -> None:
    _round(journeys(), random.Random(seed), 4, 16)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(20))
def test_a_random_shape_of_two_thread_cores_arrives_as_it_was_and_comes_back(
    lab: Lab, tmp_path: Path, seed: int
) -> None:
    spec = replace(SPEC, **{**CORES, "qemu": "11.1", "smp": _CORES_SMP, "machine": _XICS})

    def there_and_back(trip: Journey) -> None:
        _round(trip, random.Random(seed), 2, 8, "--timeout", "30")

    races.unhung(lambda: journey(lab, spec, kept=tmp_path), there_and_back)
