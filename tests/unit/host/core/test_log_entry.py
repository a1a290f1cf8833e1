# SPDX-License-Identifier: Apache-2.0
"""An entry of the system's journal: what it says, and that nothing gets in or out of it that should not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcpu_host.core.log_entry import (
    FIELDS,
    MESSAGE_ID,
    BrokenEntryError,
    Caller,
    LogEntry,
    Subject,
    change,
    fields,
    read,
    requested,
    who,
)
from vcpu_host.core.operation.counts import Counts
from vcpu_host.core.operation.result import OperationResult, SlotResult
from vcpu_host.core.planning.placement import Placement
from vcpu_host.core.planning.plan import OnWorkload, Operation, Request
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.documents import of_request, of_result

_BUSY = Reason("hotplug-disabled", Origin.GUEST, "the kernel has CPU hotplug disabled", "try again", "EBUSY")
_VM = Subject("web1", "/run/vm1/qmp.sock", 4711)
_BY = Caller(0, "root", "vcpuctl --vm web1 plug 3", 1000)


def _result(*slots: SlotResult, reason: Reason | None = None, outcome: Outcome = Outcome.PARTIAL) -> dict[str, Any]:
    return of_result(OperationResult(Request(Operation.PLUG, 3), outcome, slots, 0.25, reason))


_SLOTS = (
    SlotResult(1, "vcpu-1", Outcome.DONE, None, {"device_add": 0.5, "online": 0.1}),
    SlotResult(2, "vcpu-2", Outcome.FAILED, _BUSY, {"device_add": 0.25, "online": 0.75}),
    SlotResult(3, "vcpu-3", Outcome.FAILED, _BUSY),
)


def _entry(document: dict[str, Any], subject: Subject = _VM, caller: Caller = _BY) -> list[tuple[str, str]]:
    return fields(subject, caller, document, Counts(1, 1), Counts(2, None))


def _shown(entry: list[tuple[str, str]], **trusted: str) -> dict[str, Any]:
    """As journalctl has it: a field that comes several times is a list."""
    raw: dict[str, Any] = {"__REALTIME_TIMESTAMP": "1795920926494275", **trusted}
    for name, value in entry:
        raw[name] = value if name not in raw else [*([raw[name]] if isinstance(raw[name], str) else raw[name]), value]
    return raw


def test_an_entry_says_who_did_what_to_which_vm_from_what_to_what_and_why() -> None:
    entry = _entry(_result(*_SLOTS))
    assert entry[:3] == [
        (
            "MESSAGE",
            (
                "web1: plug 3 by root for uid 1000: partial in 0.250 s; vCPUs plugged 1 to 2, online 1 to ?; "
                "slots 2-3: guest: the kernel has CPU hotplug disabled (EBUSY); try again"
            ),
        ),
        ("MESSAGE_ID", MESSAGE_ID),
        ("PRIORITY", "4"),
    ]
    reason = {"code": "hotplug-disabled", "who": "guest", "slots": "2-3", "text": _BUSY.text}
    assert dict(entry[4:]) == {
        "VCPUCTL_OPERATION": "plug",
        "VCPUCTL_REQUESTED": "3",
        "VCPUCTL_OUTCOME": "partial",
        "VCPUCTL_REASON_CODE": "hotplug-disabled",
        "VCPUCTL_REASON": json.dumps({**reason, "hint": "try again", "errno": "EBUSY"}),
        "VCPUCTL_SLOTS": "1-3",
        "VCPUCTL_PHASES": '{"device_add": 0.5, "online": 0.75}',
        "VCPUCTL_ELAPSED": "0.25",
        "VCPUCTL_VM": "web1",
        "VCPUCTL_SOCKET": "/run/vm1/qmp.sock",
        "VCPUCTL_QEMU_PID": "4711",
        "VCPUCTL_PLUGGED_BEFORE": "1",
        "VCPUCTL_PLUGGED_AFTER": "2",
        "VCPUCTL_ONLINE_BEFORE": "1",
        "VCPUCTL_UID": "0",
        "VCPUCTL_USER": "root",
        "VCPUCTL_FOR_UID": "1000",
        "VCPUCTL_COMMAND": "vcpuctl --vm web1 plug 3",
    }


def test_every_field_is_described_and_has_a_name_that_journald_takes() -> None:
    written = {name for name, _ in _entry(_result(*_SLOTS)) if name.startswith("VCPUCTL_")}
    assert written == FIELDS.keys() - {"VCPUCTL_ONLINE_AFTER"}  # nobody could see it
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]{1,63}", name) for name in FIELDS)
    assert re.fullmatch("[0-9a-f]{32}", MESSAGE_ID)


def test_the_fields_names_are_told_in_the_readme() -> None:
    readme = (Path(__file__).resolve().parents[4] / "README.md").read_text()
    assert [name for name in (*FIELDS, MESSAGE_ID) if name not in readme] == []


@pytest.mark.parametrize(
    ("outcome", "priority"), [("done", "6"), ("refused", "5"), ("partial", "4"), ("unknown", "4"), ("failed", "3")]
)
def test_the_outcome_gives_the_entry_its_priority(outcome: str, priority: str) -> None:
    assert ("PRIORITY", priority) in _entry(_result(outcome=Outcome(outcome)))


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(Operation.SCALE, 8, in_guest=True), "8 --in-guest"),
        (Request(Operation.PLUG, None, ("5", "socket=1"), atomic=True), "--slot 5 socket=1 --atomic"),
        (Request(Operation.PLUG, 2, placement=Placement.SPREAD, node=1), "2 --policy spread --node 1"),
        (Request(Operation.UNPLUG, 1, without_agent=True), "1 --without-agent"),
        (Request(Operation.UNPLUG, 1, workload=OnWorkload.REFUSE), "1 --workload refuse"),
        (Request(Operation.UNPLUG, 1, strict_placement=True), "1 --policy lowest"),
    ],
)
def test_what_was_asked_for_stands_there_as_the_command_line_had_it(request_: Request, words: str) -> None:
    assert requested(of_request(request_)) == words


def test_a_refusal_of_all_and_many_reasons_are_bounded() -> None:
    many = [
        SlotResult(n, "", Outcome.FAILED, Reason(f"code-{n}", Origin.GUEST, "\x1b]0;x\x07" * 999)) for n in range(4000)
    ]
    entry = _entry(_result(*many, reason=_BUSY))
    codes = [value for name, value in entry if name == "VCPUCTL_REASON_CODE"]
    assert (codes[0], len(codes)) == ("hotplug-disabled", 16)
    assert sum(len(value) for _, value in entry) < 30_000
    assert all(value.isprintable() for _, value in entry)


def test_an_entry_is_read_as_it_was_written() -> None:
    read_back = read(_shown(_entry(_result(*_SLOTS, reason=Reason("x", Origin.QEMU, "y"))), _UID="0"))
    assert (read_back.subject, read_back.caller) == (_VM, _BY)
    assert (read_back.operation, read_back.outcome, read_back.requested) == (Operation.PLUG, Outcome.PARTIAL, "3")
    assert [(told.reason.code, told.slots) for told in read_back.reasons] == [("x", ""), ("hotplug-disabled", "2-3")]
    assert read_back.reasons[1].reason == _BUSY
    assert (read_back.plugged, read_back.online) == ((1, 2), (1, None))
    assert (read_back.phases, read_back.elapsed) == ({"device_add": 0.5, "online": 0.75}, 0.25)
    assert read_back.time == pytest.approx(1795920926.494275)


def _read(**changed: Any) -> LogEntry:
    raw = {**_shown(_entry(_result(*_SLOTS))), **changed}
    return read({name: value for name, value in raw.items() if value != ""})


def test_who_wrote_an_entry_is_journalds_word_and_not_its_own() -> None:
    entry = _read(_UID="1001", VCPUCTL_UID="0", _AUDIT_LOGINUID="1002")
    assert (entry.caller.uid, entry.caller.user, entry.login_uid) == (1001, "", 1002)
    assert who(entry.caller, entry.login_uid) == "uid 1001 for uid 1000 (logged in: uid 1002)"
    assert _read(_UID="0", _AUDIT_LOGINUID=str(2**32 - 1)).login_uid is None
    assert _read(_UID="0", _AUDIT_LOGINUID="0").login_uid == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"VCPUCTL_OPERATION": "explode"},
        {"VCPUCTL_OPERATION": ""},
        {"VCPUCTL_OUTCOME": None},
        {"VCPUCTL_ELAPSED": "nan"},
        {"VCPUCTL_ELAPSED": "-1"},
        {"VCPUCTL_PLUGGED_AFTER": "many"},
        {"VCPUCTL_PLUGGED_AFTER": "9" * 5000},
        {"VCPUCTL_REASON": "[1]"},
        {"VCPUCTL_REASON": "[" * 100_000},
        {"VCPUCTL_REASON": '{"code": 1, "who": "qemu", "text": "", "hint": "", "errno": "", "slots": ""}'},
        {"VCPUCTL_REASON": '{"code": "x", "who": "me", "text": "", "hint": "", "errno": "", "slots": ""}'},
        {"VCPUCTL_PHASES": '{"x": "y"}'},
        {"VCPUCTL_PHASES": '{"x": 1e999}'},
        {"VCPUCTL_UID": ""},
        {"VCPUCTL_VM": {"a": 1}},
        {"__REALTIME_TIMESTAMP": "yesterday"},
    ],
)
def test_what_no_vcpuctl_has_written_is_a_broken_entry(changed: dict[str, Any]) -> None:
    with pytest.raises(BrokenEntryError):
        _read(**changed)


def test_texts_that_are_read_back_are_made_printable_whoever_wrote_them() -> None:
    forged = json.dumps(
        {"code": "x\x07", "who": "guest", "text": "\x1b[2J" * 999, "hint": "\n", "errno": "", "slots": "\x9b"}
    )
    entry = _read(VCPUCTL_REASON=forged, VCPUCTL_VM=[0x77, 0x1B, 0xFF], VCPUCTL_USER="a\nb")
    (told,) = entry.reasons
    texts = (told.reason.code, told.reason.text, told.reason.hint, told.slots, entry.subject.name, entry.caller.user)
    assert all(text.isprintable() for text in texts)
    assert entry.subject.name == r"w\x1b�"
    assert len(told.reason.text) == 400


@given(st.dictionaries(st.sampled_from([*FIELDS, "_UID", "__REALTIME_TIMESTAMP"]), st.text() | st.none()))
def test_whatever_stands_in_an_entry_it_is_read_or_broken(raw: dict[str, Any]) -> None:
    try:
        read({**_shown(_entry(_result(*_SLOTS))), **raw})
    except BrokenEntryError:
        return


@pytest.mark.parametrize(
    ("counts", "words"), [((1, 4), "1 to 4"), ((2, 2), "2"), ((None, None), "?"), ((1, None), "1 to ?")]
)
def test_a_count_is_told_before_and_after(counts: tuple[int | None, int | None], words: str) -> None:
    assert change(counts) == words
