# SPDX-License-Identifier: Apache-2.0
"""An agent that lies, stalls or repeats itself: never a false "done", never a device_del that was not asked for."""

from __future__ import annotations

import asyncio
import math
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from kit.component.cli import filled, online, until
from kit.component.hostile import MOST_MEMORY, command, ended, run
from kit.fakes.hostile import Answer, Hostile, Script, Stranger, identity
from kit.fakes.qemu import FakeVm
from vcpu_proto.link import GuestLink
from vcpu_proto.link.frames import Decoder, Frame, Kind, encode
from vcpu_proto.v1 import agent_pb2 as pb

DONE, ALREADY = pb.CpuResult.STATUS_DONE, pb.CpuResult.STATUS_ALREADY
REFUSED, ABSENT = pb.CpuResult.STATUS_REFUSED, pb.CpuResult.STATUS_ABSENT


@pytest.fixture(scope="module")
def vm() -> Iterator[FakeVm]:
    """Three CPUs from boot on, and no agent yet. No lie below changes anything, so one VM serves for all."""
    with (
        tempfile.TemporaryDirectory(prefix="vh", dir="/tmp") as name,
        FakeVm(Path(name), "--smp", "3", agent=False) as vm,
    ):
        yield vm


@pytest.fixture(autouse=True)
def _unharmed(vm: FakeVm) -> Iterator[None]:
    """What QEMU and the kernel have is as it was, and no CPU was asked back."""
    yield
    assert vm.steer.commands("device_del") == []
    assert filled(vm) == online(vm) == {0, 1, 2}


class Says(Script):
    """Answers every SetOnline with these, whatever was asked, and does nothing."""

    def __init__(self, folder: Path, answers: Sequence[Answer], *, control: bool) -> None:
        super().__init__(folder, control=control)
        self._answers = answers
        self.asked = 0

    async def switched(self, request: pb.SetOnlineRequest) -> AsyncIterator[Answer]:
        self.asked += 1
        for answer in self._answers:
            if isinstance(answer, bytes):
                yield answer
                continue
            whole = pb.SetOnlineResponse(request_id=request.request_id)
            whole.MergeFrom(answer)
            yield whole


def cpu(slot: int, *, online: bool = False) -> pb.Cpu:
    return pb.Cpu(number=slot, firmware_id=identity(slot), online=online)


#: Numbers that no kernel gives a CPU. Taken for a bit of a set, the last one is half a gigabyte.
BEYOND = (65536, 2**28, 2**32 - 1)


def beyond(slot: int, number: int = BEYOND[-1]) -> pb.Cpu:
    """The CPU of a slot, offline, with such a number."""
    return pb.Cpu(number=number, firmware_id=identity(slot))


def result(slot: int, status: Any, observed: pb.Cpu | None = None, seconds: float = 0.0) -> pb.SetOnlineResponse:
    """An answer for the CPU of a slot."""
    about = pb.CpuResult(firmware_id=identity(slot), status=status, observed=observed, seconds=seconds)
    return pb.SetOnlineResponse(result=about)


def both(status: Any, *, seconds: float = 0.0, observed: bool = True) -> list[pb.SetOnlineResponse]:
    """Two answers that, were they believed, would have both CPUs ejected."""
    return [result(slot, status, cpu(slot) if observed else None, seconds) for slot in (1, 2)]


