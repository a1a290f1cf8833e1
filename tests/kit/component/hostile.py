# SPDX-License-Identifier: Apache-2.0
"""The real ``vcpuctl`` against what only looks like an agent: what it said, byte for byte, and what it cost."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import documents
from kit.fakes.qemu import FakeVm
from kit.until import DEADLINE

_PROGRAM = Path(__file__).resolve().parents[2] / "kit/fakes/vcpuctl.py"
#: Seconds after its own --timeout by which a command must have ended, on a busy machine.
GRACE = DEADLINE
#: Bytes of memory that no guest can make a command exceed.
MOST_MEMORY = 150e6
#: What can stand in a guest's way, or in the user's, and none of it may come out: C0 but newline, DEL, C1, and the
#: characters that turn the direction of writing (Unicode, Bidi_Control).
FORBIDDEN = frozenset(
    (
        *range(0x0A),
        *range(0x0B, 0x20),
        *range(0x7F, 0xA0),
        0x061C,
        *range(0x200E, 0x2010),
        *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
    )
)


@dataclass(frozen=True)
class Said:
    """How a command ended, what it wrote, and the most memory (bytes) that it had."""

    status: int
    stdout: bytes
    stderr: bytes
    peak: int

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.stdout)
        return document

    @property
    def codes(self) -> set[str]:
        """Of every reason: the error's, the operation's, the slots'."""
        document = self.json
        whole = [document.get("error"), document.get("reason"), document.get("agent_trouble")]
        reasons = whole + [slot.get("reason") for slot in document.get("slots", [])]
        return {str(reason["code"]) for reason in reasons if reason}

    @property
    def outcome(self) -> str:
        """The operation's, or "error"."""
        return str(self.json.get("outcome", "error"))

    def clean(self) -> None:
        """Nothing of it can steer a terminal, and no error of ours got out unformed."""
        for written in (self.stdout, self.stderr):
            text = written.decode("utf-8")
            assert not [hex(ord(c)) for c in text if ord(c) in FORBIDDEN], text
            assert "Traceback" not in text, text


@contextlib.contextmanager
def command(vm: FakeVm, *words: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command under way; gone at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-P", str(_PROGRAM), "--qmp", str(vm.qmp), "-o", "json", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "XDG_RUNTIME_DIR": str(vm.folder), "PEAK": str(vm.folder / "peak"), **environment},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def run(vm: FakeVm, *words: str, timeout: float = 2.0, **environment: str) -> Said:
    """A command from start to end, which it has within ``timeout`` seconds and a grace, whatever the guest does."""
    with command(vm, "--timeout", str(timeout), *words, **environment) as process:
        return ended(vm, process, timeout + GRACE)


def ended(vm: FakeVm, process: subprocess.Popen[bytes], within: float = GRACE) -> Said:
    """How it ended, within so many seconds from now."""
    stdout, stderr = process.communicate(timeout=within)
    documents.check_output(stdout, foreign=True)
    return Said(process.returncode, stdout, stderr, int((vm.folder / "peak").read_text(encoding="ascii")))
