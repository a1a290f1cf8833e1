# SPDX-License-Identifier: Apache-2.0
"""An agent that says more than anybody can hold: the command's memory stays bounded, and it ends in its time."""

from __future__ import annotations

import itertools
import os
import random
import tempfile
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc
import pytest
from kit.component.cli import filled, online
from kit.component.hostile import MOST_MEMORY, Said, command, ended, run
from kit.fakes.hostile import Answer, Hostile, Script, Stranger, identity
from kit.fakes.qemu import FakeVm
from vcpu_proto.link import GuestLink
from vcpu_proto.link.frames import MAX_PAYLOAD, Frame, Kind, encode
from vcpu_proto.v1 import agent_pb2 as pb


@pytest.fixture(scope="module")
def vm() -> Iterator[FakeVm]:
    """Two CPUs from boot on, and no agent yet. Floods change nothing, so one VM serves for all."""
    with (
        tempfile.TemporaryDirectory(prefix="vh", dir="/tmp") as name,
        FakeVm(Path(name), "--smp", "2", agent=False) as vm,
    ):
        yield vm


@pytest.fixture(autouse=True)
def _unharmed(vm: FakeVm) -> Iterator[None]:
    """Nothing was asked of QEMU."""
    yield
    assert vm.steer.commands("device_del") == []
    assert filled(vm) == online(vm) == {0, 1}


def bounded(said: Said) -> None:
    """It took no more memory than it may, and had its words about it."""
    said.clean()
    assert 0 < said.peak < MOST_MEMORY, said.peak


# --- messages ---------------------------------------------------------------------------------------------------------


def field(number: int, inside: bytes) -> bytes:
    """A field of bytes, as protobuf writes it."""
    length, left = b"", len(inside)
    while left > 0x7F:
        length += bytes([left & 0x7F | 0x80])
        left >>= 7
    return bytes([number << 3 | 2]) + length + bytes([left]) + inside


class Big(Script):
    """Answers the list with these bytes, on the stream of requests or alone."""

    def __init__(self, folder: Path, answer: bytes, *, control: bool) -> None:
        super().__init__(folder, control=control)
        self._answer = field(1, field(1, answer)) if control else answer

    def listed(self, request: pb.ListCpusRequest) -> Answer:
        return self._answer


#: Lists that are too much, each in its own way.
LISTS: dict[str, Callable[[], bytes]] = {
    "a million CPUs": lambda: field(2, b"\x22\x00" * 1_000_000),
    "four million CPUs": lambda: field(2, b"\x22\x00" * 4_000_000),
    "CPUs just beyond the contract": lambda: pb.ListCpusResponse(
        snapshot=pb.Snapshot(cpus=[pb.Cpu(number=n, firmware_id=f"x:{n}") for n in range(65_537)])
    ).SerializeToString(),
    "an identity of seven megabytes": lambda: pb.ListCpusResponse(
        snapshot=pb.Snapshot(cpus=[pb.Cpu(firmware_id="x" * 7_000_000)])
    ).SerializeToString(),
    "a boot id of seven megabytes of escapes": lambda: pb.ListCpusResponse(
        snapshot=pb.Snapshot(boot_id="\x1b" * 7_000_000)
    ).SerializeToString(),
    "more bytes than a message may have": lambda: bytes(20_000_000),
}


@pytest.mark.parametrize(("name", "control"), [(name, bool(place % 2)) for place, name in enumerate(LISTS)])
def test_a_list_that_is_too_much_is_not_held(vm: FakeVm, name: str, control: bool) -> None:
    with Hostile(vm, Big(vm.folder, LISTS[name](), control=control)):
        said = run(vm, "list")
    bounded(said)
    assert (said.status, said.codes) == (0, {"agent-bad-message"}), said.stdout


class Greets(Script):
    """Says hello with this."""

    def __init__(self, folder: Path, answer: Answer) -> None:
        super().__init__(folder)
        self._answer = answer

    def hello(self, request: pb.HelloRequest) -> Answer:
        return self._answer


