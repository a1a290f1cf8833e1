# SPDX-License-Identifier: Apache-2.0
"""How a ``vcpuctl`` process ended, for tests of every kind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ended:
    """The exit status, and what was said. ``json`` is ``stdout``, if that is one document."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.stdout)
        return document

    @property
    def outcome(self) -> str:
        """The operation's outcome, or the error's code."""
        document = self.json
        return str(document["error"]["code"] if "error" in document else document["outcome"])

    @property
    def slots(self) -> dict[int, dict[str, Any]]:
        """The document's slots by index."""
        return {slot["slot"]: slot for slot in self.json["slots"]}

    def code(self, slot: int) -> str | None:
        """The code of the reason for one slot's outcome."""
        reason = self.slots[slot]["reason"]
        return None if reason is None else str(reason["code"])
