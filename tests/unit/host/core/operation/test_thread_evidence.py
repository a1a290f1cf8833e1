# SPDX-License-Identifier: Apache-2.0
"""What is known of one thread, and what makes it void."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from vcpu_host.core import codes
from vcpu_host.core.guest import GuestCpu
from vcpu_host.core.operation.thread_evidence import ThreadEvidence
from vcpu_host.core.reason import Origin, Reason

OFF = GuestCpu(3, "a", False)
ON = GuestCpu(3, "a", True)
PARKED = GuestCpu(3, "a", False, cannot_online=Reason(codes.SMT_OFF, Origin.GUEST, "its SMT mode", ""))


def confirmed() -> ThreadEvidence:
    """A thread that the agent confirmed offline in session s."""
    thread = ThreadEvidence("a", was_online=True)
    thread.shown(OFF)
    thread.confirmed_offline("s")
    return thread


def is_proven_absent(thread: ThreadEvidence) -> None:
    """A list shows no such CPU."""
    assert thread.proven_absent("s")


def test_a_cpu_that_is_shown_is_present_as_it_is_shown() -> None:
    thread = ThreadEvidence("a")
    assert (thread.present, thread.number) == (None, None), "nobody has asked"
    assert thread.shown(ON) is None, "nothing was confirmed"
    assert (thread.present, thread.number, thread.online, thread.parked) == (True, 3, True, False)
    assert thread.shown(PARKED) is None
    assert (thread.online, thread.parked) == (False, True)


def test_a_confirmation_stands_until_the_cpu_is_seen_online() -> None:
    thread = confirmed()
    assert (thread.shown(OFF), thread.offline_in) == (None, "s")
    assert (thread.shown(ON), thread.offline_in) == ("s", None), "the session whose confirmation is refuted"
    assert (thread.shown(ON), thread.offline_in) == (None, None)


def test_absence_confirms_only_what_the_agent_has_said_too_in_this_session() -> None:
    thread = ThreadEvidence("a")
    assert not thread.proven_absent("s"), "nobody knew of it, and nothing follows"
    thread.said_absent("s")
    assert (thread.proven_absent("t"), thread.offline_in) == (False, None)
    assert (thread.proven_absent("s"), thread.offline_in) == (True, "s")


def test_a_cpu_that_has_gone_from_the_list_is_not_present_and_keeps_its_confirmation() -> None:
    thread = confirmed()
    assert thread.proven_absent("s")
    assert (thread.present, thread.online, thread.offline_in) == (False, False, "s")
    assert not thread.proven_absent("s"), "that is known"


def test_a_cpu_that_the_agent_does_not_find_has_no_confirmation() -> None:
    thread = confirmed()
    thread.missing()
    assert (thread.present, thread.online, thread.parked, thread.offline_in) == (False, False, False, None)


def test_a_request_touches_a_thread_until_it_is_known_to_be_as_it_was() -> None:
    thread = confirmed()
    thread.asked(7)
    assert (thread.request, thread.touched) == (7, True)
    thread.answered()
    assert (thread.request, thread.touched) == (None, True)
    thread.switched(online=True)
    assert (thread.request, thread.touched) == (None, False)
    thread.switched(online=False)
    assert (thread.request, thread.touched) == (None, True)


def test_when_an_answer_is_lost_it_is_not_known_how_the_cpu_is() -> None:
    thread = confirmed()
    thread.asked(7)
    thread.answer_lost()
    assert (thread.request, thread.online, thread.offline_in, thread.touched) == (None, False, None, True)
    assert thread.present, "it is there all the same"


def test_the_guests_words_are_void_when_the_session_ends_but_not_what_was_asked_of_it() -> None:
    thread = confirmed()
    thread.heard(2.0)
    thread.asked(7)
    thread.said_absent("s")
    thread.forget()
    assert (thread.present, thread.offline_in, thread.absent_in, thread.request) == (None, None, None, None)
    assert (thread.number, thread.heard_at, thread.touched) == (3, 2.0, True)


def test_when_its_cpu_is_out_only_what_is_under_way_is_left_and_lists_from_before_are_older() -> None:
    thread = confirmed()
    thread.asked(7)
    thread.said_absent("s")
    thread.is_out(4.0)
    assert (thread.present, thread.offline_in, thread.absent_in, thread.number) == (None, None, None, None)
    assert (thread.request, thread.of_another, thread.heard_at, thread.touched) == (7, 7, 4.0, True)


@pytest.mark.parametrize("cpu", [ON, PARKED])
@pytest.mark.parametrize(
    "happens", [ThreadEvidence.answer_lost, ThreadEvidence.forget, ThreadEvidence.missing, is_proven_absent]
)
def test_a_cpu_is_neither_online_nor_parked_when_that_is_not_known_any_more(
    cpu: GuestCpu, happens: Callable[[ThreadEvidence], None]
) -> None:
    thread = ThreadEvidence("a")
    thread.shown(cpu)
    happens(thread)
    assert (thread.online, thread.parked) == (False, False)


def test_under_another_name_nothing_is_known_of_it() -> None:
    thread = confirmed()
    thread.renamed("b")
    assert (thread.firmware_id, thread.present, thread.offline_in) == ("b", None, None)