#: What no agent may say of slots 1 and 2, which are to go offline: it is believed nothing, and asked again.
BROKEN: dict[str, Sequence[Answer]] = {
    "offline is confirmed for another slot's CPU": [result(0, DONE, cpu(0))],
    "offline is confirmed for a CPU that is not there": [result(9, DONE, cpu(9))],
    "what was observed is another CPU": [result(1, DONE, cpu(2)), result(2, DONE, cpu(1))],
    "one is confirmed twice in place of both": [result(1, DONE, cpu(1))] * 2,
    "done, and nothing was observed": both(DONE, observed=False),
    "absent, and yet observed": both(ABSENT),
    "a status that there is not": both(77),
    "no status": both(0),
    "it took less than no time": both(DONE, seconds=-1.0),
    "it took for ever": both(DONE, seconds=math.inf),
    "it took no number of seconds": both(DONE, seconds=math.nan),
    "answers to another request": [
        pb.SetOnlineResponse(request_id="00000000-1", result=answer.result) for answer in both(DONE)
    ],
    "an answer about nothing": [pb.SetOnlineResponse(), *both(DONE)],
    "arrived, and never asked for": [pb.SetOnlineResponse(arrived=cpu(9)), *both(DONE)],
    "what was observed has a number that no CPU has": [result(slot, DONE, beyond(slot)) for slot in (1, 2)],
    "arrived, with a number that no CPU has": [pb.SetOnlineResponse(arrived=beyond(1)), *both(DONE)],
    "numbers that no CPU has in the last word": [
        *both(ABSENT, observed=False),
        pb.SetOnlineResponse(final=pb.Snapshot(cpus=[beyond(1), beyond(2, BEYOND[0])])),
    ],
    "bytes that are no message": [b"\xff\xff\xff\xff", *both(DONE)],
    "two last words": [pb.SetOnlineResponse(final=pb.Snapshot())] * 2,
    "an identity of two CPUs in the last word": [
        *both(ABSENT, observed=False),
        pb.SetOnlineResponse(final=pb.Snapshot(cpus=[pb.Cpu(number=n, firmware_id="x") for n in (1, 2)])),
    ],
    "all done, without a word about any": [],
    "absent, though the last word shows them": [
        *both(ABSENT, observed=False),
        pb.SetOnlineResponse(final=pb.Snapshot(cpus=[cpu(1), cpu(2)])),
    ],
}


@pytest.mark.parametrize(("lie", "control"), [(lie, bool(place % 2)) for place, lie in enumerate(BROKEN)])
def test_an_answer_that_the_contract_forbids_confirms_nothing(vm: FakeVm, lie: str, control: bool) -> None:
    script = Says(vm.folder, BROKEN[lie], control=control)
    with Hostile(vm, script), command(vm, "unplug", "--slot", "1", "2") as process:
        until(lambda: script.asked >= 2)
        process.send_signal(signal.SIGINT)
        said = ended(vm, process)
    said.clean()
    assert said.peak < MOST_MEMORY
    assert (said.status, said.outcome, said.codes) == (4, "unknown", {"interrupted"}), said.stdout


@pytest.mark.parametrize("status", [DONE, ALREADY])
def test_an_answer_that_contradicts_what_it_observed_is_refused_by_name(vm: FakeVm, status: int) -> None:
    with Hostile(vm, Says(vm.folder, [result(1, status, cpu(1, online=True))], control=True)):
        said = run(vm, "unplug", "--slot", "1", timeout=20)
    assert (said.status, said.outcome, said.codes) == (3, "refused", {"agent-inconsistent"})


def test_a_refusal_that_was_none_takes_no_cpu_away(vm: FakeVm) -> None:
    with Hostile(vm, Says(vm.folder, [result(1, REFUSED, cpu(1))], control=True)):
        said = run(vm, "unplug", "--slot", "1", timeout=20)
    assert said.status in (1, 3, 6)
    assert said.outcome != "done"
    assert said.codes == {"agent-inconsistent"}


# --- lies about the whole guest ---------------------------------------------------------------------------------------


class Lists(Script):
    """Shows these CPUs, whatever there are."""

    def __init__(self, folder: Path, cpus: Sequence[pb.Cpu], *, control: bool = True) -> None:
        super().__init__(folder, control=control)
        self._shown = cpus

    def cpus(self) -> list[pb.Cpu]:
        return list(self._shown)


@pytest.mark.parametrize("control", [True, False])
def test_two_cpus_of_one_identity_are_nobodys_word(vm: FakeVm, control: bool) -> None:
    twins = [pb.Cpu(number=n, firmware_id=identity(1), online=False) for n in (1, 2)]
    with Hostile(vm, Lists(vm.folder, [cpu(0, online=True), *twins], control=control)):
        listed, unplugged = run(vm, "list"), run(vm, "unplug", "--slot", "1")
    assert (listed.status, listed.codes) == (0, {"agent-bad-message"})
    assert {slot["state"] for slot in listed.json["slots"][:3]} == {"unknown"}
    assert (unplugged.status, unplugged.codes) == (5, {"agent-bad-message"})


