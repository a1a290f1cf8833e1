# SPDX-License-Identifier: Apache-2.0
"""The fake QEMU answers what the real one answers: the same words to both, value by value, error by error."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from kit.e2e.qmp_scripts import EARLY, NO_ACPI, RAW, SCRIPT, TWO_NODES
from kit.fakes.qemu import FakeProcess, QmpError, Steer
from kit.lab import Cache, Lab, VmSpec, qemu
from vcpu_host.core.vm_events import PortChanged
from vcpu_host.errors import QemuError
from vcpu_host.qmp import connect

pytestmark = pytest.mark.e2e

TOPOLOGY = ("-smp", "2,maxcpus=8,sockets=2,cores=2,threads=2")
FAKE = (
    "--maxcpus",
    "8",
    "--smp",
    "2",
    "--sockets",
    "2",
    "--cores",
    "2",
    "--threads",
    "2",
    "--paused",
    "on",
    "--boots",
    "off",
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="vq", dir="/tmp") as name:
        yield Path(name)


VERSIONS = ["7.2", "10.0", "11.1"]


@pytest.fixture(params=VERSIONS)
def real(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[Path, str]]:
    with started(request.param, folder) as found:
        yield found


@contextmanager
def started(version: str, folder: Path, *more: str) -> Iterator[tuple[Path, str]]:
    """A real QEMU whose VM has not been started: its monitor, and its full version."""
    path = folder / "real"
    command = [
        *("-machine", "q35", "-accel", "tcg", "-cpu", "qemu64", "-m", "64", *TOPOLOGY),
        *("-nodefaults", "-display", "none", "-S", "-qmp", f"unix:{path},server=on,wait=off"),
        *("-device", "virtio-serial-pci", "-chardev", f"socket,id=ch0,path={folder}/real-agent,server=on,wait=off"),
        *("-device", "virtserialport,chardev=ch0,name=org.vcpuctl.agent.0,id=port0"),
        *("-blockdev", "driver=null-co,read-zeroes=on,node-name=root"),
        *("-device", "virtio-blk-pci,drive=root,id=root-disk"),
        *more,
    ]
    with qemu.find(Cache(), version) as binary, listening(path) as listener:
        # The listener is handed over, so that there is nothing to wait for.
        command[command.index("-qmp") :][:2] = []
        command += ["-chardev", f"socket,id=mon,fd={listener.fileno()},server=on,wait=off", "-mon", "mon,mode=control"]
        process = subprocess.Popen(
            [*binary.system, *command], env={**binary.env}, pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL
        )
        try:
            yield path, binary.full_version
        finally:
            process.kill()
            process.wait(10)


def listening(path: Path) -> closing[socket.socket]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)
    return closing(listener)


def answer(client: Steer, command: str, arguments: dict[str, Any]) -> Any:
    """The value, without what is different from run to run; or the error, word by word."""
    try:
        value = client.call(command, **arguments)
    except QmpError as err:
        return {"class": err.cls, "desc": err.desc}
    return masked(value)


def masked(value: Any) -> Any:
    if isinstance(value, dict):
        hidden = {"thread-id": 0, "package": "", "timestamp": {}}
        return {name: hidden[name] if name in hidden else masked(item) for name, item in value.items()}
    if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
        return sorted((masked(item) for item in value), key=lambda item: str(item["name"]))  # a hash table's order
    if isinstance(value, list):
        return [masked(item) for item in value]
    if not isinstance(value, str):
        return value
    # A machine's own devices take places in the anonymous list that the fake does not have; 11.1 counts what it parses.
    return re.sub(
        r"^\d+:\d+: JSON", "JSON", re.sub(r"peripheral-anon/device\[\d+\]", "peripheral-anon/device[N]", value)
    )


def steer(path: Path) -> closing[Steer]:
    return closing(Steer(path))


def test_every_command_gets_the_same_answer_from_the_fake_as_from_the_real_one(
    real: tuple[Path, str], folder: Path
) -> None:
    path, version = real
    with FakeProcess(folder, "--version", version, *FAKE) as fake, steer(path) as ours, steer(fake.qmp) as theirs:
        assert masked(theirs.greeting) == masked(ours.greeting)
        for command, arguments in SCRIPT:
            expected = answer(ours, command, arguments)
            assert answer(theirs, command, arguments) == expected, (command, arguments)
        for client in (ours, theirs):
            client.call("query-status")  # what was raised before has arrived with the answer
        assert masked(theirs.events) == masked(ours.events)
        assert [event["event"] for event in ours.events] == ["RESUME", "STOP", "RESET", "POWERDOWN"]


@pytest.mark.parametrize("version", VERSIONS)
def test_before_the_machine_is_made_the_fake_answers_as_the_real_one(version: str, folder: Path) -> None:
    with (
        started(version, folder, "--preconfig", *TWO_NODES) as (path, full),
        FakeProcess(folder, "--version", full, *FAKE, "--preconfig", "on", "--nodes", "2") as fake,
        steer(path) as ours,
        steer(fake.qmp) as theirs,
    ):
        for command, arguments in EARLY:
            assert answer(theirs, command, arguments) == answer(ours, command, arguments), (command, arguments)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("machine", "fake_machine"), [("q35", "pc-q35"), ("pc", "pc-i440fx")])
def test_without_acpi_the_fake_answers_as_the_real_one(
    version: str, machine: str, fake_machine: str, folder: Path
) -> None:
    with (
        started(version, folder, "-machine", f"{machine},acpi=off") as (path, full),
        FakeProcess(folder, "--version", full, *FAKE, "--acpi", "off", "--machine", fake_machine) as fake,
        steer(path) as ours,
        steer(fake.qmp) as theirs,
    ):
        for command, arguments in NO_ACPI:
            assert answer(theirs, command, arguments) == answer(ours, command, arguments), (command, arguments)


def lines(path: Path) -> list[Any]:
    """What a monitor answers to RAW, the greeting first."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock:
        sock.settimeout(10)
        sock.connect(str(path))
        with sock.makefile("rb") as stream:
            heard = [json.loads(stream.readline())]
            for request in RAW:
                sock.sendall(request)
                heard.append(json.loads(stream.readline()))
    return [masked(item) for item in heard]


