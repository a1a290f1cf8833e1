# SPDX-License-Identifier: Apache-2.0
"""Whatever a guest writes into whatever string, it steers no terminal, forges no line and is no markup."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from kit.component.hostile import Said, run
from kit.fakes.hostile import Answer, Hostile, Script
from kit.fakes.qemu import FakeVm
from vcpu_proto.link import EndCode, GuestLink
from vcpu_proto.v1 import agent_pb2 as pb

#: Begins every line that a guest tries to forge.
FORGED = "FORGED"
#: Colour, cursor, a link (OSC 8), the clipboard (OSC 52), C1 (CSI and OSC in one character each), writing backwards,
#: line ends of every kind, NUL, DEL, and what a library for tables may take for markup. 63 bytes at most a piece.
NASTY = (
    "\x1b[31m\x1b[2J\x1b[1;1H",
    "\x1b]8;;http://x/\x07y\x1b]8;;\x1b\\",
    "\x1b]52;c;aGk=\x07\x1bP1q\x1b\\\x1bc",
    "\x9b31m\x9d52;c;aGk=\x9c\x85\x84\x90",
    "\u202e\u202a\u2066\u2067\u2069\u200e\u200f\u061c",
    f"a\n{FORGED}\r{FORGED}\x0b{FORGED}\x0c{FORGED}",
    f"\u2028{FORGED}\u2029{FORGED}\x85{FORGED}",
    "a\0b\x7fc\x08\x08\x08\x0e\x0f\t",
    "[bold red]x[/nope] [link=http://x/]y[/link] :boom: [",
)
EVERYTHING = "".join(NASTY)


@pytest.fixture(scope="module")
def vm() -> Iterator[FakeVm]:
    """Two CPUs from boot on, and no agent yet."""
    with (
        tempfile.TemporaryDirectory(prefix="vh", dir="/tmp") as name,
        FakeVm(Path(name), "--smp", "2", agent=False) as vm,
    ):
        yield vm


def nasty(message: Message, keep: tuple[str, ...], text: str) -> None:
    """Put the text into every string of the message and of all inside it, but those of these names."""
    for about in message.DESCRIPTOR.fields:
        value: Any = getattr(message, about.name)
        if about.name in keep:
            continue
        if about.type == FieldDescriptor.TYPE_STRING:
            if isinstance(value, str):
                setattr(message, about.name, text)
            else:
                value.append(text)
        elif about.type == FieldDescriptor.TYPE_MESSAGE:
            for inside in [value] if isinstance(value, Message) else value:
                nasty(inside, keep, text)


class Writer(Script):
    """Honest in all but its words. ``code`` is what it calls its refusals."""

    def __init__(self, folder: Path, text: str, *, code: str = "hotplug-disabled", control: bool = True) -> None:
        super().__init__(folder, control=control)
        self.text = text
        self.code = code

    def hello(self, request: pb.HelloRequest) -> Answer:
        answer: Any = super().hello(request)
        answer.environment.SetInParent()
        nasty(answer, ("arch", "capabilities", "platform"), self.text)
        return answer

    def reason(self) -> pb.Reason:
        return pb.Reason(code=self.code, text=self.text, errno=16, errno_name=self.text[:20])

    def cpus(self) -> list[pb.Cpu]:
        found = super().cpus()
        for cpu in found:
            cpu.cannot_offline.CopyFrom(self.reason())
            cpu.cannot_online.CopyFrom(self.reason())
        return [*found, pb.Cpu(number=77, firmware_id=self.text, online=True)]

    def snapshot(self) -> pb.Snapshot:
        whole = super().snapshot()
        whole.boot_id = whole.instance_id = self.text
        return whole

    async def switch(self, name: str, request: pb.SetOnlineRequest) -> pb.CpuResult:
        seen = pb.Cpu(number=1, firmware_id=name, online=not request.online)
        return pb.CpuResult(firmware_id=name, status=pb.CpuResult.STATUS_REFUSED, reason=self.reason(), observed=seen)


def harmless(said: Said, *, document: bool) -> None:
    """Nothing to steer by, and no line begins as the guest would have it. Escapes show that its words were there."""
    said.clean()
    for written in (said.stdout, said.stderr):
        assert not [line for line in written.decode().splitlines() if line.startswith(FORGED)]
    if document:
        assert len(said.stdout.splitlines()) == 1


@pytest.mark.parametrize("text", NASTY, ids=lambda text: text.encode("unicode_escape").decode()[:12])
def test_no_word_of_a_guest_steers_what_shows_it(vm: FakeVm, text: str) -> None:
    with Hostile(vm, Writer(vm.folder, text)):
        table = run(vm, "-o", "table", "list")
        harmless(table, document=False)
        escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        assert f"Linux {escaped}" in table.stdout.decode()
        assert table.status == 0


@pytest.mark.parametrize(("output", "form"), [("table", "text"), ("json", "json")])
def test_no_command_log_or_document_lets_a_guests_words_through(vm: FakeVm, output: str, form: str) -> None:
    text = NASTY[0] + NASTY[5] + NASTY[8] if form == "text" else NASTY[1] + NASTY[3] + NASTY[6]
    is_json = output == "json"

    class Free(Writer):
        """Can take its CPUs offline, or so it says. ``strange``: and it shows one of which QEMU knows nothing."""

        strange = False

        def cpus(self) -> list[pb.Cpu]:
            found = super().cpus()[: None if self.strange else -1]
            for cpu in found:
                cpu.ClearField("cannot_offline")
            return found

        def hello(self, request: pb.HelloRequest) -> Answer:
            answer = super().hello(request)
            for name in ("agent_version", "boot_id", "event_source", "instance_id"):
                setattr(answer, name, self.text[:30])
            answer.environment.smt_control = answer.environment.clocksource = self.text[:30]
            return answer

        def snapshot(self) -> pb.Snapshot:
            whole = super().snapshot()
            whole.boot_id = whole.instance_id = self.text[:30]
            return whole

    with Hostile(vm, Free(vm.folder, text)):
        words = ("-o", output, "-vv", "--log-format", form)
        offline = run(vm, *words, "offline", "1", timeout=20)
        harmless(offline, document=is_json)
        assert offline.status == 3
        assert b"hotplug-disabled" in offline.stdout + offline.stderr
        harmless(run(vm, *words, "doctor"), document=is_json)
        harmless(run(vm, *words, "watch", timeout=1), document=False)
    Free.strange = True
    with Hostile(vm, Free(vm.folder, text)):
        offline = run(vm, *words, "offline", "1", timeout=20)
        harmless(offline, document=is_json)
        assert offline.status == 3
        assert b"unexplained" in offline.stdout + offline.stderr or b"no slot of QEMU explains" in offline.stdout
    with Hostile(vm, Writer(vm.folder, NASTY[5])):
        plan = run(vm, *words, "plan", "unplug", "--slot", "1")
        harmless(plan, document=is_json)
        assert plan.status == 3


class Aborts(GuestLink):
    """Ends its session with these words."""

    def _write(self, data: bytes) -> None:
        super()._write(data)
        if data[1:2] == b"\x13":
            self.end(EndCode.STOPPING, EVERYTHING)


class Rejects(Writer):
    """Puts its words where errors have theirs."""

    def part(self, **answer: Answer) -> Answer:  # type: ignore[override]
        if "ended" in answer:
            answer["ended"].rejected = EVERYTHING
        return super().part(**answer)


def test_the_words_of_a_refused_request_or_an_ended_session_are_no_better(vm: FakeVm) -> None:
    with Hostile(vm, Rejects(vm.folder, "x")):
        for output in ("table", "json"):
            said = run(vm, "-o", output, "-vv", "offline", "1", timeout=20)
            harmless(said, document=output == "json")
            assert said.status == 5
    with Hostile(vm, Script(vm.folder), link=Aborts):
        # gRPC may notice first that the stream is over, and then has words of its own.
        for _ in range(10):
            said = run(vm, "-o", "table", "list")
            harmless(said, document=False)
            if "stopping" in said.stdout.decode():
                break
        else:
            pytest.fail("the agent's words were never shown")


@pytest.mark.parametrize("field", ["code", "agent_version"])
def test_a_name_that_can_be_none_is_not_shown_at_all(vm: FakeVm, field: str) -> None:
    class Longer(Writer):
        def hello(self, request: pb.HelloRequest) -> Answer:
            answer: Any = Script.hello(self, request)
            answer.agent_version = "v" * 65 if field == "agent_version" else "v"
            return answer

    with Hostile(vm, Longer(vm.folder, "x", code=EVERYTHING if field == "code" else "c")):
        said = run(vm, "list")
    harmless(said, document=True)
    assert said.codes == {"agent-bad-message"}
    assert field.replace("_", ".", field == "code") in said.stdout.decode()


def test_a_terminal_without_the_guests_letters_shows_them_escaped(vm: FakeVm) -> None:
    with Hostile(vm, Writer(vm.folder, "Grüße")):
        said = run(vm, "-o", "table", "list", PYTHONIOENCODING="ascii")
    assert said.status == 0, said.stderr
    assert b"Gr\\xfc\\xdfe" in said.stdout


def test_on_a_real_terminal_what_comes_from_the_guest_is_no_control_either(vm: FakeVm) -> None:
    ours, theirs = pty.openpty()
    program = Path(__file__).resolve().parents[1] / "kit/fakes/vcpuctl.py"
    with Hostile(vm, Writer(vm.folder, NASTY[1] + NASTY[8][:30])):
        done = subprocess.run(
            [sys.executable, "-P", str(program), "--qmp", str(vm.qmp), "offline", "1"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            timeout=30,
            check=False,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"},
        )
    os.close(theirs)
    shown = os.read(ours, 1 << 16)
    os.close(ours)
    assert done.returncode == 3
    # Colours are ours; links, the clipboard and titles are nobody's.
    assert b"\x1b]" not in shown
    assert b"\\x1b]8;;http" in shown
