# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: INP001  (a module for the findings' scripts, of no package)
"""The least that a finding needs: start a QEMU whose guest never runs, ask its monitor, say what was seen."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

#: The script's own temporary folder, in which the unpacked roots lie.
WORK = os.environ["WORK"]
#: Seconds within which QEMU has to open its monitor, to answer, and to end.
LIMIT = 30.0
#: What a stand-in for QEMU says first.
GREETING = {"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 0}, "package": ""}, "capabilities": []}}
#: A QEMU that has nothing that it was not told, under TCG, whose guest does not run.
_BARE = ("-nodefaults", "-display", "none", "-accel", "tcg", "-S")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"

# What stops the script when its time is over leaves through `with` and `finally`, which end the QEMUs.
signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))


def program(root: str, name: str) -> list[str]:
    """The words that run a program of that unpacked Debian root by the root's own loader."""
    libraries = os.path.join(WORK, root, _LIBRARIES)
    return [f"{libraries}/ld-linux-x86-64.so.2", "--library-path", libraries, os.path.join(WORK, root, "usr/bin", name)]


def emulator(root: str, target: str) -> list[str]:
    """The words that start the QEMU of that root."""
    firmware = [word for name in ("qemu", "seabios") for word in ("-L", os.path.join(WORK, root, "usr/share", name))]
    return [*program(root, f"qemu-system-{target}"), *firmware, *_BARE]


def refusal(root: str, target: str, *arguments: str) -> str:
    """The first thing that such a QEMU says about these arguments before it ends; one that does not end is ended."""
    argv = [*emulator(root, target), *arguments]
    try:
        ended = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return "none: it runs"
    said = [line for line in ended.stderr.splitlines() if "warning:" not in line]
    return f"status {ended.returncode}, {said[0].rpartition(': ')[2] if said else 'no word'}"


class Qemu:
    """The QEMU of an unpacked Debian root with a monitor on a unix socket (see ``emulator``)."""

    def __init__(self, root: str, target: str, *arguments: str) -> None:
        self.folder = tempfile.mkdtemp(dir=WORK)
        path = os.path.join(self.folder, "qmp")
        monitor = ("-qmp", f"unix:{path},server=on,wait=off")
        #: What it says on standard error is no part of a finding.
        self.process = subprocess.Popen(
            [*emulator(root, target), *monitor, *arguments], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self.events: list[dict[str, Any]] = []
            self._monitor = socket.socket(socket.AF_UNIX)
            self._monitor.settimeout(LIMIT)
            until(lambda: self._connected(path), "QEMU opens its monitor")
            self._lines = self._monitor.makefile("r", encoding="utf-8")
            greeting = json.loads(self._lines.readline())["QMP"]["version"]["qemu"]
            self.version = ".".join(str(greeting[part]) for part in ("major", "minor", "micro"))
            self.ask("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Qemu:  # noqa: PYI034  (Self is of Python 3.11)
        return self

    def __exit__(self, *_reason: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._monitor.close()
        self.process.terminate()
        try:
            self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _connected(self, path: str) -> bool:
        if self.process.poll() is not None:
            raise SystemExit(f"QEMU ended at its start with status {self.process.returncode}")
        try:
            self._monitor.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def ask(self, command: str, **arguments: Any) -> Any:
        """What the command returns; of an error its words. Underscores in names of arguments stand for hyphens."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._monitor.sendall(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        while True:
            try:
                line = self._lines.readline()
            except ConnectionResetError:
                line = ""
            if not line:
                raise SystemExit(f"QEMU hung up at {command}")
            answer: dict[str, Any] = json.loads(line)
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                return "error: " + answer["error"]["desc"]
            else:
                return answer["return"]

    def plug(self, name: str, slot: int) -> Any:
        """Ask for a CPU in the slot with that number, by the properties that QEMU itself gives for it."""
        entry = self.slots()[slot]
        return self.ask("device_add", driver=entry["type"], id=name, **entry["props"])

    def slots(self) -> list[dict[str, Any]]:
        """All slots, the lowest first: QEMU answers with the highest first."""
        answer: list[dict[str, Any]] = self.ask("query-hotpluggable-cpus")
        return answer[::-1]

    def filled(self) -> list[int]:
        """The numbers of the slots that have a CPU."""
        return [number for number, slot in enumerate(self.slots()) if "qom-path" in slot]


def until(condition: Callable[[], Any], what: str, limit: float = LIMIT) -> Any:
    """Wait until the condition gives something true, and give that; after the limit the script fails."""
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise SystemExit(f"waited {limit:.0f} s in vain: {what}")
        select.select([], [], [], 0.05)


class Verdict:
    """Says each thing that is seen, and counts those that are not as they were when the finding was written."""

    def __init__(self) -> None:
        self.changed = 0

    def saw(self, what: str, seen: object, expected: object) -> None:
        """``expected`` is what was seen then: a value, or a compiled pattern that a text has to contain."""
        same = bool(expected.search(str(seen))) if isinstance(expected, re.Pattern) else seen == expected
        was = "" if same else f"   <-- was: {getattr(expected, 'pattern', expected)}"
        sys.stdout.write(f"{what}: {seen}{was}\n")
        sys.stdout.flush()
        self.changed += not same

    def end(self) -> None:
        """End the script if something has changed, with a status that says so."""
        if self.changed:
            sys.exit(f"CHANGED: {self.changed} of the things above are not as they were")
        sys.stdout.write("as it was: the finding holds\n")