def test_what_is_not_proper_qmp_is_refused_in_the_same_words(real: tuple[Path, str], folder: Path) -> None:
    path, version = real
    with FakeProcess(folder, "--version", version, *FAKE) as fake:
        assert lines(fake.qmp) == lines(path)


def test_a_second_client_hears_nothing_until_the_first_has_gone(real: tuple[Path, str], folder: Path) -> None:
    path, version = real
    with FakeProcess(folder, "--version", version, *FAKE) as fake:
        for monitor in (path, fake.qmp):
            Steer(monitor).close()  # QEMU is up: while it sets its monitor up it accepts, and drops, one too many
            first = Steer(monitor)
            with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as second:
                second.connect(str(monitor))
                second.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    second.recv(1)
                first.close()
                second.settimeout(10)
                assert second.recv(1) == b"{"


async def life(monitor: Path, oracle: Callable[..., Any], switch: Callable[[int, bool], None]) -> list[Any]:
    """Plug, unplug, pause and go on, with a guest that is up; everything that the adapter saw of it.

    ``oracle`` asks QEMU past the adapter, ``switch`` writes ``online`` in the guest.
    """
    vmm = await connect(str(monitor))
    stream = vmm.events()
    seen: list[Any] = []

    async def take(count: int) -> None:
        async with asyncio.timeout(20):
            while count:
                event = await anext(stream)
                if not isinstance(event, PortChanged):
                    seen.append(event)
                    count -= 1

    view = await vmm.look()
    seen.append(view.ost)
    for index in (9, 4):
        await vmm.plug(view.slots[index])
        await take(1)
    seen.append([item for item in oracle("query-acpi-ospm-status") if item["source"]])
    switch(2, True)
    switch(2, False)
    await vmm.unplug(view.slots[4])
    await take(3)
    oracle("stop")
    await vmm.plug(view.slots[1])
    with pytest.raises(QemuError) as caught:
        await vmm.unplug(view.slots[0])
    seen.append(caught.value.reason)
    oracle("cont")
    await take(3)
    view = await vmm.look()
    seen.append((view.status, view.ost, [slot.index for slot in view.slots if slot.filled]))
    seen.append([item for item in oracle("query-acpi-ospm-status") if item["source"]])
    await vmm.close()
    return seen


async def test_with_a_guest_that_is_up_the_fake_tells_the_same_story_as_the_real_one(folder: Path) -> None:
    with Lab() as lab, lab.vm(VmSpec(smp="1,maxcpus=16,sockets=2,cores=4,threads=2")) as vm:
        real_story = await life(
            vm.qmp_socket,
            vm.qmp.execute,
            lambda cpu, on: assert_empty(vm.shell(f"echo {on:d} > /sys/devices/system/cpu/cpu{cpu}/online")),
        )
    with FakeProcess(folder, "--maxcpus", "16", "--sockets", "2", "--cores", "4", "--threads", "2") as fake:
        fake_story = await life(fake.qmp, fake.steer.call, lambda _cpu, _on: None)
    assert fake_story == real_story


def assert_empty(text: str) -> None:
    assert not text.strip()
