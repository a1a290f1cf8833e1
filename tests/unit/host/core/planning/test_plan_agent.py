# SPDX-License-Identifier: Apache-2.0
"""Planning without an agent, or with one that cannot do its part."""

from __future__ import annotations

import pytest
from kit.sim.plans import codes, planned
from kit.sim.views import INFO, guest, host
from vcpu_host import documents
from vcpu_host.cli.exitcodes import of_plan
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.view import join


@pytest.mark.parametrize(
    ("operation", "count", "selectors"), [("plug", 1, ()), ("scale", 3, ()), ("unplug", None, ("1",))]
)
def test_without_an_agent_every_operation_is_refused_with_the_agents_trouble(
    operation: str, count: int | None, selectors: tuple[str, ...]
) -> None:
    trouble = Reason("agent-absent", Origin.AGENT, "nobody has the port open")
    view = join(host(4, {0, 1}), None, agent_trouble=trouble)
    assert planned(view, operation, count, *selectors).refusals[0].reason is trouble


@pytest.mark.parametrize(
    ("code", "selectors", "status"),
    [("agent-absent", ("1",), 5), ("no-answer", ("cpu3",), 5), ("port-busy", ("1",), 3), (None, ("1",), 3)],
)
def test_a_plan_that_lacks_the_agent_ends_with_the_status_of_its_operation(
    code: str | None, selectors: tuple[str, ...], status: int
) -> None:
    trouble = None if code is None else Reason(code, Origin.AGENT, "it does not answer")
    view = join(host(4, {0, 1}), None, agent_trouble=trouble)
    assert of_plan(documents.of_plan(planned(view, "unplug", None, *selectors))) == status


def test_a_plan_that_is_refused_without_asking_the_agent_ends_as_refused() -> None:
    view = join(host(4, {0, 1}), None, agent_trouble=Reason("agent-absent", Origin.AGENT, "nobody"))
    assert of_plan(documents.of_plan(planned(view, "unplug", None, "0"))) == 3


@pytest.mark.parametrize(
    ("operation", "count", "selectors"), [("plug", 1, ()), ("scale", 3, ()), ("unplug", None, ("1",))]
)
def test_an_agent_that_does_not_know_the_platform_is_given_nothing_to_do(
    operation: str, count: int | None, selectors: tuple[str, ...]
) -> None:
    view = host(4, {0, 1})
    shown = join(view, guest(view, {0, 1}), agent=INFO._replace(platform="plain"))
    assert [slot.state for slot in shown.slots] == ["unknown", "unknown", "empty", "empty"]
    assert codes(planned(shown, operation, count, *selectors)) == ["agent-platform"]


def test_what_no_agent_could_do_is_refused_for_its_own_reason() -> None:
    view = join(host(4, {0, 1}), None, agent_trouble=Reason("agent-absent", Origin.AGENT, "nobody"))
    assert codes(planned(view, "scale", 9)) == ["over-max"]
    assert codes(planned(view, "unplug", None, "0")) == ["boot-cpu"]
