# SPDX-License-Identifier: Apache-2.0
"""What is seen of many VMs on the way."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest
from vcpu_host.cli.exitcodes import Exit
from vcpu_host.cli.fleet_progress import FleetProgress
from vcpu_host.cli.parser import build_parser
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.documents import of_reason

_WAITS = {"waits": {"reason": of_reason(Reason("agent-silent", Origin.AGENT, "it says nothing")), "seconds": 3.0}}


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _said(stderr: io.StringIO, happens: Callable[[FleetProgress], None], patch: pytest.MonkeyPatch, *words: str) -> str:
    patch.setattr(sys, "stderr", stderr)
    patch.setenv("TERM", "xterm")
    with FleetProgress(build_parser().parse_args([*words, "apply", "-"]), 3) as progress:
        happens(progress)
    return stderr.getvalue()


def _all(progress: FleetProgress) -> None:
    progress.hear("web1", {"progress": [1, 2, "slot 2: device_add"]})
    progress.hear("web2", _WAITS)
    progress.hear("web2", _WAITS)
    progress.hear("web3", {"holder": "17 vcpuctl plug"})
    progress.ended(Exit.DONE)
    progress.ended(Exit.REFUSED)


def test_a_terminal_has_one_line_with_how_many_have_ended_and_who_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = _said(_Terminal(), _all, monkeypatch).split("\r\x1b[K")
    assert drawn == [
        "",
        "0/3 VMs  web1: 1/2 slots  slot 2: device_add",
        "0/3 VMs  web2 waits for the guest agent: it says nothing",
        "0/3 VMs  web3 waits for another program that has this VM: 17 vcpuctl plug",
        "1/3 VMs",
        "2/3 VMs, 1 not done",
        "",
    ]


def test_elsewhere_it_is_said_once_for_each_vm_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _said(io.StringIO(), _all, monkeypatch).splitlines() == [
        "vcpuctl: web2 waits for the guest agent: it says nothing",
        "vcpuctl: web3 waits for another program that has this VM: 17 vcpuctl plug",
    ]
    assert _said(io.StringIO(), _all, monkeypatch, "-q") == ""


def test_the_log_names_the_vm(monkeypatch: pytest.MonkeyPatch) -> None:
    step = {"log": {"event": "DoPlug", "slot": 1}}
    told = _said(io.StringIO(), lambda progress: progress.hear("web1", step), monkeypatch, "-v", "--log-format", "json")
    assert '"event": "DoPlug"' in told
    assert '"vm": "web1"' in told