@pytest.mark.parametrize(("number", "control"), [(number, bool(place % 2)) for place, number in enumerate(BEYOND)])
def test_a_number_that_no_kernel_gives_a_cpu_is_nobodys_word_and_takes_no_memory(
    vm: FakeVm, number: int, control: bool
) -> None:
    shown = [cpu(0, online=True), cpu(1, online=True), pb.Cpu(number=number, firmware_id=identity(2), online=True)]
    with Hostile(vm, Lists(vm.folder, shown, control=control)):
        listed = run(vm, "list")
        ended = [run(vm, *words) for words in (("unplug", "1"), ("plug", "1"), ("offline", "2"), ("scale", "2"))]
    assert (listed.status, listed.codes) == (0, {"agent-bad-message"})
    assert {(said.status, *said.codes) for said in ended} == {(5, "agent-bad-message")}
    assert max(said.peak for said in (listed, *ended)) < MOST_MEMORY


class Watched(Script):
    """Watched, it shows a CPU with a number that no kernel gives one."""

    said = 0

    async def watched(self, request: pb.WatchRequest) -> AsyncIterator[Answer]:
        self.said += 1
        yield pb.WatchResponse(request_id=request.request_id, snapshot=pb.Snapshot(cpus=[beyond(1)]))
        await asyncio.Event().wait()


def test_a_number_that_no_kernel_gives_a_cpu_in_a_watch_takes_no_memory_and_nothing_of_it_is_shown(vm: FakeVm) -> None:
    script = Watched(vm.folder)
    with Hostile(vm, script):
        said = run(vm, "watch", timeout=3)
    said.clean()
    assert said.status == 0
    assert script.said
    assert said.peak < MOST_MEMORY
    assert str(BEYOND[-1]).encode() not in said.stdout


def test_cpus_that_qemu_does_not_have_are_no_slots_and_leave_the_count_open(vm: FakeVm) -> None:
    made_up = [cpu(slot, online=True) for slot in range(3)] + [cpu(9, online=True), cpu(4000, online=True)]
    with Hostile(vm, Lists(vm.folder, made_up)):
        listed = run(vm, "list").json
        goal = run(vm, "plan", "scale", "3").json
        offline = run(vm, "offline", "9")
    assert listed["slots"][9]["state"] == "empty"
    assert (listed["vm"]["online_vcpus"], listed["vm"]["plugged_vcpus"]) == (None, 3)
    assert listed["unexplained_guest_cpus"] == [9, 4000]
    assert goal["steps"] == []
    assert offline.status == 3


class Eager(Script):
    """Says at once that whatever it is to bring online has come and is online."""

    async def switched(self, request: pb.SetOnlineRequest) -> AsyncIterator[Answer]:
        for place, name in enumerate(request.firmware_ids):
            seen = pb.Cpu(number=100 + place, firmware_id=name, online=request.online)
            about = pb.CpuResult(firmware_id=name, status=DONE, observed=seen)
            yield pb.SetOnlineResponse(request_id=request.request_id, result=about)


def test_online_is_not_done_while_qemu_has_no_such_cpu(vm: FakeVm) -> None:
    with Hostile(vm, Eager(vm.folder)):
        vm.steer.rule("before:device_add", "fail", **{"class": "GenericError", "desc": "no"})
        refused = run(vm, "plug", "--slot", "5", timeout=20)
        rule = vm.steer.rule("before:device_add", "mute")
        unknown = run(vm, "plug", "--slot", "6", timeout=10)
        assert vm.steer.wait(rule) == 1
    assert (refused.status, refused.outcome) == (3, "refused")
    assert (unknown.status, unknown.outcome, unknown.codes) == (4, "unknown", {"add-pending"})


# --- stalls -----------------------------------------------------------------------------------------------------------


class Mute(Script):
    """Answers these calls, and no others."""

    def __init__(self, folder: Path, *calls: str, control: bool = True) -> None:
        super().__init__(folder, control=control)
        self._calls = calls

    async def hello(self, request: pb.HelloRequest) -> Answer:
        if "hello" not in self._calls:
            await asyncio.Event().wait()
        return super().hello(request)

    async def listed(self, request: pb.ListCpusRequest) -> Answer:
        if "list" not in self._calls:
            await asyncio.Event().wait()
        return super().listed(request)

    async def switched(self, request: pb.SetOnlineRequest) -> AsyncIterator[Answer]:
        await asyncio.Event().wait()
        yield b""


