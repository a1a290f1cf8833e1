# SPDX-License-Identifier: Apache-2.0
"""Which process writes an operation's entry, and what it says of one that was never begun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from kit.fakes.adapters import BRISK, PLUG, Rig
from vcpu_host.core import codes
from vcpu_host.core.log_entry import Caller, Subject
from vcpu_host.core.operation.counts import Counts
from vcpu_host.core.operation.result import OperationResult
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.errors import AgentGoneError, OutcomeLostError, RefusedError, UsageError, VcpuctlError
from vcpu_host.local import journald
from vcpu_host.local.journald import Told
from vcpu_host.local.target import Domain, Target
from vcpu_host.sharing.answers import answer
from vcpu_host.sharing.calls import Call, Kind
from vcpu_host.sharing.logged import log, no_result

_TARGET = Target("/run/vm1/qmp.sock", name="web1")
_CALL = Call(Kind.RUN, PLUG, for_uid=1000)
_Entry = tuple[Subject, Caller, Mapping[str, Any], Counts | None, Counts | None]


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> list[_Entry]:
    """What would have been written."""
    written: list[_Entry] = []

    def log_operation(*entry: Any) -> Told:
        written.append(entry)
        return Told.WRITTEN

    monkeypatch.setattr(journald, "log_operation", log_operation)
    return written


async def test_who_carries_an_operation_out_hears_its_result_once_and_questions_leave_none(
    rig: Rig, entries: list[_Entry]
) -> None:
    heard: list[Any] = []

    def ended(result: Any) -> str:
        heard.append(result)
        return log(_TARGET, "vcpuctl serve", result, rig.whole, 1000)

    told: list[Any] = []
    document = await answer(rig.whole, Call(Kind.RUN, PLUG, verbosity=1), told.append, "/q", ended)
    for kind in (Kind.LIST, Kind.PLAN):
        await answer(rig.whole, Call(kind, PLUG), told.append, "/q", ended)
    ((subject, caller, written, before, after),) = entries
    assert written == document
    assert (before, after) == (heard[0].before, heard[0].after) == (Counts(1, 1), Counts(2, 2))
    assert subject.name == "web1"
    assert (caller.command, caller.for_uid) == ("vcpuctl serve", 1000)
    assert {"log": {"event": "journal", "entry": "written"}} in told


async def _write(result: OperationResult) -> None:
    log(_TARGET, "vcpuctl plug", result, None, _CALL.for_uid)


@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        (RefusedError, codes.VM_BUSY, "refused"),
        (AgentGoneError, codes.AGENT_ABSENT, "refused"),
        (OutcomeLostError, codes.SERVICE_LOST, "unknown"),
        (OutcomeLostError, codes.INTERRUPTED, "unknown"),
    ],
)
async def test_who_asks_writes_of_what_was_not_begun_and_is_not_sure_of_what_was_lost(
    entries: list[_Entry], error: type[VcpuctlError], code: str, outcome: str
) -> None:
    with pytest.raises(VcpuctlError):
        async with no_result(_CALL, _write):
            raise error(Reason(code, Origin.VCPUCTL, "x"))
    ((_, caller, document, before, after),) = entries
    assert (document["outcome"], document["reason"]["code"]) == (outcome, code)
    assert (caller.command, caller.for_uid, before, after) == ("vcpuctl plug", 1000, None, None)


async def test_an_operation_that_a_mistake_of_ours_ended_has_its_entry_too_and_nobody_knows_how_far_it_came(
    entries: list[_Entry],
) -> None:
    with pytest.raises(KeyError):
        async with no_result(_CALL, _write):
            raise KeyError("scale")
    ((_, _, document, _, _),) = entries
    assert (document["outcome"], document["reason"]["code"]) == ("unknown", codes.FAULT)


async def test_who_asks_leaves_it_to_the_process_that_has_begun_and_questions_are_no_operations(
    entries: list[_Entry],
) -> None:
    error = RefusedError(Reason(codes.AGENT_ABSENT, Origin.AGENT, "x"))
    with pytest.raises(RefusedError):
        async with no_result(_CALL, _write, begun=lambda: True):
            raise error
    with pytest.raises(RefusedError):
        async with no_result(Call(Kind.PLAN, PLUG), _write):
            raise error
    assert entries == []


async def test_words_that_fit_no_vm_leave_no_entry_nor_does_what_went_well(entries: list[_Entry]) -> None:
    with pytest.raises(UsageError):
        async with no_result(_CALL, _write):
            raise UsageError(Reason(codes.BAD_SLOT, Origin.VCPUCTL, "x"))
    async with no_result(_CALL, _write):
        pass
    assert entries == []


async def test_a_vm_without_a_name_of_its_own_has_qemus(rig: Rig, entries: list[_Entry]) -> None:
    rig.vmm.facts = {"vm_name": "guest=one"}
    result = await rig.whole.run(PLUG, BRISK)
    log(Target("/q"), "vcpuctl plug", result, rig.whole)
    assert entries[0][0].name == "guest=one"


def test_for_whom_something_is_done_is_never_what_another_process_says() -> None:
    sent = Call(Kind.RUN, PLUG, for_uid=7).to_json()
    assert "for_uid" not in sent
    assert Call.from_json({**sent, "for_uid": 0}).for_uid is None


async def test_an_entry_about_a_domain_says_by_which_libvirt_it_was_reached_and_no_process(
    rig: Rig, entries: list[_Entry]
) -> None:
    for target, name in ((Domain("u:///x", "db", "db1"), "db1"), (Domain("u:///x", "db"), rig.whole.name)):
        result = await rig.whole.run(PLUG)
        log(target, "vcpuctl plug", result, None if target.name else rig.whole)
        (subject, *_) = entries[-1]
        assert (subject.name, subject.socket) == (name, "u:///x db")
