# SPDX-License-Identifier: Apache-2.0
"""How long an operation waits for the agent: all of the user's time where somebody is there, else a while."""

from __future__ import annotations

import pytest
from vcpu_host.core import codes
from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.operation.patience import Patience
from vcpu_host.core.reason import Origin, Reason

POLICY = Limits(timeout=100.0, absent_grace=20.0)


def trouble(code: str) -> Reason:
    return Reason(code, Origin.AGENT, "nobody answers", "see")


@pytest.mark.parametrize("code", [codes.GUEST_BOOTING, codes.NO_ANSWER, codes.AGENT_SLOW])
def test_a_guest_that_is_there_gets_all_of_the_users_time(code: str) -> None:
    patience = Patience(POLICY, 5.0)
    assert patience.left(trouble(code), 6.0) == 99.0
    assert patience.left(trouble(code), 104.0) == 1.0
    assert patience.left(trouble(code), 105.0) == 0.0


@pytest.mark.parametrize("code", [codes.AGENT_ABSENT, codes.AGENT_LOST])
def test_an_agent_that_may_not_exist_gets_a_while_from_when_it_was_first_missed(code: str) -> None:
    patience = Patience(POLICY, 5.0)
    assert patience.left(trouble(code), 10.0) == 20.0
    assert patience.left(trouble(code), 29.0) == 1.0
    assert patience.left(trouble(code), 31.0) < 0


def test_the_while_counts_anew_once_the_guest_was_seen_to_be_there() -> None:
    patience = Patience(POLICY, 5.0)
    assert patience.left(trouble(codes.AGENT_ABSENT), 10.0) == 20.0
    assert patience.left(trouble(codes.AGENT_LOST), 25.0) == 5.0
    assert patience.left(trouble(codes.GUEST_BOOTING), 26.0) == 79.0
    assert patience.left(trouble(codes.AGENT_ABSENT), 50.0) == 20.0
    assert patience.left(trouble(codes.AGENT_ABSENT), 90.0) < 0


def test_the_while_is_no_longer_than_the_users_time() -> None:
    assert Patience(Limits(timeout=3.0), 5.0).left(trouble(codes.AGENT_ABSENT), 6.0) == 2.0


@pytest.mark.parametrize(
    "code", ["no-channel", "no-socket", "not-our-port", "link-version", "agent-too-old", "vm-moved"]
)
def test_what_does_not_pass_by_itself_is_not_waited_for(code: str) -> None:
    patience = Patience(POLICY, 5.0)
    assert patience.left(trouble(code), 5.0) < 0
    assert patience.over(trouble(code), 5.0) == trouble(code)


def test_the_reason_says_how_long_it_was_waited_for() -> None:
    said = Patience(POLICY, 5.0).over(trouble(codes.AGENT_ABSENT), 25.4)
    assert (said.code, said.text, said.hint) == (codes.AGENT_ABSENT, "nobody answers (waited 20 s for it)", "see")
