# SPDX-License-Identifier: Apache-2.0
"""What QEMU has plugged, of which the guest has not all online: it counts for the maximum, and is used first."""

from __future__ import annotations

from typing import Any

from kit.autoscale.guest import Load, SimGuest
from vcpu_host.autoscale.decision import Decision, Direction
from vcpu_host.autoscale.outside import HostRoom, Outside
from vcpu_host.autoscale.policy import Policy
from vcpu_host.autoscale.settings import Mode, Settings
from vcpu_host.core import codes


def _up_to(most: int) -> Settings:
    return Settings(max=most, mode=Mode.ACT, boot_grace=0.0)


def grown(settings: Settings | None = None, **outside: Any) -> Decision:
    """What is decided for a guest with two vCPUs online that has work for four."""
    policy, guest = Policy(settings or _up_to(8)), SimGuest(2)
    while guest.now < 30:
        guest.step(Load(threads=4), 0.25)
        policy.sample(guest.sample(), guest.now)
    return policy.decide(Outside(online=2, possible=16, **outside), guest.now)


def test_what_a_guest_calls_parked_is_plugged_all_the_same() -> None:
    """One that lies of it would else get all vCPUs that the VM can have, above its maximum."""
    decision = grown(_up_to(4), plugged=4, parked=2)
    assert (decision.direction, decision.code) == (Direction.HOLD, codes.AT_MAXIMUM)
    assert grown(_up_to(6), plugged=4, parked=2).goal == 4


def test_a_vm_that_grows_brings_online_what_it_has_plugged_and_loses_none_of_it() -> None:
    assert grown(plugged=8).goal == 8
    assert grown(_up_to(6), plugged=8).goal == 6, "its maximum"


def test_what_is_plugged_already_takes_nothing_of_the_hosts_budget() -> None:
    assert grown(plugged=4, room=HostRoom(0)).goal == 4
    assert grown(plugged=3, room=HostRoom(0)).goal == 3
    assert grown(plugged=2, room=HostRoom(0)).code == codes.OVER_BUDGET
    assert grown(plugged=3, room=HostRoom(1)).goal == 4
    assert grown(plugged=4, room=HostRoom(0, unseen=1)).goal == 4
