# SPDX-License-Identifier: Apache-2.0
"""Processes of vcpuctl, of this tree and of an older one, and what they take of the machine."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kit.bench.real import ROOT
from kit.fakes.fleet import FakeFleet

#: The commit before there were readers beside writers and many VMs in one process.
OLD = "e13c246"
#: vcpuctl as it is, whose locks lie where LOCKS says: what others have left in root's own directory is to cost nothing.
#: {0} is the module that knows the directory.
_START = """
import os, sys
from pathlib import Path
import vcpu_host.{0}
vcpu_host.{0}.directory = lambda: Path(os.environ["LOCKS"])
from vcpu_host.cli.main import main
sys.exit(main())
"""
_NOW = ("-c", _START.format("local.directory"))
_THEN = ("-c", _START.format("runtime"))
_TICKS = os.sysconf("SC_CLK_TCK")


class NotDoneError(Exception):
    """What is to be measured did not succeed."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of the processors, for all processes of vcpuctl together, and of the wall."""

    cpu: float
    wall: float


@contextmanager
def old_tree() -> Iterator[Path]:
    """Yield the sources of the older vcpuctl."""
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", OLD, "host/src", "proto/src"], check=True, capture_output=True
    ).stdout
    with tempfile.TemporaryDirectory(prefix="vo", dir="/tmp") as folder:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)


def environment(fleet: FakeFleet, old: Path | None = None) -> dict[str, str]:
    """Return what a vcpuctl gets: locks and records of its own, or the older one's sources, too."""
    found = {**fleet.environment, "LOCKS": str(fleet.folder / "locks")}
    if old is not None:
        found["PYTHONPATH"] = f"{old}/host/src:{old}/proto/src"
    return found


@contextmanager
def started(fleet: FakeFleet, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A vcpuctl of this tree that stays, ended with the block; what it says is lost."""
    command = [sys.executable, "-P", *_NOW, *words]
    with open(os.devnull, "wb") as nowhere:
        process = subprocess.Popen(command, env=environment(fleet), stdout=nowhere, stderr=nowhere)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def run(fleet: FakeFleet, *words: str, old: Path | None = None, ends_with: Sequence[int] = (0,)) -> Cost:
    """Run a vcpuctl to its end. Raise NotDoneError if it ends with another status."""
    return run_python(environment(fleet, old), *(_NOW if old is None else _THEN), *words, ends_with=ends_with)


def run_python(environment: dict[str, str], *words: str, ends_with: Sequence[int] = (0,)) -> Cost:
    """Run Python with these words. Raise NotDoneError if it ends with another status."""
    return run_measured([sys.executable, "-P", *words], environment, ends_with)[1]


def run_measured(
    argv: Sequence[str], environment: Mapping[str, str] | None = None, ends_with: Sequence[int] = (0,)
) -> tuple[str, Cost]:
    """Run a command; what it wrote, stderr too, and its cost. Raise NotDoneError if it ends with another status."""
    with tempfile.TemporaryFile("w+") as written:
        began = time.monotonic()
        process = subprocess.Popen(argv, env=environment, stdout=written, stderr=written)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        written.seek(0)
        said = written.read()
        if process.returncode not in ends_with:
            raise NotDoneError(f"{' '.join(argv)}: status {process.returncode}: {said[-2000:]}")
    return said, Cost(used.ru_utime + used.ru_stime, wall)


def cpu_of(pid: int) -> float:
    """Return how many seconds of the processors the process has had (proc_pid_stat(5), utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_of(pid: int) -> int:
    """Return how many bytes of memory the process has now (proc_pid_status(5), VmRSS)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
