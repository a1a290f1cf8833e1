# SPDX-License-Identifier: Apache-2.0
"""What ``vcpuctl doctor`` says, one thing at a time."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """How much a finding matters: a problem makes operations fail, a warning may."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """One thing that was looked at. ``code`` is stable; ``fix`` says what to do, empty if nothing is to be done."""

    level: Level
    code: str
    text: str
    fix: str = ""
