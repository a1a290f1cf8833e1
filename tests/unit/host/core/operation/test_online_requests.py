# SPDX-License-Identifier: Apache-2.0
"""The requests to the agent that are under way, and how long they hold up others."""

from __future__ import annotations

from vcpu_host.core.operation.online_requests import OnlineRequests
from vcpu_host.core.operation.thread_evidence import ThreadEvidence


def test_no_number_is_used_twice_even_when_the_session_was_lost() -> None:
    requests = OnlineRequests(grace=3.0)
    first = requests.sent([ThreadEvidence("a")], 0.0, online=True)
    requests.forget()
    second = requests.sent([ThreadEvidence("a")], 0.0, online=True)
    assert first != second
    assert requests.get(first) is None
    assert requests.get(None) is None


def test_a_request_marks_its_threads_and_an_answer_frees_the_one_that_it_is_for() -> None:
    requests = OnlineRequests(grace=3.0)
    a, b = ThreadEvidence("a"), ThreadEvidence("b")
    number = requests.sent([a, b], 0.0, online=False)
    request = requests.get(number)
    assert request is not None
    assert (a.request, b.request, a.touched, request.of) == (number, number, True, 2)
    requests.answered(request, a, 1.0)
    assert (a.request, b.request, request.open_ids, request.of) == (None, number, {"b"}, 2)
    assert requests.ended(number) is request
    assert requests.ended(number) is None


def test_only_an_offline_request_that_gets_on_holds_up_a_removal() -> None:
    requests = OnlineRequests(grace=3.0)
    requests.sent([ThreadEvidence("up")], 0.0, online=True)
    assert not requests.offlining(0.0), "nothing goes offline"
    a, b = ThreadEvidence("a"), ThreadEvidence("b")
    number = requests.sent([a, b], 0.0, online=False)
    assert requests.offlining(2.9)
    assert not requests.offlining(3.0), "it does not get on"
    request = requests.get(number)
    assert request is not None
    requests.answered(request, a, 2.0)
    assert requests.offlining(4.9)
    requests.answered(request, b, 2.0)
    assert not requests.offlining(2.0), "all of it is answered"
