# SPDX-License-Identifier: Apache-2.0
"""What people read of the autoscaler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kit import documents as schemas
from kit.autoscale.guest import Load, SimGuest
from vcpu_host.autoscale.history import History
from vcpu_host.autoscale.outside import Outside
from vcpu_host.autoscale.policy import Policy
from vcpu_host.autoscale.settings import Mode, Schedule, Settings
from vcpu_host.cli.autoscale import autoscale, blocks
from vcpu_host.cli.exitcodes import Exit
from vcpu_host.cli.layout import Line, Table
from vcpu_host.cli.parser import build_parser
from vcpu_host.core import codes
from vcpu_host.core.guest import LoadSupport
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.documents import autoscale as documents
from vcpu_host.local import target


def _document(mode: Mode = Mode.ACT, threads: float = 4.0) -> dict[str, Any]:
    office = Schedule(frozenset({0, 4}), 480, 1080, 2)
    policy, guest, history = (
        Policy(Settings(max=8, mode=mode, boot_grace=0.0, schedules=(office,))),
        SimGuest(),
        History(),
    )
    for _ in range(40):
        guest.step(Load(threads=threads), 0.25)
        policy.sample(guest.sample(), guest.now)
        decision = policy.decide(Outside(1, 16), guest.now)
        history.take(decision, 1.79e9 + guest.now, acted=False)
    history.take(decision, 1.79e9 + 20, acted=True)
    history.ended(Outcome.DONE, 1.25, "")
    found = documents.of_autoscaler(
        policy.settings,
        decision,
        history.entries,
        enabled=True,
        support=LoadSupport(allowed=True, pressure=True),
        now=guest.now,
    )
    whole = documents.of_autoscale([("web1", found), ("web2", Reason(codes.NO_AUTOSCALE, Origin.VCPUCTL, "no table"))])
    schemas.check({"schema_version": 1, **whole})
    return whole


def _said(step: str, document: dict[str, Any] | None = None) -> str:
    found = []
    for block in blocks((document or _document())["vms"], step):
        if isinstance(block, Line):
            found.append(block.lead + block.text)
        if isinstance(block, Table):
            found += [" ".join(cell if isinstance(cell, str) else cell[0] for cell in row) for row in block.rows]
    return "\n".join(found)


def test_status_has_a_line_for_each_vm_and_why() -> None:
    said = _said("status")
    assert "web1 act 1 4 1.00 3.00 0.00" in said
    assert "load-needs-more" in said
    assert "web2: vcpuctl: no table" in said


def test_explain_has_all_that_bears_on_the_decision() -> None:
    said = _said("explain")
    assert "web1: 1 vCPU online, is to grow to 4 (from 1 to 8)" in said
    assert "3.00 tasks wait" in said
    assert "passes  load-needs-more" in said
    assert "does not tell wait times (schedstat)" in said
    assert "would grow to 4" in _said("explain", _document(Mode.OBSERVE))


def test_history_tells_what_became_of_each_decision() -> None:
    said = _said("history")
    assert "1 -> 4 load-needs-more observed" in said
    assert "1 -> 4 load-needs-more done in 1.2 s" in said


def test_where_nothing_is_scaled_that_is_said() -> None:
    assert _said("status", {"vms": []}) == "no VM in vms.d has [autoscale]"


async def test_a_file_that_is_wrong_is_told_with_the_others_and_none_without_the_table_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(target, "directories", lambda: (tmp_path,))
    (tmp_path / "web1.toml").write_text('qmp = "/nowhere"\n[autoscale]\nmaximum = 4\n')
    (tmp_path / "web2.toml").write_text('qmp = "/nowhere"\n')
    args = build_parser().parse_args(["-o", "json", "--all", "autoscale", "status"])
    assert await autoscale(args) == Exit.USAGE
    (found,) = json.loads(capsys.readouterr().out)["vms"]
    assert (found["name"], found["error"]["code"]) == ("web1", "bad-vm-file")
    assert "maximum" in found["error"]["text"]
