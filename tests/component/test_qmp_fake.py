# SPDX-License-Identifier: Apache-2.0
"""The fake QEMU keeps the quirks that matter: whoever builds on it builds on these."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from kit.fakes.qemu import FakeProcess, QmpError, Steer

CPU = "qemu64-x86_64-cpu"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="vq", dir="/tmp") as name:
        yield Path(name)


def plug(client: Steer, index: int) -> None:
    client.call("device_add", driver=CPU, id=f"vcpu-{index}", socket_id=0, core_id=index, thread_id=0)


def unplug(client: Steer, index: int) -> None:
    client.call("device_del", id=f"vcpu-{index}")


def filled(client: Steer) -> set[int]:
    reply = client.call("query-hotpluggable-cpus")
    return {len(reply) - 1 - place for place, entry in enumerate(reply) if "qom-path" in entry}


def ost(client: Steer) -> tuple[int, int, int, str | None]:
    """Slot, source, status and device of the next report."""
    info: Mapping[str, Any] = client.wait_event("ACPI_DEVICE_OST")["data"]["info"]
    return int(info["slot"]), info["source"], info["status"], info.get("device")


def names(client: Steer) -> list[str]:
    client.call("x-fake-idle")  # what was raised before has arrived with the answer
    return [event["event"] for event in client.events]


def test_a_plug_is_reported_with_its_device_and_an_unplug_at_last_without(folder: Path) -> None:
    with FakeProcess(folder, "--maxcpus", "4") as fake:
        plug(fake.steer, 3)
        assert ost(fake.steer) == (3, 1, 0, "vcpu-3")
        unplug(fake.steer, 3)
        assert ost(fake.steer) == (3, 3, 132, "vcpu-3")
        assert ost(fake.steer) == (3, 3, 0, None)
        assert filled(fake.steer) == {0}


@pytest.mark.parametrize("status", [130, 128, 1])
def test_a_guest_that_refuses_to_eject_keeps_the_cpu_and_says_so_in_its_status(folder: Path, status: int) -> None:
    with FakeProcess(folder, "--maxcpus", "4") as fake:
        plug(fake.steer, 1)
        ost(fake.steer)
        fake.steer.rule("guest:eject", "refuse", status=status, slot=1)
        unplug(fake.steer, 1)
        assert [ost(fake.steer)[2], ost(fake.steer)[2]] == [132, status]
        assert filled(fake.steer) == {0, 1}
        unplug(fake.steer, 1)  # asking again is legal, and the way to retry
        assert [ost(fake.steer)[2], ost(fake.steer)[2]] == [132, 0]


def test_the_guest_does_nothing_while_the_vm_is_paused_and_all_of_it_afterwards(folder: Path) -> None:
    with FakeProcess(folder, "--maxcpus", "4") as fake:
        plug(fake.steer, 1)
        ost(fake.steer)
        fake.steer.call("stop")
        plug(fake.steer, 2)
        unplug(fake.steer, 1)
        assert "ACPI_DEVICE_OST" not in names(fake.steer)
        assert filled(fake.steer) == {0, 1, 2}
        fake.steer.call("cont")
        assert sorted(ost(fake.steer) for _ in range(3)) == [
            (1, 3, 0, None),
            (1, 3, 132, "vcpu-1"),
            (2, 1, 0, "vcpu-2"),
        ]


def test_a_plug_and_an_unplug_of_one_slot_while_paused_are_both_seen_afterwards(folder: Path) -> None:
    with FakeProcess(folder, "--maxcpus", "4") as fake:
        fake.steer.call("stop")
        plug(fake.steer, 1)
        unplug(fake.steer, 1)
        fake.steer.call("cont")
        assert [ost(fake.steer)[1:3] for _ in range(3)] == [(1, 0), (3, 132), (3, 0)]


def test_a_reset_loses_the_unplug_request_and_does_not_complete_it(folder: Path) -> None:
    with FakeProcess(folder, "--maxcpus", "4") as fake:
        plug(fake.steer, 1)
        ost(fake.steer)
        fake.steer.call("stop")
        unplug(fake.steer, 1)
        fake.steer.call("system_reset")
        fake.steer.wait_event("RESET")
        fake.steer.call("cont")
        assert "ACPI_DEVICE_OST" not in names(fake.steer)
        assert filled(fake.steer) == {0, 1}
        plug(fake.steer, 2)  # the next scan finds the flag that was left behind
        assert {ost(fake.steer)[:3] for _ in range(3)} == {(1, 3, 132), (1, 3, 0), (2, 1, 0)}


def test_a_plug_before_the_guest_is_up_is_found_at_boot_and_not_reported(folder: Path) -> None:
    with FakeProcess(folder, "--maxcpus", "4", "--boots", "off") as fake:
        plug(fake.steer, 1)
        with pytest.raises(QmpError, match="not supported device type"):
            unplug(fake.steer, 1)
        assert fake.steer.call("query-acpi-ospm-status") == []
        fake.steer.call("x-fake-boot")
        assert "ACPI_DEVICE_OST" not in names(fake.steer)
        assert len(fake.steer.call("query-acpi-ospm-status")) == 4
        unplug(fake.steer, 1)
        assert [ost(fake.steer)[2], ost(fake.steer)[2]] == [132, 0]


def test_on_11_1_an_unplug_asked_for_before_the_guest_is_up_is_taken_and_lost(folder: Path) -> None:
    with FakeProcess(folder, "--maxcpus", "4", "--boots", "off", "--version", "11.1.3") as fake:
        plug(fake.steer, 1)
        unplug(fake.steer, 1)
        fake.steer.call("x-fake-boot")
        assert "ACPI_DEVICE_OST" not in names(fake.steer)
        assert filled(fake.steer) == {0, 1}


def test_events_can_be_lost_and_doubled(folder: Path) -> None:
    with FakeProcess(folder, "--maxcpus", "4", "--deleted", "kvm") as fake:
        fake.steer.rule("event:ACPI_DEVICE_OST", "drop", times=None)
        fake.steer.rule("event:DEVICE_DELETED", "duplicate", times=None)
        plug(fake.steer, 1)
        unplug(fake.steer, 1)
        paths = [fake.steer.wait_event("DEVICE_DELETED")["data"] for _ in range(4)]
        own = {"device": "vcpu-1", "path": "/machine/peripheral/vcpu-1"}
        child = {"path": "/machine/peripheral/vcpu-1/lapic"}
        assert paths == [child, child, own, own]
        assert "ACPI_DEVICE_OST" not in names(fake.steer)


@pytest.mark.parametrize(
    ("options", "plugs"), [(("--dies-on-replug", "on"), 1), (("--plug-budget", "on", "--maxcpus", "3"), 2)]
)
def test_a_qemu_under_tcg_dies_as_the_real_one_does(folder: Path, options: tuple[str, ...], plugs: int) -> None:
    with FakeProcess(folder, "--maxcpus", "4", *options) as fake:
        for _ in range(plugs):
            plug(fake.steer, 1)
            ost(fake.steer)
            unplug(fake.steer, 1)
            ost(fake.steer)
            ost(fake.steer)
        with pytest.raises((EOFError, ConnectionError)):
            plug(fake.steer, 1)
        assert fake.process.wait(5) == -signal.SIGABRT


@pytest.mark.parametrize(("version", "dies"), [("10.0.13", True), ("11.1.3", False)])
def test_a_cpu_beyond_what_its_model_can_address_ends_qemu_10_and_leaves_half_a_vcpu_in_11(
    folder: Path, version: str, dies: bool
) -> None:
    with FakeProcess(folder, "--maxcpus", "256", "--version", version) as fake:
        if dies:
            with pytest.raises((EOFError, ConnectionError)):
                plug(fake.steer, 255)
            assert fake.process.wait(5) == -signal.SIGABRT
            return
        with pytest.raises(QmpError, match="APIC ID 255 requires x2APIC feature in CPU"):
            plug(fake.steer, 255)
        assert filled(fake.steer) == {0}
        boot, phantom = fake.steer.call("query-cpus-fast")
        assert (phantom["cpu-index"], phantom["qom-path"]) == (255, "")
        assert phantom["thread-id"] != boot["thread-id"]


@pytest.mark.parametrize(("at", "done"), [("before:device_add", {0}), ("after:device_add", {0, 1})])
def test_a_command_can_be_held_before_and_after_it_is_carried_out(folder: Path, at: str, done: set[int]) -> None:
    with FakeProcess(folder, "--maxcpus", "4") as fake:
        rule = fake.steer.rule(at, "hold")
        client = Steer(fake.qmp)
        client._sock.sendall(
            b'{"execute":"device_add","arguments":{"driver":"%s","id":"x","socket-id":0,"core-id":1,"thread-id":0}}'
            % CPU.encode()
        )
        fake.steer.wait(rule)
        assert filled(fake.steer) == done
        client.close()  # what was asked is done all the same
        fake.steer.release(rule)
        fake.steer.wait_event("ACPI_DEVICE_OST")
        assert filled(fake.steer) == {0, 1}
        again = Steer(fake.qmp)
        assert filled(again) == {0, 1}
        again.close()


def test_a_command_can_fail_once_in_any_words(folder: Path) -> None:
    with FakeProcess(folder, "--maxcpus", "4") as fake:
        fake.steer.rule("before:device_add", "fail", **{"class": "GenericError", "desc": "no memory"})
        with pytest.raises(QmpError, match="no memory"):
            plug(fake.steer, 1)
        plug(fake.steer, 1)
        assert [entry["arguments"]["id"] for entry in fake.steer.commands("device_add")] == ["vcpu-1", "vcpu-1"]


@pytest.mark.parametrize(("smm", "up"), [("blocked", False), ("plug-only", True)])
def test_firmware_with_smm_can_forbid_plug_and_unplug(folder: Path, smm: str, up: bool) -> None:
    with FakeProcess(folder, "--maxcpus", "4", "--smp", "2", "--smm", smm) as fake:
        if up:
            plug(fake.steer, 2)
        else:
            with pytest.raises(QmpError, match="cpu hotplug with SMI wasn't enabled"):
                plug(fake.steer, 2)
        with pytest.raises(QmpError, match="cpu hot-unplug with SMI wasn't enabled"):
            fake.steer.call("device_del", id="/machine/unattached/device[2]")


def test_a_powered_off_guest_ends_the_process_cleanly(folder: Path) -> None:
    with FakeProcess(folder) as fake:
        fake.steer.call("query-status")
        fake.steer.call("system_powerdown")
        assert fake.steer.wait_event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-shutdown"}
        assert fake.process.wait(5) == 0


def test_a_topology_that_does_not_add_up_is_refused(folder: Path) -> None:
    command = ["--maxcpus", "6", "--sockets", "2", "--cores", "2", "--threads", "2"]
    with pytest.raises(RuntimeError, match="did not start"), FakeProcess(folder, *command, stderr=subprocess.DEVNULL):
        raise AssertionError("it started")


def test_apic_ids_have_holes_where_a_level_is_no_power_of_two(folder: Path) -> None:
    with (
        FakeProcess(
            folder, "--maxcpus", "12", "--sockets", "2", "--cores", "3", "--threads", "2", "--smp", "12"
        ) as fake,
        pytest.raises(QmpError, match=r"CPU\[6\] with APIC ID 8 exists"),
    ):
        fake.steer.call("device_add", driver=CPU, id="x", socket_id=1, core_id=0, thread_id=0)