@pytest.mark.parametrize(
    ("calls", "control", "status", "codes"),
    [
        ((), True, 5, {"agent-slow"}),
        (("hello",), True, 5, {"agent-slow"}),
        (("hello", "list"), True, 4, {"offline-pending"}),
    ],
)
def test_silence_costs_the_time_that_was_given_and_is_called_by_its_name(
    vm: FakeVm, calls: tuple[str, ...], control: bool, status: int, codes: set[str]
) -> None:
    with Hostile(vm, Mute(vm.folder, *calls, control=control)):
        said = run(vm, "unplug", "--slot", "1", timeout=10)
    said.clean()
    assert (said.status, said.codes) == (status, codes), said.stdout


class Halves(GuestLink):
    """A guest that says the first bytes of its session and then no more."""

    left = 400

    def _write(self, data: bytes) -> None:
        super()._write(data[: self.left])
        self.left = max(0, self.left - len(data))


def test_half_a_message_is_waited_for_no_longer_than_a_whole_one(vm: FakeVm) -> None:
    with Hostile(vm, Script(vm.folder), link=Halves):
        said = run(vm, "unplug", "--slot", "1", timeout=10)
    assert (said.status, len(said.codes)) == (5, 1), said.stdout
    assert said.codes <= {"agent-slow", "no-answer"}  # by how far the greeting came when its time was over


def test_a_guest_that_accepts_and_never_reads_again_does_not_hold_the_command(vm: FakeVm) -> None:
    with Stranger(vm) as stranger, command(vm, "--timeout", "10", "unplug", "--slot", "1") as process:
        stranger.write(encode(Frame(Kind.ACCEPT, stranger.opened(), 0, b"instance")))
        said = ended(vm, process)
    # By the time that is left it may have been asked once more, and then it did not even accept.
    assert said.status == 5
    assert said.codes <= {"agent-slow", "no-answer"}, said.stdout


# --- what was said once ----------------------------------------------------------------------------------------------


class Recorder(GuestLink):
    """Keeps what the guest sends; says first, in each session, what is in ``before``."""

    sent = b""
    before = b""

    def _write(self, data: bytes) -> None:
        type(self).sent += data
        super()._write(self.before + data)


class Confirms(Script):
    """Confirms whatever goes offline, without doing it."""

    silent = False

    async def switched(self, request: pb.SetOnlineRequest) -> AsyncIterator[Answer]:
        if self.silent:
            await asyncio.Event().wait()
        for name in request.firmware_ids:
            about = pb.CpuResult(firmware_id=name, status=DONE, observed=pb.Cpu(number=1, firmware_id=name))
            yield pb.SetOnlineResponse(request_id=request.request_id, result=about)


@pytest.mark.parametrize("renewed", [False, True], ids=["as it was", "under the new session's token"])
def test_what_an_older_session_confirmed_is_no_confirmation_when_it_is_said_again(vm: FakeVm, renewed: bool) -> None:
    Recorder.sent = Recorder.before = b""
    script = Confirms(vm.folder)
    with Hostile(vm, script, link=Recorder):
        # A confirmation that nothing is deleted for: the command that asks for it has no business with QEMU.
        assert run(vm, "offline", "1", timeout=20).status == 0
    old = Recorder.sent
    assert identity(1).encode() in old
    if not renewed:
        script.silent = True
        Recorder.before = old
        with Hostile(vm, script, link=Recorder):
            said = run(vm, "unplug", "--slot", "1", timeout=10)
        assert said.status in (4, 5), said.stdout
        return
    payloads = [frame.payload for frame in Decoder().feed(old) if frame.kind == Kind.DATA]
    with Stranger(vm) as stranger, command(vm, "--timeout", "10", "unplug", "--slot", "1") as process:
        token = stranger.opened()
        frames = [Frame(Kind.ACCEPT, token, 0, b"instance")]
        frames += [Frame(Kind.DATA, token, number, payload) for number, payload in enumerate(payloads)]
        stranger.write(b"".join(map(encode, frames)))
        said = ended(vm, process)
    assert said.status in (4, 5), said.stdout
