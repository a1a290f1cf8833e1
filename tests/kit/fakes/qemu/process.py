# SPDX-License-Identifier: Apache-2.0
"""The fake as a process, and the test's hand on it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from kit.fakes.qemu.errors import QmpError
from kit.until import DEADLINE

_TESTS = Path(__file__).resolve().parents[3]
#: unshare(1). The child goes with it; who is not root gets the right to do this by being root in a namespace of users.
UNSHARE = ("unshare", *(() if os.geteuid() == 0 else ("--map-root-user",)), "--pid", "--fork", "--kill-child")


def _bind(folder: Path, inside: Path) -> tuple[str, ...]:
    """Words to go on after UNSHARE: what runs has ``folder`` as ``inside``, and nobody else has."""
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh", str(folder), str(inside))


#: What follows this word is not for the fake. QEMU takes what stands before it for options and their arguments.
DISK = "disk.img"


def python_as(folder: Path, name: str) -> str:
    """Python by that name. It does not find what is installed for this one: PYTHONPATH has to name it."""
    program = folder / name
    if not program.is_symlink():
        program.symlink_to(sys.executable)
    return str(program)


class Steer:
    """A blocking QMP client of the steering socket; every call has a deadline."""

    def __init__(self, path: Path, timeout: float = DEADLINE) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(timeout)
        self._sock.connect(str(path))
        self._file = self._sock.makefile("rb")
        self.greeting: Mapping[str, Any] = json.loads(self._file.readline())
        self.events: list[Mapping[str, Any]] = []
        self.call("qmp_capabilities")

    def call(self, command: str, /, **arguments: Any) -> Any:
        """The answer; QmpError if it is an error, EOFError if the fake is gone. ``a_b`` stands for ``a-b``."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._sock.sendall(json.dumps({"execute": command, "arguments": named}).encode())
        while True:
            message = self._message()
            if "event" in message:
                self.events.append(message)
            elif "error" in message:
                raise QmpError(message["error"]["class"], message["error"]["desc"])
            else:
                return message["return"]

    def _message(self) -> Any:
        line = self._file.readline()
        if not line:
            raise EOFError("the fake is gone")
        return json.loads(line)

    def wait_event(self, name: str) -> Mapping[str, Any]:
        """The next event of that name, kept or yet to come."""
        while True:
            for place, event in enumerate(self.events):
                if event["event"] == name:
                    return self.events.pop(place)
            self.events.append(self._message())

    def rule(self, at: str, do: str, **params: Any) -> int:
        """Put a rule in force (see ``kit.fakes.qemu.faults``); its number."""
        number = self.call("x-fake-rule", at=at, do=do, **params)
        assert isinstance(number, int)
        return number

    def release(self, rule: int) -> None:
        """Let go on what the rule holds."""
        self.call("x-fake-release", rule=rule)

    def wait(self, rule: int, seconds: float = 60.0) -> int:
        """Wait until the rule has applied; how often it has."""
        hits = self.call("x-fake-wait", rule=rule, seconds=seconds)
        assert isinstance(hits, int)
        return hits

    def commands(self, name: str | None = None) -> list[Mapping[str, Any]]:
        """The commands that all monitors received, in order: ``time`` (monotonic), ``command``, ``arguments``."""
        log: list[Mapping[str, Any]] = self.call("x-fake-log")
        return [entry for entry in log if name is None or entry["command"] == name]

    def close(self) -> None:
        """Let the next one steer."""
        self._file.close()
        self._sock.close()


class FakeProcess:
    """``python -m kit.fakes.qemu`` in ``folder`` (a short path), from entry to exit of the context.

    ``apart``: in a PID namespace of its own, as in a container; ``inside``: where it has the folder there, an empty one
    here. ``words``: what its command line says as a QEMU's, whose name it has then.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        stderr: int | None = None,
        apart: bool = False,
        inside: Path | None = None,
        words: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self._prefix = [*(UNSHARE if apart or inside else ()), *(_bind(folder, inside) if inside else ())]
        self._inside = inside or folder
        self._stderr = stderr
        self._options = options
        self._words = words
        self.process: subprocess.Popen[bytes]
        self.steer: Steer

    @property
    def qmp(self) -> Path:
        """The monitor for whoever is tested."""
        return self.folder / "qmp"

    @property
    def agent(self) -> Path:
        """The agent port's socket."""
        return self.folder / "agent"

    def __enter__(self) -> Self:
        program = python_as(self.folder, "qemu-system-x86_64") if self._words else sys.executable
        words = [DISK, *self._words] if self._words else []
        self.process = subprocess.Popen(
            [*self._prefix, program, "-m", "kit.fakes.qemu", "--dir", str(self._inside), *self._options, *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_TESTS), *sys.path])},
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != b"ready\n":
            self.process.stdout.close()
            raise RuntimeError(f"the fake did not start (status {self.process.wait(10)})")
        self.steer = Steer(self.folder / "steer")
        return self

    def __exit__(self, *_exc: object) -> None:
        self.steer.close()
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
