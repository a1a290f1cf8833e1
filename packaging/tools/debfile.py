# SPDX-License-Identifier: Apache-2.0
"""Reads a built .deb, by Debian's own tools. For the packages' tests."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Run(Protocol):
    """Runs a program and gives its stdout."""

    def __call__(self, *command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
        """Raise AssertionError with what the program said if it fails."""


def call(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a program, give its stdout. Raises AssertionError with what it said if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=cwd, env=env)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Deb:
    """One built package."""

    path: Path

    def field(self, name: str) -> str:
        """A field of its control file, "" if it has none."""
        return call("dpkg-deb", "--field", str(self.path), name).strip()

    def files(self) -> dict[str, str]:
        """Its files: path from the root -> mode as ls prints it."""
        listed = {}
        for line in call("dpkg-deb", "--contents", str(self.path)).splitlines():
            mode, _owner, _size, _day, _time, name = line.split(maxsplit=5)
            if not mode.startswith("d"):
                listed[name.removeprefix(".")] = mode
        return listed

    def extract(self, to: Path) -> Path:
        """Unpack its files below ``to``."""
        call("dpkg-deb", "--extract", str(self.path), str(to))
        return to
