# SPDX-License-Identifier: Apache-2.0
"""What the collection makes of vcpuctl's documents, for what is hard to come by with a real one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.vcpuctl.vcpu.plugins.module_utils import documents
from kit import documents as schemas
from vcpu_host.cli.exitcodes import Exit

REASON = {"code": "hotplug-disabled", "who": "guest", "text": "no", "hint": "try again", "errno": "EBUSY"}


def slot(outcome: str, *phases: str, reason: dict[str, str] | None = None, number: int = 1) -> dict[str, Any]:
    return {
        "slot": number,
        "id": f"vcpu-{number}",
        "outcome": outcome,
        "reason": reason,
        "phases": dict.fromkeys(phases, 0.1),
        "guest_cpus": [],
    }


def member(status: int, *slots: dict[str, Any], **more: Any) -> dict[str, Any]:
    document = {
        "schema_version": 1,
        "operation": "scale",
        "outcome": "done",
        "requested": {"count": 2, "slots": []},
        "reason": None,
        "slots": list(slots),
        "recovered": [],
        "notes": [],
        "elapsed": 0.1,
        **more,
    }
    schemas.check(document)
    return {"vm": "web1", "vcpus": 2, "exit_status": status, "document": document, "error": None}


def test_every_exit_status_of_vcpuctl_has_a_word_that_says_what_it_means() -> None:
    assert set(documents.OUTCOMES) == {int(status) for status in Exit}
    assert {documents.outcome_of(status): status.name.lower() for status in Exit} == {
        word: word for word in documents.OUTCOMES.values()
    }


@pytest.mark.parametrize(
    ("outcome", "changed"),
    [("done", True), ("partial", True), ("unknown", True), ("failed", False), ("refused", False)],
)
def test_a_vm_has_changed_if_a_slot_has_or_may_have(outcome: str, changed: bool) -> None:
    assert documents.scaled(member(0, slot(outcome)))["changed"] is changed
    assert documents.scaled(member(0, recovered=[slot(outcome)]))["changed"] is changed


def test_a_vm_of_which_nobody_knows_how_it_ended_may_have_changed_and_one_that_was_not_reached_has_not() -> None:
    lost = {"vm": "web1", "vcpus": 2, "exit_status": 4, "document": None, "error": REASON}
    assert documents.scaled(lost)["changed"] is True
    assert documents.scaled({**lost, "exit_status": 5})["changed"] is False
    assert documents.scaled(lost)["reasons"] == [{**REASON, "slot": None}]


def test_reasons_of_the_vm_of_its_slots_and_of_what_was_left_from_before_are_all_told_with_their_slot() -> None:
    part = member(
        6,
        slot("done", "offline", "device_del"),
        slot("refused", "offline", reason=REASON, number=2),
        recovered=[slot("unknown", "device_del", reason=REASON, number=3)],
        reason=REASON,
        outcome="partial",
    )
    assert [reason["slot"] for reason in documents.reasons_of(part)] == [None, 3, 2]


def test_an_outcome_that_the_collection_does_not_know_fails_whatever_was_chosen() -> None:
    results = {"web1": documents.scaled(member(77)), "web2": documents.scaled(member(3))}
    assert documents.failing(results, []) == ["web1"]
    assert documents.failing(results, ["refused"]) == ["web1", "web2"]
    assert "web1: exit status 77" in documents.complaint(results, ["web1"])


def test_the_complaint_has_each_reason_once_with_who_said_it_and_what_to_do() -> None:
    part = member(3, slot("refused", reason=REASON), reason=REASON, outcome="refused")
    words = documents.complaint({"web1": documents.scaled(part)}, ["web1"])
    assert words == ("1 of 1 VMs are not as wanted. web1: refused: guest: no; try again | slot 1: guest: no; try again")
    assert documents.told({**REASON, "who": "vcpuctl", "hint": ""}) == "no"


def test_a_diff_has_what_went_before_and_what_came_after_and_says_what_is_unknown() -> None:
    results = {
        "web2": documents.scaled(
            member(0, slot("done", "offline", "device_del"), slot("refused", "offline", number=2))
        ),
        "web1": documents.scaled(
            member(4, slot("done", "device_add", "online"), slot("unknown", "device_add", number=2))
        ),
    }
    shown = documents.diff(results)
    assert shown["before"] == "web2: slot 1 (vcpu-1)\n"
    assert shown["after"] == "web1: slot 1 (vcpu-1)\nweb1: slot 2 (vcpu-2) unknown\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON document"),
        ("Traceback", "no JSON document"),
        ("[1]", "schema_version None"),
        ('{"schema_version": 2}', "schema_version 2"),
        ('{"schema_version": 1, "exit_status": 3}', "says exit status 3, and it ended with 0"),
    ],
)
def test_what_is_not_vcpuctls_document_is_an_error(text: str, words: str) -> None:
    with pytest.raises(documents.DocumentError, match=words):
        documents.parse(text, 0)


def test_a_document_about_other_vms_than_those_asked_for_is_an_error() -> None:
    document = {"vms": [member(0)]}
    assert set(documents.members(document, ["web1"])) == {"web1"}
    for wrong in (["web1", "web2"], ["web2"], []):
        with pytest.raises(documents.DocumentError, match="web1"):
            documents.members(document, wrong)
    with pytest.raises(documents.DocumentError, match="no list"):
        documents.members(json.loads("{}"), None)
