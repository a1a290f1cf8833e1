# SPDX-License-Identifier: Apache-2.0
"""How much this host's own tasks wait for its CPUs (PSI)."""

from __future__ import annotations

from pathlib import Path

_FILE = Path("/proc/pressure/cpu")


def cpu_pressure(file: Path = _FILE) -> float | None:
    """Return the share of the last ten seconds in which some task waited; None where the kernel does not tell."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    for line in lines:
        kind, *fields = line.split()
        for name, _, value in (field.partition("=") for field in fields):
            if kind == "some" and name == "avg10":
                return float(value) / 100
    return None
