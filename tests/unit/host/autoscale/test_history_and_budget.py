# SPDX-License-Identifier: Apache-2.0
"""What is kept of decisions, what the journal says of them, and the budget that all VMs share."""

from __future__ import annotations

import json

from vcpu_host.autoscale.budget import Budget
from vcpu_host.autoscale.decision import Check, Decision, Verdict
from vcpu_host.autoscale.entry import MESSAGE_ID, fields
from vcpu_host.autoscale.history import AGAIN, MOST, History
from vcpu_host.core import codes
from vcpu_host.core.reason import Outcome


def _decision(goal: int, code: str = codes.LOAD_NEEDS_MORE, at: float = 0.0) -> Decision:
    return Decision(at, 1, goal, 1, 8, (Check(code, Verdict.PASSES, "words\x1b[31m"),))


def test_only_what_differs_is_kept_and_the_newest_of_it() -> None:
    history = History()
    assert history.take(_decision(1, codes.LOAD_FITS), 10.0, acted=False) is not None
    assert history.take(_decision(1, codes.LOAD_FITS), 11.0, acted=False) is None
    assert history.take(_decision(4), 12.0, acted=True) is not None
    assert history.take(_decision(4), 13.0, acted=True) is not None  # tried again
    assert [entry.time for entry in history.entries] == [10.0, 12.0, 13.0]
    for turn in range(2 * MOST):
        history.take(_decision(turn), turn * 2 * AGAIN, acted=False)
    assert sum(not entry.acted for entry in history.entries) == MOST
    assert sum(entry.acted for entry in history.entries) == 2, "what was done is not pushed out by what was not"


def test_a_load_that_sways_is_told_once_a_minute() -> None:
    history = History()
    told = []
    for turn in range(2400):  # ten minutes
        decision = _decision(4 + turn % 2) if turn % 3 else _decision(1, codes.LOAD_FITS)
        told.append(history.take(decision, turn / 4, acted=False))
    assert 18 <= len([entry for entry in told if entry is not None]) <= 22


def test_a_vm_that_is_off_has_none_of_the_budget_and_one_that_is_not_seen_keeps_what_it_had() -> None:
    budget = Budget(8)
    budget.keep(["a", "b", "c"])
    assert budget.unseen == 3
    budget.has("a", 6)
    assert (budget.unseen, budget.left) == (2, 2), "what nobody has seen is not known, and not 0"
    budget.is_off("b")
    assert (budget.unseen, budget.left) == (1, 2)
    budget.is_off("a")
    assert budget.left == 8


def test_what_a_vm_was_growing_to_counts_until_it_is_seen_or_off() -> None:
    budget = Budget(8)
    budget.keep(["a"])
    budget.has("a", 1)
    budget.grows("a", 4)
    budget.has("a", 1)
    assert budget.left == 4, "it may have been looked at before it grew"
    budget.is_off("a")
    assert budget.left == 8


def test_how_it_ended_is_told_of_the_decision_that_was_carried_out() -> None:
    history = History()
    history.take(_decision(4), 1.0, acted=True)
    history.take(_decision(1, codes.UNDER_WAY), 2.0, acted=False)
    history.ended(Outcome.PARTIAL, 3.5, "no memory")
    first, second = history.entries
    assert (first.outcome, first.elapsed, first.words) == (Outcome.PARTIAL, 3.5, "no memory")
    assert second.outcome is None


def test_the_journals_entry_has_the_figures_and_no_control_characters() -> None:
    entry = History().take(_decision(4, at=7.0), 1.0, acted=True)
    assert entry is not None
    found = dict(fields("web1", "/run/x", entry, "observe"))
    assert found["MESSAGE_ID"] == MESSAGE_ID
    assert found["MESSAGE"].startswith("web1: would scale from 1 to 4 vCPUs")
    assert "\x1b" not in found["MESSAGE"]
    assert json.loads(found["VCPUCTL_AUTOSCALE_DECISION"])["goal"] == 4
    assert dict(fields("web1", "/run/x", entry, "act"))["MESSAGE"].startswith("web1: scales from 1 to 4 vCPUs")


def test_two_vms_cannot_take_the_same_vcpus_of_the_budget() -> None:
    budget = Budget(6)
    budget.has("a", 2)
    budget.has("b", 1)
    assert budget.left == 3
    budget.grows("a", 4)
    assert budget.left == 1
    budget.has("a", 4)
    budget.grows("a", None)
    assert budget.left == 1
    budget.keep({"b"})
    assert budget.left == 5
    assert Budget().left is None
