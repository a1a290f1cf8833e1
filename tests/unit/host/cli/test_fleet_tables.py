# SPDX-License-Identifier: Apache-2.0
"""What people read of a command for many VMs."""

from __future__ import annotations

from typing import Any

import pytest
from kit.sim.views import vm as view_of
from vcpu_host import documents
from vcpu_host.cli.exitcodes import Exit, worst
from vcpu_host.cli.fleet_tables import blocks
from vcpu_host.cli.layout import compose
from vcpu_host.core import codes
from vcpu_host.core.finding import Finding, Level
from vcpu_host.core.operation.result import OperationResult, SlotResult
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.core.workload.model import Note
from vcpu_host.documents import Document

_NO = Reason(codes.QEMU_ERROR, Origin.QEMU, "no room", "make some")
_GONE = Reason(codes.QEMU_GONE, Origin.QEMU, "nobody listens", "start it")
_VIEW = documents.of_view(view_of(4, {0, 1}))


def _result(outcome: Outcome, *slots: SlotResult) -> Document:
    return documents.of_result(OperationResult(Request(Operation.SCALE, 2), outcome, slots, 0.5, None))


_DONE = _result(Outcome.DONE, SlotResult(1, "vcpu-1", Outcome.DONE, None), SlotResult(2, "vcpu-2", Outcome.DONE, None))
_REFUSED = _result(Outcome.REFUSED, SlotResult(1, "", Outcome.REFUSED, _NO))


def _member(name: str, answer: Document | None, status: int = 0, error: Reason | None = None) -> Document:
    return documents.of_member(name, 2, answer, error, status)


def _shown(command: str, *members: Document, dry_run: bool = False, **how: Any) -> list[str]:
    status = worst(Exit(member["exit_status"]) for member in members)
    document = documents.of_fleet(command, members, status, 1.5, dry_run=dry_run)
    lines = ["".join(text for text, _ in line).rstrip() for line in compose(blocks(document, **how), None)]
    return [line for line in lines if line]


def test_operations_have_a_row_a_vm_each_reason_once_and_a_sum() -> None:
    told = _shown(
        "apply",
        _member("web1", _DONE),
        _member("web2", _REFUSED, 3),
        _member("web3", _REFUSED, 3),
        _member("web4", None, 5, _GONE),
    )
    assert [line.split() for line in told[:5]] == [
        ["VM", "VCPUS", "OUTCOME", "SLOTS", "SECONDS"],
        ["web1", "2", "done", "1-2", "0.500"],
        ["web2", "2", "refused", "1", "0.500"],
        ["web3", "2", "refused", "1", "0.500"],
        ["web4", "2", "unreachable", "-", "-"],
    ]
    assert told[5:] == [
        f"web2, web3: {_NO}",
        f"web4: {_GONE}",
        "apply: 1 done, 2 refused, 1 unreachable in 1.500 s",
    ]


def test_quiet_shows_only_what_is_not_as_it_was_asked() -> None:
    assert _shown("apply", _member("web1", _DONE), quiet=True) == []
    told = _shown("apply", _member("web1", _DONE), _member("web2", _REFUSED, 3), quiet=True)
    assert not any("web1" in line for line in told)
    assert told[-1] == "apply: 1 done, 1 refused in 1.500 s"


def test_a_list_has_a_row_a_vm() -> None:
    told = _shown("list", _member("web1", _VIEW), _member("web2", None, 5, _GONE))
    assert told[0].split() == ["VM", "POSSIBLE", "PLUGGED", "ONLINE", "AGENT", "PENDING"]
    assert told[1].split()[:4] == ["web1", "4", "2", "2"]
    assert told[2].split() == ["web2", "-", "-", "-", codes.QEMU_GONE, "-"]
    assert told[3:] == [f"web2: {_GONE}"]


@pytest.mark.parametrize("count", [1, 2])
def test_wide_and_a_plan_show_all_of_each_vm_below_its_name(count: int) -> None:
    members = [_member(f"web{number}", _DONE) for number in range(count)]
    told = _shown("apply", *members, wide=True)
    assert sum(line in [f"web{number}:" for number in range(count)] for line in told) == count
    assert sum("vcpu-1" in line for line in told) == count
    assert _shown("apply", _member("web9", None, 2, _GONE), dry_run=True) == ["web9:", str(_GONE)]


def test_findings_stand_below_each_vms_name_and_quiet_leaves_out_who_has_none_that_matter() -> None:
    good = documents.of_findings([Finding(Level.OK, codes.QEMU, "all is well")])
    bad = documents.of_findings([Finding(Level.PROBLEM, codes.QEMU_GONE, "it is gone")])
    told = _shown("doctor", _member("web1", good), _member("web2", bad, 1))
    assert (told[0], told[2]) == ("web1:", "web2:")
    assert _shown("doctor", _member("web1", good), _member("web2", bad, 1), quiet=True)[0] == "web2:"


def test_the_worst_status_is_the_one_of_which_least_is_known() -> None:
    order = [Exit.DONE, Exit.REFUSED, Exit.USAGE, Exit.PARTIAL, Exit.FAILED, Exit.UNREACHABLE, Exit.UNKNOWN]
    assert sorted(Exit) == sorted(order)
    for place, status in enumerate(order):
        assert worst(order[: place + 1]) is status
        assert worst(reversed(order[: place + 1])) is status
    assert worst([]) is Exit.DONE


def test_what_hurts_the_programs_of_a_vm_is_told_with_its_name_and_mere_notes_are_not() -> None:
    hurt = Note(Level.WARNING, codes.AFFINITY_BROKEN, "postgres[812] has lost its CPUs")
    mere = Note(Level.NOTE, codes.NET_QUEUES, "eth0 uses 1 of 8 queue pairs")
    result = OperationResult(Request(Operation.SCALE, 2), Outcome.DONE, (), 0.5, None, notes=(mere, hurt))
    told = _shown("apply", _member("web1", documents.of_result(result)), _member("web2", _DONE), quiet=True)
    assert "web1: postgres[812] has lost its CPUs" in told
    assert not any("eth0" in line or line.startswith("web2") for line in told)
