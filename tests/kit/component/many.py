# SPDX-License-Identifier: Apache-2.0
"""The real ``vcpuctl`` as a process that is given many VMs, and how it ended for each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.ended import Ended
from kit.fakes.fleet import FakeFleet

from .cli import SOON, Vcpuctl

_PROGRAM = Path(__file__).resolve().parents[2] / "kit/fakes/vcpuctl.py"


@dataclass(frozen=True)
class EndedForEach(Ended):
    """How it ended for all, and for each VM by its name."""

    @property
    def vms(self) -> dict[str, dict[str, Any]]:
        """What the document says of each VM."""
        return {vm["vm"]: vm for vm in self.json["vms"]}

    @property
    def statuses(self) -> dict[str, int]:
        """Each VM's own exit status."""
        return {name: vm["exit_status"] for name, vm in self.vms.items()}

    def outcome_of(self, name: str) -> str:
        """An operation's outcome, or the error's code."""
        vm = self.vms[name]
        return str(vm["document"]["outcome"] if vm["error"] is None else vm["error"]["code"])

    def codes_of(self, name: str) -> set[str]:
        """The codes of all reasons: the error's, the operation's, the slots'."""
        vm = self.vms[name]
        document = vm["document"] or {}
        reasons = [vm["error"], document.get("reason"), *(slot["reason"] for slot in document.get("slots", []))]
        return {str(reason["code"]) for reason in reasons if reason is not None}


class ForMany(Vcpuctl):
    """One command under way that finds the VMs of the fleet by their names; gone at the end of its block."""

    def __init__(
        self,
        fleet: FakeFleet,
        *words: str,
        output: str = "json",
        stdin: str = "",
        environment: Mapping[str, str] = {},
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(_PROGRAM), "-o", output, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**fleet.environment, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        )
        assert self.process.stdin is not None
        self.process.stdin.write(stdin)
        self.process.stdin.close()
        self.process.stdin = None

    def ends_for_each(self, within: float = SOON) -> EndedForEach:
        """How it ended, within so many seconds from now."""
        ended = self.ends(within)
        return EndedForEach(ended.status, ended.stdout, ended.stderr)


def for_many(
    fleet: FakeFleet,
    *words: str,
    output: str = "json",
    stdin: str = "",
    within: float = SOON,
    environment: Mapping[str, str] = {},
) -> EndedForEach:
    """A command from start to end."""
    with ForMany(fleet, *words, output=output, stdin=stdin, environment=environment) as command:
        return command.ends_for_each(within)
