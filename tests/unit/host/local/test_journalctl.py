# SPDX-License-Identifier: Apache-2.0
"""Reading by journalctl, whose part a script plays: with what it says where it fails, as systemd 252's did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vcpu_host.core.log_entry import Caller, LogEntry, Subject, fields
from vcpu_host.errors import VcpuctlError
from vcpu_host.local.journalctl import Journal

_DOCUMENT: dict[str, Any] = {
    "operation": "plug",
    "outcome": "done",
    "requested": {"count": 1, "slots": []},
    "reason": None,
    "slots": [],
    "recovered": [],
    "elapsed": 0.5,
}
_RAW = {
    **dict(fields(Subject("web1", "/q"), Caller(0), _DOCUMENT, None, None)),
    "__REALTIME_TIMESTAMP": "1795920926494275",
    "_UID": "0",
}
_GOOD = json.dumps(_RAW)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script, which a test fills."""
    path = tmp_path / "journalctl"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return path


def _plays(program: Path, out: str = "", err: str = "", status: int = 0) -> None:
    (program.parent / "out").write_text(out)
    (program.parent / "err").write_text(err)
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >"{program.parent}/argv"\n'
        f"cat {program.parent}/out; cat {program.parent}/err >&2; exit {status}\n"
    )


async def _entries(journal: Journal) -> list[LogEntry]:
    return [entry async for entry in journal.entries()]


async def test_entries_come_in_journalctls_order_and_lines_that_are_none_are_counted(program: Path) -> None:
    second = json.dumps({**_RAW, "VCPUCTL_VM": "web2"})
    others = '{\n[]\n5\n-- No entries --\n{"MESSAGE": "x"}'
    _plays(program, f'{_GOOD}\n{others}\n{second}\n{{"half')
    journal = Journal()
    assert [entry.subject.name for entry in await _entries(journal)] == ["web1", "web2"]
    assert (journal.skipped, journal.hidden) == (5, False)


async def test_a_line_without_end_is_not_held_and_counts_once(program: Path) -> None:
    _plays(program, _GOOD + "\n" + "x" * 3_000_000 + "\n" + _GOOD + "\n" + "y" * 1_000_000)
    journal = Journal()
    assert len(await _entries(journal)) == 2
    assert journal.skipped == 2


async def test_what_is_asked_for_is_an_argument_each_whatever_it_says(program: Path) -> None:
    _plays(program)
    await _entries(Journal(names=["--rotate"], sockets=["/a b"], since="--vacuum-size=1", lines=3, follow=True))
    argv = (program.parent / "argv").read_text().splitlines()
    assert argv[:3] == ["--no-pager", "--output=json", "--all"]
    assert argv[4:7] == ["--lines=3", "--since=--vacuum-size=1", "--follow"]
    ours, name, either, again, socket = argv[7:]
    assert ours == again
    assert (name, either, socket) == ("VCPUCTL_VM=--rotate", "+", "VCPUCTL_SOCKET=/a b")


async def test_all_vms_are_meant_where_none_is_named(program: Path) -> None:
    _plays(program)
    await _entries(Journal())
    argv = (program.parent / "argv").read_text().splitlines()
    assert argv[-2] == "--lines=all"
    assert argv[-1].startswith("MESSAGE_ID=")


async def test_entries_of_others_that_are_hidden_are_told(program: Path) -> None:
    hint = (
        "Hint: You are currently not seeing messages from other users and the system.\n"
        "      Users in groups 'adm', 'systemd-journal' can see all messages.\n"
        "      Pass -q to turn off this notice.\n"
    )
    _plays(program, _GOOD + "\n", hint)
    journal = Journal()
    assert len(await _entries(journal)) == 1
    assert journal.hidden


@pytest.mark.parametrize(
    ("err", "code", "status"),
    [
        ("No journal files were opened due to insufficient permissions.\n", "journal-closed", 1),
        ("Failed to parse timestamp: the other day\n", "bad-usage", 1),
        ("Failed to open journal: \x1b[31mno\n", "no-journal", 1),
        ("", "no-journal", 3),
    ],
)
async def test_what_journalctl_says_becomes_an_error_that_says_what_to_do(
    program: Path, err: str, code: str, status: int
) -> None:
    _plays(program, "", err, status)
    with pytest.raises(VcpuctlError) as raised:
        await _entries(Journal())
    reason = raised.value.reason
    assert reason.code == code
    assert reason.hint
    assert reason.text.isprintable()


async def test_without_journalctl_the_error_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VcpuctlError) as raised:
        await _entries(Journal())
    assert raised.value.reason.code == "no-journal"
    assert "journalctl" in raised.value.reason.text


def _plays_for_ever(program: Path) -> None:
    (program.parent / "out").write_text(_GOOD + "\n")
    program.write_text(f"#!/bin/sh\necho $$ >{program.parent}/pid\ncat {program.parent}/out\nexec sleep 600\n")


def _lives(program: Path) -> bool:
    return Path("/proc", (program.parent / "pid").read_text().strip()).exists()


async def test_a_reader_that_goes_away_takes_journalctl_along(program: Path) -> None:
    _plays_for_ever(program)
    entries = Journal(follow=True).entries()
    assert (await anext(entries)).subject.name == "web1"
    assert _lives(program)
    await entries.aclose()
    assert not _lives(program)
