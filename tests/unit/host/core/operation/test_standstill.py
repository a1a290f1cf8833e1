# SPDX-License-Identifier: Apache-2.0
"""A VM that stops in the middle of an operation: why, whether it is waited for, and in which words that is told."""

from __future__ import annotations

import pytest
from kit.sim.step import Step, plug, unplug
from kit.sim.views import host
from vcpu_host.core.model import Ost
from vcpu_host.core.operation import events as ev
from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.reason import Outcome, Reason
from vcpu_host.core.run_states import RUN_STATES, is_over, not_running

OVER = [status for status in RUN_STATES if is_over(status)]
WAITED_FOR = [status for status in RUN_STATES if not is_over(status)]


def stopped(status: str) -> Step:
    """The plug is made and the guest's firmware has seen it; then the VM stops, and a look shows how it is."""
    step = plug()
    step.tell(ev.PlugReturned(1, None), ev.OstReported(1, Ost(1, 0)))
    step.tell(step.looked(0, 1), ev.VmStatus("stopped"))
    step.tell(step.looked(0, 1, status=status), after=0.1)
    return step


def why(step: Step) -> Reason:
    reason = step.slot.reason
    assert reason is not None
    return reason


@pytest.mark.parametrize("status", OVER)
def test_a_guest_that_will_not_go_on_is_not_waited_for(status: str) -> None:
    step = stopped(status)
    assert step.over()
    assert step.slot.outcome is Outcome.UNKNOWN
    assert why(step) == not_running(host(3, status=status))


@pytest.mark.parametrize("status", OVER)
def test_of_what_had_not_begun_when_the_guest_ended_it_is_said_that_nothing_was_changed(status: str) -> None:
    step = plug()
    step.tell(step.looked(0, status=status))
    assert step.over()
    assert why(step).text.startswith(not_running(host(3, status=status)).text)


@pytest.mark.parametrize("status", OVER)
def test_a_cpu_that_went_before_the_guest_ended_is_gone(status: str) -> None:
    step = unplug()
    step.tell(step.settled(1, "done", online=False))
    step.tell(ev.UnplugReturned(1, None), ev.VmStatus("stopped"))
    step.tell(step.looked(0, status=status), after=0.1)
    assert step.slot.outcome is Outcome.DONE


@pytest.mark.parametrize("status", [*WAITED_FOR, "new-in-qemu-13"])
def test_in_any_other_state_the_time_stands_still_and_the_state_itself_is_the_reason_when_it_is_over(
    status: str,
) -> None:
    step = stopped(status)
    step.tell(step.looked(0, 1, status=status), after=Limits().arrival_grace + 1.0)
    assert not step.over()
    assert not step.of(ev.DoCancel)
    assert not step.of(ev.DoLookGuest)
    step.tell(after=Limits().timeout)
    planned = not_running(host(3, {0, 1}, status=status))
    assert step.slot.outcome is Outcome.UNKNOWN
    assert planned.text in why(step).text
    assert why(step).hint.startswith(planned.hint)
    assert why(step).code == ("vm-paused" if status == "paused" else planned.code)
    assert ("paused" in why(step).text) is (status == "paused")


@pytest.mark.parametrize("status", WAITED_FOR)
def test_a_vm_that_goes_on_ends_as_if_it_had_not_stopped(status: str) -> None:
    step = stopped(status)
    step.tell(ev.VmStatus("running"), after=30.0)
    assert not step.of(ev.DoCancel)
    step.tell(step.settled(1, "done", online=True))
    step.tell(step.looked(0, 1))
    assert step.slot.outcome is Outcome.DONE


def test_when_qemu_says_that_the_vm_has_stopped_it_is_looked_at_at_once() -> None:
    step = plug()
    step.tell(ev.PlugReturned(1, None))
    step.tell(step.looked(0, 1), after=0.1)
    assert not step.of(ev.DoLookHost)
    step.tell(ev.VmStatus("stopped"))
    assert step.of(ev.DoLookHost)


def test_a_late_word_that_the_vm_has_stopped_does_not_hide_why() -> None:
    step = stopped("io-error")
    step.tell(ev.VmStatus("stopped"))
    step.tell(after=Limits().timeout)
    assert "a disk has failed" in why(step).text


def test_progress_names_the_state_and_not_the_guest() -> None:
    assert stopped("suspended").machine.progress()[2] == "slot 1: vm not running"
    assert stopped("paused").machine.progress()[2] == "slot 1: vm paused"
