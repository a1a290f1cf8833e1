# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from kit.fakes.adapters import BRISK, PLUG, Rig
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.reason import Outcome


async def test_what_befalls_the_guest_within_a_session_is_known_to_the_next_plan(rig: Rig) -> None:
    """A kept session lives through its guest's sleep, and Hello was before it."""
    assert (await rig.whole.look()).guest_trouble is None
    (agent,) = rig.dialer.made
    agent.becomes = agent.info._replace(environment=agent.info.environment._replace(unhandled_gpes=(2,)))
    for request in (PLUG, Request(Operation.PLUG, selectors=("3",)), Request(Operation.SCALE, 2)):
        result = await rig.whole.run(request, BRISK)
        assert result.reason is not None
        assert (result.outcome, result.reason.code) == (Outcome.REFUSED, "acpi-deaf")
    assert rig.vm.commands == []
    seen = await rig.whole.look()
    assert seen.guest_trouble is not None
    assert seen.guest_trouble.code == "acpi-deaf"