@pytest.mark.parametrize(
    "answer",
    [field(4, b"") * 4_000_000, pb.HelloResponse(protocol_min=1, protocol_max=1, kernel="k" * 7_000_000)],
    ids=["capabilities", "kernel"],
)
def test_a_greeting_that_is_too_much_is_not_held(vm: FakeVm, answer: Answer) -> None:
    with Hostile(vm, Greets(vm.folder, answer)):
        said = run(vm, "list")
    bounded(said)
    assert (said.status, said.codes) == (0, {"agent-bad-message"}), said.stdout


def test_what_came_packed_is_not_unpacked(vm: FakeVm) -> None:
    bomb = pb.HelloResponse(kernel="k" * 64_000_000).SerializeToString()
    for _ in range(20):
        with Hostile(vm, Greets(vm.folder, bomb), compression=grpc.Compression.Gzip):
            said = run(vm, "list")
        bounded(said)
        # On a busy machine the packing alone, which is the test's own, may outlast the patience with the greeting: then
        # nothing has come, and nothing is shown.
        if said.codes != {"agent-slow"}:
            break
    assert (said.status, said.codes) == (0, {"agent-bad-message"}), said.stdout


class Endless(Script):
    """Answers SetOnline without end."""

    def __init__(self, folder: Path, kind: str, *, control: bool) -> None:
        super().__init__(folder, control=control)
        self._kind = kind
        self.said = 0

    async def switched(self, request: pb.SetOnlineRequest) -> AsyncIterator[Answer]:
        cpus = [pb.Cpu(number=n, firmware_id=identity(n)) for n in range(2)]
        answer = {
            "results": pb.SetOnlineResponse(
                request_id="x",
                result=pb.CpuResult(firmware_id=identity(1), status=pb.CpuResult.STATUS_DONE, observed=cpus[1]),
            ),
            "arrivals": pb.SetOnlineResponse(request_id="x", arrived=cpus[1]),
            "snapshots": pb.SetOnlineResponse(request_id=request.request_id, final=pb.Snapshot(cpus=cpus)),
        }[self._kind]
        while True:
            self.said += 1
            yield answer


@pytest.mark.parametrize(
    ("kind", "control"),
    [("results", True), ("results", False), ("arrivals", True), ("snapshots", False)],
)
def test_answers_without_end_are_neither_kept_nor_followed(vm: FakeVm, kind: str, control: bool) -> None:
    script = Endless(vm.folder, kind, control=control)
    with Hostile(vm, script):
        said = run(vm, "unplug", "--slot", "1", timeout=10)
    bounded(said)
    assert (said.status, said.outcome) == (4, "unknown")
    assert script.said


class Restless(Script):
    """Watched, it changes on and on: ``size`` CPUs, each time others."""

    def __init__(self, folder: Path, size: int) -> None:
        super().__init__(folder)
        self._size = size
        self.said = 0

    async def watched(self, request: pb.WatchRequest) -> AsyncIterator[Answer]:
        cpus = [pb.Cpu(number=n + 2, firmware_id=f"x:{n}", online=True) for n in range(self._size)]
        two = [pb.WatchResponse(snapshot=pb.Snapshot(generation=g, cpus=cpus[g:])).SerializeToString() for g in (0, 1)]
        for self.said, answer in enumerate(itertools.cycle(two)):
            yield answer

    def cpus(self) -> list[pb.Cpu]:
        return [*super().cpus(), pb.Cpu(number=1000 + self.said % 1000, firmware_id="x:0")]


@pytest.mark.parametrize(("size", "seconds"), [(2, 3), (65_000, 10)])
def test_a_guest_that_changes_without_pause_is_watched_in_bounds_and_in_time(
    vm: FakeVm, size: int, seconds: int
) -> None:
    script = Restless(vm.folder, size)
    with Hostile(vm, script):
        said = run(vm, "watch", timeout=seconds)
    bounded(said)
    assert said.status == 0
    assert script.said > 1


# --- frames -----------------------------------------------------------------------------------------------------------


