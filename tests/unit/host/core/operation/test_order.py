# SPDX-License-Identifier: Apache-2.0
"""What the agent says arrives in another order than it came about: whatever was told later counts."""

from __future__ import annotations

from kit.sim.step import Step, requests
from kit.sim.views import vm


def test_the_list_that_ends_one_request_says_nothing_of_what_another_has_told_since() -> None:
    step = Step(vm(4, {0, 1, 2}), "unplug", "1", "2")
    step.tell(step.settled(1, "done", online=False))
    step.tell(step.snapshot(step.cpu(0, online=True), step.cpu(1, online=True)))
    (again,) = requests(step)
    step.tell(step.settled(1, "done", online=False, request=again.request), after=0.1)
    older = step.snapshot(step.cpu(0, online=True), step.cpu(1, online=True))
    step.tell(older._replace(request=1))
    assert not requests(step), "that it is offline was told later than this was seen"
    step.tell(older._replace(request=again.request))
    assert requests(step), "its own request's list is newer than its own answer"