def frame_of(size: int, token: bytes) -> bytes:
    """A frame with so many bytes of payload, also where encode() would make none."""
    if size <= MAX_PAYLOAD:
        return encode(Frame(Kind.DATA, token, 0, bytes(size)))
    body = bytes([0x13]) + token + bytes(4) + bytes(size)
    body += zlib.crc32(body).to_bytes(4, "big")
    return b"\x7e" + body.replace(b"\x7d", b"\x7d\x5d").replace(b"\x7e", b"\x7d\x5e") + b"\x7e"


class Noisy(GuestLink):
    """Puts between its frames what is none of the session's: frames of every size, torn ones, and noise."""

    def _write(self, data: bytes) -> None:
        rest = random.Random(len(data))
        sizes = [0, 1, MAX_PAYLOAD - 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 2 * MAX_PAYLOAD, 5 * MAX_PAYLOAD]
        other = [frame_of(size, b"stranger") for size in sizes]
        ours = self.session.token
        late = [encode(Frame(kind, ours, 7, bytes(8))) for kind in (0, 9, 15)]
        torn = [rest.randbytes(100_000), other[3][:-9], b"\x7d" * 70_000, b"\x7e" * 5000]
        pieces = [*other, *late, *torn]
        rest.shuffle(pieces)
        # A flag ends what was torn, as the next frame's own does.
        super()._write(b"".join(pieces) + b"\x7e" + data + b"".join(pieces) + b"\x7e")


def test_between_frames_of_every_size_and_any_noise_a_session_goes_on(vm: FakeVm) -> None:
    with Hostile(vm, Script(vm.folder), link=Noisy):
        said = run(vm, "list")
    bounded(said)
    assert said.json["agent"] is not None, said.stdout
    assert said.json["vm"]["online_vcpus"] == 2


class Oversized(GuestLink):
    """Begins each session's data with a frame one byte longer than any may be, and goes on in order."""

    _spoilt = b""

    def _write(self, data: bytes) -> None:
        if data[1:2] == b"\x13" and self._spoilt != self.session.token:
            self._spoilt = self.session.token
            # gRPC may write all that it has to say as one frame, so the next one is ours too.
            data = frame_of(MAX_PAYLOAD + 1, self.session.token) + encode(Frame(Kind.DATA, self.session.token, 1, b"x"))
        super()._write(data)


def test_a_frame_beyond_the_bound_is_a_gap_and_not_data(vm: FakeVm) -> None:
    with Hostile(vm, Script(vm.folder), link=Oversized):
        said = run(vm, "list")
    bounded(said)
    assert (said.json["agent"], said.codes) == (None, {"agent-lost"}), said.stdout
    assert b"expected frame 0, got 1" in said.stdout


FLOODS: dict[str, Callable[[bytes], bytes]] = {
    "noise and announcements": lambda token: (
        os.urandom(50_000)
        + b"\x7e" * 50_000
        + b"\x7d\x5e" * 50_000
        + encode(Frame(Kind.BEACON, bytes(8), 0, b"instance")) * 1000
    ),
    "pings": lambda token: encode(Frame(Kind.PING, token, 0, b"whatever")) * 500,
    "a stream that is no HTTP": lambda token: b"".join(
        encode(Frame(Kind.DATA, token, n, bytes(range(256)) * 60)) for n in range(1000)
    ),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_port_that_never_falls_silent_ends_as_no_answer_or_a_lost_session(vm: FakeVm, name: str) -> None:
    over = threading.Event()

    def pour(stranger: Stranger) -> None:
        token = stranger.opened()
        if "noise" not in name:
            stranger.write(encode(Frame(Kind.ACCEPT, token, 0, b"instance")))
        water = FLOODS[name](token)
        while not over.is_set() and stranger.write(water, within=0.5):
            pass

    with Stranger(vm) as stranger, command(vm, "--timeout", "2", "list") as process:
        pourer = threading.Thread(target=pour, args=(stranger,))
        pourer.start()
        try:
            said = ended(vm, process)
        finally:
            over.set()
            pourer.join(10)
    bounded(said)
    assert said.status == 0
    assert said.json["agent"] is None
    assert said.codes <= {"no-answer", "agent-lost", "agent-slow", "port-busy"}, said.stdout
